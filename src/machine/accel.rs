//! Chooses the accelerator by proof: KVM is used only if a test guest really ran.
//!
//! `/dev/kvm` can exist, open and make a virtual machine, and still never run a guest. So a boot
//! sector that ends QEMU by writing to `isa-debug-exit` is run with a deadline.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::config::{Accelerator, Lifetime};
use super::process;
use crate::error::Result;
use crate::exec::tools;

/// A real KVM runs the test guest in about 0.1 s; a host under heavy load needs longer.
const DEADLINE: Duration = Duration::from_secs(2);
/// A "no" may only mean that the host was busy, so it is asked again after this time.
const NO_EXPIRES: Duration = Duration::from_secs(3600);
/// What the test guest writes; `isa-debug-exit` makes QEMU's exit code 2n + 1 of it.
const WRITTEN: u8 = 0x31;
const EXPECTED_CODE: i32 = 2 * WRITTEN as i32 + 1;
/// The I/O port of `isa-debug-exit`.
const PORT: u16 = 0xf4;

/// The accelerator, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What to put into the config.
    pub accelerator: Accelerator,
    /// A phrase for people: `emulation (TCG): there is no /dev/kvm`.
    pub reason: String,
}

impl Choice {
    fn new(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Works => {
                Choice { accelerator: Accelerator::Kvm, reason: "KVM: a test guest ran".to_owned() }
            }
            Verdict::Fails(why) => {
                Choice { accelerator: Accelerator::Tcg, reason: format!("emulation (TCG): {why}") }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Works,
    Fails(String),
}

/// An answer with all that it depends on.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    boot_id: String,
    qemu: String,
    /// Seconds since 1970.
    at: u64,
    verdict: Verdict,
}

/// Chooses the accelerator for this host. The answer is kept in `cache` for this boot of the host
/// and this QEMU; a negative one for an hour.
///
/// # Errors
/// QEMU is not installed. A cache that cannot be read or written only costs a new test.
pub async fn choose(cache: &Path) -> Result<Choice> {
    let qemu = tools::QEMU_X86.find()?;
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Ok(Choice::new(&Verdict::Fails("this host has no /dev/kvm".to_owned())));
    }
    if let Err(e) = fs::OpenOptions::new().read(true).write(true).open(kvm) {
        let why = match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "/dev/kvm may not be opened by you (join its group: `sudo usermod -aG kvm $USER`)"
                    .to_owned()
            }
            _ => format!("/dev/kvm cannot be opened: {e}"),
        };
        return Ok(Choice::new(&Verdict::Fails(why)));
    }
    let key = (boot_id(), version_of(&qemu));
    let file = cache.join("accelerator.json");
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Some(verdict) = remembered(&file, &key, now) {
        return Ok(Choice::new(&verdict));
    }
    let verdict = prove(&qemu, DEADLINE).await;
    let (boot_id, qemu) = key;
    let answer = Answer { boot_id, qemu, at: now, verdict };
    let _ = fs::create_dir_all(cache);
    if let Ok(mut temporary) = tempfile::NamedTempFile::new_in(cache)
        && serde_json::to_writer(&mut temporary, &answer).is_ok()
    {
        let _ = temporary.persist(&file);
    }
    Ok(Choice::new(&answer.verdict))
}

