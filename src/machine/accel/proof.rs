//! A guest of a few instructions that ends QEMU: whoever runs it runs guests.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::machine::config::{Accelerator, Arch, Lifetime};
use crate::machine::process;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// The guest ran.
    Works,
    /// It did not, in these words.
    Fails(String),
}

/// What the guest of amd64 writes; `isa-debug-exit` makes QEMU's exit code 2n + 1 of it.
const WRITTEN: u8 = 0x31;
/// The I/O port of `isa-debug-exit`.
const PORT: u16 = 0xf4;

/// The test guest of one architecture.
struct Guest {
    /// Its bytes, in one file.
    code: Vec<u8>,
    /// QEMU's words for a machine that runs the file: option and value, the file's path behind the last.
    words: Vec<String>,
    /// QEMU's exit code when it has run.
    code_of_exit: i32,
}

impl Guest {
    fn of(arch: Arch) -> Self {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        match arch {
            Arch::X86_64 => Guest {
                code: boot_sector().to_vec(),
                words: words(&[
                    "-machine",
                    "pc",
                    "-m",
                    "16M",
                    "-device",
                    &format!("isa-debug-exit,iobase={PORT:#x},iosize=1"),
                    "-drive",
                    "if=ide,format=raw,snapshot=on,file=",
                ]),
                code_of_exit: 2 * i32::from(WRITTEN) + 1,
            },
            Arch::Aarch64 => Guest {
                code: power_off().to_vec(),
                // `max`: what the host has; the machine's own choice is one that newer hosts lack.
                words: words(&["-machine", "virt,gic-version=max", "-m", "64M", "-kernel", ""]),
                code_of_exit: 0,
            },
        }
    }
}

/// Real-mode code at 0x7c00: `mov dx, PORT; mov al, WRITTEN; out dx, al; cli; hlt; jmp $`, padded to
/// 510 bytes, then the mark of a boot sector.
fn boot_sector() -> [u8; 512] {
    let [low, high] = PORT.to_le_bytes();
    let code = [0xba, low, high, 0xb0, WRITTEN, 0xee, 0xfa, 0xf4, 0xeb, 0xfe];
    let mut sector = [0; 512];
    sector[..code.len()].copy_from_slice(&code);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// `movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0; b .`: the call `SYSTEM_OFF` (Arm DEN0022, "Power State
/// Coordination Interface"). There is no `isa-debug-exit` without an ISA bus.
fn power_off() -> [u8; 16] {
    let code: [u32; 4] = [0x5280_0100, 0x72b0_8000, 0xd400_0002, 0x1400_0000];
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(code) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Runs the test guest of `arch` with the words for this accelerator that a machine gets too; `what` names
/// in messages what the host has for it.
///
/// # Errors
/// QEMU cannot be started or ended, or a file cannot be written.
pub(super) async fn run(
    qemu: &Path,
    arch: Arch,
    accelerator: Accelerator,
    what: &str,
    deadline: Duration,
) -> Result<Verdict> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("guest");
    let log = dir.path().join("log");
    let mut guest = Guest::of(arch);
    fs::write(&file, &guest.code)?;
    if let Some(last) = guest.words.last_mut() {
        last.push_str(&file.to_string_lossy());
    }
    let (accel, cpu) = accelerator.words(arch);
    let mut command = Command::new(qemu);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-accel", accel, "-cpu", cpu]).args(&guest.words);
    let start = Instant::now();
    let mut started = process::start(command, Stdio::null(), Lifetime::WithParent, &log).await?;
    if tokio::time::timeout(deadline, started.process.ended()).await.is_err() {
        let seconds = start.elapsed().as_secs();
        started.process.kill().await?;
        return Ok(Verdict::Fails(format!(
            "{what} is there, but a test guest did not run within {seconds} s"
        )));
    }
    let _ = started.exit.wait_for(Option::is_some).await;
    let code = started.exit.borrow().and_then(|status| status.code());
    if code == Some(guest.code_of_exit) {
        return Ok(Verdict::Works);
    }
    let words = crate::exec::last_lines(&fs::read(&log).unwrap_or_default(), 1);
    Ok(Verdict::Fails(match words.first() {
        Some(line) => format!("QEMU could not use {what}: {line}"),
        None => format!("a test guest with {what} ended in another way than it should"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::tools;

    const LONG: Duration = Duration::from_secs(60);

    async fn emulated(arch: Arch, deadline: Duration) -> Verdict {
        let qemu = tools::qemu(arch).find().expect("QEMU");
        run(&qemu, arch, Accelerator::Tcg, "TCG", deadline).await.expect("started")
    }

    #[tokio::test]
    async fn the_test_guests_really_run_where_they_can() {
        // Under emulation, which is everywhere: proves the instructions and the exit code.
        assert_eq!(emulated(Arch::X86_64, LONG).await, Verdict::Works);
        assert_eq!(emulated(Arch::Aarch64, LONG).await, Verdict::Works);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_run_in_time_is_killed_and_is_a_no() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let verdict = emulated(arch, Duration::from_millis(1)).await;
            assert!(matches!(verdict, Verdict::Fails(why) if why.contains("did not run within")));
        }
    }

    #[tokio::test]
    async fn an_arm_guest_that_stands_still_is_a_no() {
        // Its last instruction alone: the exit code above comes from the call before it.
        let qemu = tools::QEMU_ARM64.find().expect("QEMU");
        let dir = tempfile::tempdir().expect("dir");
        let (file, log) = (dir.path().join("guest"), dir.path().join("log"));
        fs::write(&file, &power_off()[12..]).expect("written");
        let mut command = Command::new(qemu);
        command.args(["-nodefaults", "-display", "none", "-machine", "virt", "-cpu", "max"]);
        command.arg("-kernel").arg(&file);
        let started = process::start(command, Stdio::null(), Lifetime::WithParent, &log)
            .await
            .expect("started");
        let ended = tokio::time::timeout(Duration::from_secs(3), started.process.ended()).await;
        assert!(ended.is_err(), "it ended by itself: {:?}", *started.exit.borrow());
        started.process.kill().await.expect("killed");
    }

    #[tokio::test]
    async fn an_accelerator_of_another_system_is_a_no_in_qemus_words() {
        let qemu = tools::QEMU_X86.find().expect("QEMU");
        for accelerator in [Accelerator::Hvf, Accelerator::Whpx] {
            let ours = crate::machine::accel::candidate().map(|c| c.accelerator);
            if ours == Some(accelerator) {
                continue;
            }
            let verdict = run(&qemu, Arch::X86_64, accelerator, "it", LONG).await.expect("started");
            let Verdict::Fails(why) = verdict else { panic!("{accelerator:?} works here") };
            assert!(why.starts_with("QEMU could not use it: "), "{why}");
        }
    }
}
