//! `devbox doctor`.

use std::process::Command;

use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::exec::sandbox::{self, Policy};
use crate::exec::{self, tools};
use crate::host;
use crate::machine::config::{Accelerator, Arch};
use crate::machine::template::Templates;
use crate::machine::{accel, firmware, virtiofs};
use crate::source::disk::{Loader, preflight};
use crate::spec;
use crate::store::Store;
use crate::ui;

/// Below this an image and its machine do not fit: a Debian box takes about 1 GiB while it is built.
const LITTLE_SPACE: u64 = 4 << 30;

/// Say whether this host has what devbox needs, and what to do where it has not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// As it should be.
    Good,
    /// devbox works, with less.
    Less,
    /// Something cannot be done.
    Bad,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Grade::Good => "ok",
            Grade::Less => "note",
            Grade::Bad => "FAIL",
        }
    }
}

/// What was found about one thing.
#[derive(Debug)]
struct Finding {
    about: &'static str,
    grade: Grade,
    text: String,
    hints: Vec<String>,
}

impl Finding {
    fn good(about: &'static str, text: impl Into<String>) -> Self {
        Finding { about, grade: Grade::Good, text: text.into(), hints: vec![] }
    }

    fn of(about: &'static str, grade: Grade, e: &Error) -> Self {
        let mut text = e.what().to_owned();
        for more in e.causes().iter().chain(e.details()) {
            text.push_str("; ");
            text.push_str(more);
        }
        Finding { about, grade, text, hints: e.hints().to_vec() }
    }
}

/// Ends with 1 if something that `up` or `build` needs is missing.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let findings = vec![
        qemu(),
        accelerator(ctx)?,
        uefi(),
        ssh(),
        build(),
        options(),
        isolation(),
        space(ctx),
        store(ctx),
        templates(ctx),
    ];
    let bad = findings.iter().any(|f| f.grade == Grade::Bad);
    if args.json {
        let all: Vec<Value> = findings
            .iter()
            .map(|f| {
                json!({
                    "about": f.about, "grade": f.grade.word().to_lowercase(), "text": f.text,
                    "hints": f.hints,
                })
            })
            .collect();
        ui::line(&format!("{:#}", json!({"schema": 1, "ok": !bad, "findings": all})))?;
    } else {
        for f in &findings {
            ui::line(&format!("{:4}  {:11}  {}", f.grade.word(), f.about, f.text))?;
            for hint in &f.hints {
                ui::line(&format!("{:19}{hint}", ""))?;
            }
        }
    }
    Ok(if bad { exit::FAILED } else { exit::OK })
}

fn qemu() -> Finding {
    let about = "QEMU";
    let (qemu, img) = match (tools::QEMU_X86.find(), tools::QEMU_IMG.find()) {
        (Ok(qemu), Ok(img)) => (qemu, img),
        (Err(e), _) | (_, Err(e)) => return Finding::of(about, Grade::Bad, &e),
    };
    let version = |program| {
        let out = exec::output(Command::new(program).arg("--version")).unwrap_or_default();
        String::from_utf8_lossy(&out)
            .lines()
            .next()
            .unwrap_or("its version is not known")
            .to_owned()
    };
    Finding::good(about, format!("{}; {}", version(qemu), version(img)))
}

fn accelerator(ctx: &Context) -> Result<Finding> {
    let about = "accelerator";
    Ok(match ctx.block_on(async |_| accel::choose(&ctx.paths.cache, own_arch()).await) {
        Ok(choice) if choice.accelerator != Accelerator::Tcg => Finding::good(about, choice.reason),
        Ok(choice) => Finding {
            about,
            grade: Grade::Less,
            text: choice.reason,
            hints: vec!["Guests run, ten to thirty times slower than with KVM.".to_owned()],
        },
        Err(e) => Finding::of(about, Grade::Bad, &e),
    })
}

fn uefi() -> Finding {
    match firmware::find(own_arch(), false) {
        Ok(found) => Finding::good("UEFI", found.code.display().to_string()),
        Err(e) => Finding::of("UEFI", Grade::Less, &e),
    }
}