fn remembered(file: &Path, (boot_id, qemu): &(String, String), now: u64) -> Option<Verdict> {
    let answer: Answer = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let same = answer.boot_id == *boot_id && answer.qemu == *qemu;
    // A time in the future is a clock that was set back: ask again.
    let fresh = now.checked_sub(answer.at).is_some_and(|age| age < NO_EXPIRES.as_secs());
    (same && (answer.verdict == Verdict::Works || fresh)).then_some(answer.verdict)
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The version by the program's size and time of change: as good as asking it, and 20 ms faster.
pub(super) fn version_of(qemu: &Path) -> String {
    let Ok(meta) = fs::metadata(qemu) else { return String::new() };
    let changed = meta.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{} {} {}", qemu.display(), meta.len(), changed.unwrap_or_default().as_nanos())
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

/// Runs the test guest with KVM. Whatever goes wrong is a "no" with its reason.
async fn prove(qemu: &Path, deadline: Duration) -> Verdict {
    match try_guest(qemu, "kvm", deadline).await {
        Ok(verdict) => verdict,
        Err(e) => Verdict::Fails(format!("a test guest could not be started: {}", e.what())),
    }
}

async fn try_guest(qemu: &Path, accelerator: &str, deadline: Duration) -> Result<Verdict> {
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("boot.img");
    fs::write(&disk, boot_sector())?;
    let log = dir.path().join("log");
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "16M"])
        .args(["-accel", accelerator, "-device"])
        .arg(format!("isa-debug-exit,iobase={PORT:#x},iosize=1"))
        .arg("-drive")
        .arg(format!("if=ide,format=raw,snapshot=on,file={}", disk.display()))
        .stdin(Stdio::null());
    let start = Instant::now();
    let mut started = process::start(command, Lifetime::WithParent, &log).await?;
    if tokio::time::timeout(deadline, started.process.ended()).await.is_err() {
        let seconds = start.elapsed().as_secs();
        started.process.kill().await?;
        return Ok(Verdict::Fails(format!(
            "/dev/kvm opens, but a test guest did not run within {seconds} s"
        )));
    }
    let _ = started.exit.wait_for(Option::is_some).await;
    let code = started.exit.borrow().and_then(|status| status.code());
    if code == Some(EXPECTED_CODE) {
        return Ok(Verdict::Works);
    }
    let words = crate::exec::last_lines(&fs::read(&log).unwrap_or_default(), 1);
    Ok(Verdict::Fails(match words.first() {
        Some(line) => format!("QEMU could not use /dev/kvm: {line}"),
        None => "a test guest with /dev/kvm ended in another way than it should".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_test_guest_really_runs_where_it_can() {
        // Under emulation, which is everywhere: proves the boot sector and the exit code.
        let qemu = tools::QEMU_X86.find().expect("QEMU");
        let verdict = try_guest(&qemu, "tcg", Duration::from_secs(60)).await.expect("started");
        assert_eq!(verdict, Verdict::Works);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_run_in_time_is_killed_and_is_a_no() {
        let qemu = tools::QEMU_X86.find().expect("QEMU");
        let verdict = try_guest(&qemu, "tcg", Duration::from_millis(1)).await.expect("started");
        assert!(matches!(verdict, Verdict::Fails(why) if why.contains("did not run within")));
    }

    #[tokio::test]
    async fn the_answer_of_this_host_comes_within_seconds_and_is_remembered() {
        let cache = tempfile::tempdir().expect("dir");
        let start = Instant::now();
        let first = choose(cache.path()).await.expect("a choice");
        assert!(start.elapsed() < Duration::from_secs(30));
        let again = Instant::now();
        assert_eq!(choose(cache.path()).await.expect("a choice"), first);
        assert!(again.elapsed() < Duration::from_secs(1));
        let tcg = first.accelerator == Accelerator::Tcg;
        assert_eq!(first.reason.starts_with("emulation (TCG): "), tcg, "{}", first.reason);
    }

    #[test]
    fn a_no_expires_and_nothing_counts_for_another_boot_or_qemu() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("accelerator.json");
        let key = |boot: &str, qemu: &str| (boot.to_owned(), qemu.to_owned());
        let put = |verdict| {
            let answer =
                Answer { boot_id: "b".to_owned(), qemu: "q".to_owned(), at: 1000, verdict };
            fs::write(&file, serde_json::to_vec(&answer).expect("json")).expect("written");
        };
        let no = Verdict::Fails("late".to_owned());
        put(no.clone());
        assert_eq!(remembered(&file, &key("b", "q"), 1000 + 3599), Some(no));
        assert_eq!(remembered(&file, &key("b", "q"), 1000 + 3600), None);
        assert_eq!(remembered(&file, &key("b", "q"), 999), None, "the clock was set back");
        put(Verdict::Works);
        assert_eq!(remembered(&file, &key("b", "q"), 1 << 40), Some(Verdict::Works));
        assert_eq!(remembered(&file, &key("other", "q"), 1000), None);
        assert_eq!(remembered(&file, &key("b", "other"), 1000), None);
        fs::write(&file, "garbage").expect("written");
        assert_eq!(remembered(&file, &key("b", "q"), 1000), None);
    }
}
