//! Chooses the accelerator by proof: one is used only if a test guest really ran.
//!
//! `/dev/kvm` can exist, open and make a virtual machine, and still never run a guest. So a guest that ends
//! QEMU is run with a deadline, whatever the system calls its accelerator.

mod proof;

use std::path::Path;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::config::{Accelerator, Arch};
use crate::error::Result;
use crate::exec::tools;
use crate::os;
use proof::Verdict;

/// What a system has beside emulation.
#[derive(Debug)]
struct Candidate {
    /// The system, as Rust names it.
    system: &'static str,
    accelerator: Accelerator,
    /// Its name for people.
    name: &'static str,
    /// What the host has if it has it.
    what: &'static str,
    /// A device that QEMU opens for it.
    device: Option<&'static str>,
}

const CANDIDATES: [Candidate; 3] = [
    Candidate {
        system: "linux",
        accelerator: Accelerator::Kvm,
        name: "KVM",
        what: "/dev/kvm",
        device: Some("/dev/kvm"),
    },
    Candidate {
        system: "macos",
        accelerator: Accelerator::Hvf,
        name: "HVF",
        what: "Hypervisor.framework",
        device: None,
    },
    Candidate {
        system: "windows",
        accelerator: Accelerator::Whpx,
        name: "WHPX",
        what: "the Windows Hypervisor Platform",
        device: None,
    },
];

/// The candidate of this system.
fn candidate() -> Option<&'static Candidate> {
    CANDIDATES.iter().find(|c| c.system == std::env::consts::OS)
}

impl Candidate {
    /// Why QEMU need not be asked; `None` if it is to be.
    fn out_of_reach(&self) -> Option<String> {
        let device = self.device?;
        if !Path::new(device).exists() {
            return Some(format!("this host has no {device}"));
        }
        let opened = fs::OpenOptions::new().read(true).write(true).open(device);
        opened.err().map(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => format!(
                "{device} may not be opened by you (join its group: `sudo usermod -aG kvm $USER`)"
            ),
            _ => format!("{device} cannot be opened: {e}"),
        })
    }
}

/// Real hardware runs the test guest in about 0.1 s; a host under heavy load needs longer.
const DEADLINE: Duration = Duration::from_secs(2);
/// A "no" may only mean that the host was busy, so it is asked again after this time.
const NO_EXPIRES: Duration = Duration::from_secs(3600);

/// The accelerator, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What to put into the config.
    pub accelerator: Accelerator,
    /// A phrase for people: `emulation (TCG): there is no /dev/kvm`.
    pub reason: String,
}

impl Choice {
    fn emulation(why: &str) -> Self {
        Choice { accelerator: Accelerator::Tcg, reason: format!("emulation (TCG): {why}") }
    }

    fn new(candidate: &Candidate, verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Works => Choice {
                accelerator: candidate.accelerator,
                reason: format!("{}: a test guest ran", candidate.name),
            },
            Verdict::Fails(why) => Self::emulation(why),
        }
    }
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

/// Chooses what runs a guest of `arch` on this host; one of another architecture is always emulated. The
/// answer is kept in `cache` for this boot of the host and this QEMU; a negative one for an hour.
///
/// # Errors
/// QEMU is not installed. A cache that cannot be read or written only costs a new test.
pub async fn choose(cache: &Path, arch: Arch) -> Result<Choice> {
    let qemu = tools::qemu(arch).find()?;
    if Arch::of_host() != Some(arch) {
        let (host, guest) = (std::env::consts::ARCH, arch.as_str());
        return Ok(Choice::emulation(&format!("the guest is {guest} and this host is {host}")));
    }
    let Some(candidate) = candidate() else {
        let system = std::env::consts::OS;
        return Ok(Choice::emulation(&format!("no accelerator of {system} is known")));
    };
    if let Some(why) = candidate.out_of_reach() {
        return Ok(Choice::emulation(&why));
    }
    let key = (os::boot_id(), version_of(&qemu));
    let file = cache.join("accelerator.json");
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Some(verdict) = remembered(&file, &key, now) {
        return Ok(Choice::new(candidate, &verdict));
    }
    let proven = proof::run(&qemu, arch, candidate.accelerator, candidate.what, DEADLINE).await;
    // Whatever goes wrong is a "no" with its reason.
    let verdict = proven.unwrap_or_else(|e| {
        Verdict::Fails(format!("a test guest could not be started: {}", e.what()))
    });
    let (boot_id, qemu) = key;
    let answer = Answer { boot_id, qemu, at: now, verdict };
    let _ = fs::create_dir_all(cache);
    if let Ok(mut temporary) = tempfile::NamedTempFile::new_in(cache)
        && serde_json::to_writer(&mut temporary, &answer).is_ok()
    {
        let _ = temporary.persist(&file);
    }
    Ok(Choice::new(candidate, &answer.verdict))
}

fn remembered(file: &Path, (boot_id, qemu): &(String, String), now: u64) -> Option<Verdict> {
    let answer: Answer = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let same = answer.boot_id == *boot_id && answer.qemu == *qemu;
    // A time in the future is a clock that was set back: ask again.
    let fresh = now.checked_sub(answer.at).is_some_and(|age| age < NO_EXPIRES.as_secs());
    (same && (answer.verdict == Verdict::Works || fresh)).then_some(answer.verdict)
}

/// The version by the program's size and time of change: as good as asking it, and 20 ms faster.
pub(super) fn version_of(qemu: &Path) -> String {
    let Ok(meta) = fs::metadata(qemu) else { return String::new() };
    let changed = meta.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{} {} {}", qemu.display(), meta.len(), changed.unwrap_or_default().as_nanos())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_system_has_its_own_and_the_name_that_people_read_is_qemus() {
        for c in &CANDIDATES {
            assert_eq!(c.name.to_lowercase(), c.accelerator.as_str());
            assert_eq!(CANDIDATES.iter().filter(|other| other.system == c.system).count(), 1);
        }
        assert_eq!(candidate().expect("it is tested on one of them").system, std::env::consts::OS);
    }

    #[tokio::test]
    async fn the_answer_of_this_host_comes_within_seconds_and_is_remembered() {
        let cache = tempfile::tempdir().expect("dir");
        let start = Instant::now();
        let arch = Arch::X86_64;
        let first = choose(cache.path(), arch).await.expect("a choice");
        assert!(start.elapsed() < Duration::from_secs(30));
        let again = Instant::now();
        assert_eq!(choose(cache.path(), arch).await.expect("a choice"), first);
        assert!(again.elapsed() < Duration::from_secs(1));
        let tcg = first.accelerator == Accelerator::Tcg;
        assert_eq!(first.reason.starts_with("emulation (TCG): "), tcg, "{}", first.reason);
    }

    #[tokio::test]
    async fn a_guest_of_another_architecture_is_emulated_and_told_so() {
        let cache = tempfile::tempdir().expect("dir");
        let foreign =
            if Arch::of_host() == Some(Arch::Aarch64) { Arch::X86_64 } else { Arch::Aarch64 };
        let choice = choose(cache.path(), foreign).await.expect("a choice");
        assert_eq!(choice.accelerator, Accelerator::Tcg);
        let told = format!("emulation (TCG): the guest is {} and this host is ", foreign.as_str());
        assert!(choice.reason.starts_with(&told), "{}", choice.reason);
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