/// Of guests unless they are asked for.
fn own_arch() -> Arch {
    Arch::of_host().unwrap_or(Arch::X86_64)
}

/// What a spec may ask for and most do not: nobody lacks it who does not use it.
fn options() -> Finding {
    let arm64 = || {
        tools::qemu(Arch::Aarch64).find()?;
        firmware::find(Arch::Aarch64, false)
    };
    let asked = [
        ("virtiofs", virtiofs::check().err()),
        ("Secure Boot", firmware::find(own_arch(), true).err()),
        ("TPM", tools::SWTPM.find().err()),
        ("arm64 machines", arm64().err()),
        (
            "arm64 images",
            preflight::packages(spec::Arch::Arm64, Loader::of(spec::Arch::Arm64, false)).err(),
        ),
    ];
    let names = |there: bool| -> Vec<&str> {
        asked.iter().filter(|(_, e)| e.is_none() == there).map(|(name, _)| *name).collect()
    };
    let text = match (names(true).join(", "), names(false).join(", ")) {
        (there, missing) if missing.is_empty() => format!("{there} can be had"),
        (there, missing) if there.is_empty() => format!("for {missing} something is missing"),
        (there, missing) => format!("{there} can be had; for {missing} something is missing"),
    };
    let hints =
        asked.iter().filter_map(|(name, e)| Some(format!("{name}: {}", e.as_ref()?.what())));
    Finding { hints: hints.collect(), ..Finding::good("options", text) }
}

fn ssh() -> Finding {
    match tools::SSH.find() {
        Ok(path) => Finding::good("ssh", path.display().to_string()),
        Err(e) => Finding::of("ssh", Grade::Bad, &e),
    }
}

fn build() -> Finding {
    let arch = match Arch::of_host() {
        Some(Arch::Aarch64) => spec::Arch::Arm64,
        _ => spec::Arch::Amd64,
    };
    match preflight::packages(arch, Loader::of(arch, false)) {
        Ok(()) => Finding::good("packages", "all that a build from packages needs is there"),
        // Machines of boxes that others have built run without.
        Err(e) => Finding::of("packages", Grade::Less, &e),
    }
}

fn isolation() -> Finding {
    let about = "isolation";
    match sandbox::check("qemu-img", Policy::from_flag(false)) {
        Ok(()) => Finding::good(about, "programs that read images run without network"),
        Err(e) => Finding::of(about, Grade::Less, &e),
    }
}

fn space(ctx: &Context) -> Finding {
    let (about, place) = ("disk space", &ctx.paths.machines);
    match host::free_bytes(place) {
        Ok(free) => {
            let size = ByteSize::b(free).display().iec().to_string();
            let text = format!("{size} free for {}", place.display());
            let grade = if free < LITTLE_SPACE { Grade::Less } else { Grade::Good };
            let hints = match grade {
                Grade::Good => vec![],
                _ => vec!["Free some, for example with `devbox box prune`.".to_owned()],
            };
            Finding { about, grade, text, hints }
        }
        Err(e) => Finding::of(about, Grade::Bad, &e),
    }
}

fn store(ctx: &Context) -> Finding {
    let read = || Store::open(&ctx.paths.store)?.list();
    match read() {
        Ok(boxes) => {
            Finding::good("store", format!("{}, boxes: {}", ctx.paths.store.display(), boxes.len()))
        }
        Err(e) => Finding::of("store", Grade::Bad, &e),
    }
}

fn templates(ctx: &Context) -> Finding {
    match Templates::new(&ctx.paths.templates).list() {
        Ok(all) => {
            let bytes = all.iter().map(|t| t.stored_size()).sum();
            let size = ByteSize::b(bytes).display().iec().to_string();
            Finding::good("templates", format!("{}, {size}", all.len()))
        }
        Err(e) => Finding::of("templates", Grade::Less, &e),
    }
}
