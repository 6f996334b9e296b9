//! `--on-error ask` and `shell` on a terminal: what is asked after a step has failed, and what each answer does.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::project::{Project, list, text};

const QUESTION: &str =
    "[r]un it again, open a [s]hell in the guest, [c]lean up, or [k]eep its disk and end? ";
const STEP: &str = "[[steps]]\ntype = \"shell\"\nname = \"one\"\nscript = \"one.sh\"\n";
/// A loaded host that emulates takes a minute for a boot.
const PATIENCE: Duration = Duration::from_secs(300);

/// A devbox on a terminal of its own (`script`, util-linux), and a person's hands.
struct Session {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
    /// So much of it was waited for.
    read: usize,
}

impl Session {
    fn new(project: &Project, args: &str) -> Self {
        let devbox = project.command(&[]);
        let program = devbox.get_program().to_string_lossy().into_owned();
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-f", "-c", &format!("exec {program} {args}"), "/dev/null"]);
        command.current_dir(project.dir()).env("TERM", "xterm").env_remove("CI");
        for (name, value) in devbox.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("script runs");
        let keys = child.stdin.take().expect("piped");
        let mut out = child.stdout.take().expect("piped");
        let seen = Arc::new(Mutex::new(vec![]));
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut bytes) {
                all.lock().expect("no panic").extend_from_slice(&bytes[..n]);
            }
        });
        Session { child, keys, seen, read: 0 }
    }

    fn seen(&self) -> String {
        text(&self.seen.lock().expect("no panic"))
    }

    /// Waits until this is shown, behind what was waited for before.
    fn expect(&mut self, what: &str) {
        let begun = Instant::now();
        loop {
            let seen = self.seen.lock().expect("no panic").clone();
            let rest = &seen[self.read..];
            if let Some(at) = memchr::memmem::find(rest, what.as_bytes()) {
                self.read += at + what.len();
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "`{what}` does not come:\n{}", text(rest));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typed");
        self.keys.flush().expect("typed");
    }

    /// Its exit code.
    fn ends(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status.code(), self.seen());
            }
            assert!(begun.elapsed() < PATIENCE, "does not end:\n{}", self.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_person_is_asked_and_what_was_mended_is_what_runs_and_what_is_kept() {
    let project = Project::new(STEP).await;
    let script = |text: &str| std::fs::write(project.path("one.sh"), text).expect("written");
    script("echo tried; exit 3\n");
    let mut person = Session::new(&project, "build --on-error ask");
    person.expect("error: step 1 one failed");
    person.expect(QUESTION);
    // Nothing writes over the question.
    let before = person.seen();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(person.seen(), before);
    person.types("what?\n");
    person.expect("Answer with one of the letters in brackets.");
    person.expect(QUESTION);
    person.types("s\n");
    person.expect("A shell in the guest");
    person.types("echo answer-$((40 + 2)); exit\n");
    person.expect("answer-42");
    person.expect("Back from the guest.");
    person.expect(QUESTION);
    person.types("r\n");
    person.expect("tried");
    person.expect(QUESTION);
    script("echo mended > /etc/mended\n");
    person.types("r\n");
    person.expect("step 1 one done");
    person.expect("the box is of those that ran");
    let (code, seen) = person.ends();
    assert_eq!(code, Some(0), "{seen}");
    project.nothing_left();

    // The box and the layer are those of the file as it was mended. Nobody can be asked here, which is told.
    let out = project.run(&["build", "--on-error", "ask"]);
    let said = text(&out.stderr);
    assert!(out.status.success(), "{said}");
    assert!(said.contains("`--on-error ask` needs a terminal"), "{said}");
    assert!(said.contains("is in the store, built from the same inputs"), "{said}");
    let out = project.run(&["build", "--rebuild", "--until-step", "one"]);
    assert!(text(&out.stderr).contains("step 1 one is in the cache"), "{}", text(&out.stderr));

    // As it was when it failed it fails again. The shell comes first; Ctrl-C is no answer.
    script("echo tried; exit 3\n");
    let mut person = Session::new(&project, "build --on-error shell");
    person.expect("A shell in the guest");
    person.types("exit\n");
    person.expect(QUESTION);
    person.types("\u{3}");
    let (code, seen) = person.ends();
    assert_eq!(code, Some(130), "{seen}");
    assert!(seen.contains("interrupted while it was asked"), "{seen}");
    project.nothing_left();

    // The end of the input is an answer: nobody is there.
    let mut person = Session::new(&project, "build --on-error ask");
    person.expect(QUESTION);
    person.types("\u{4}");
    person.expect("There is no answer: cleaning up.");
    let (code, seen) = person.ends();
    assert_eq!(code, Some(1), "{seen}");
    project.nothing_left();

    let mut person = Session::new(&project, "build --on-error ask");
    person.expect(QUESTION);
    person.types("k\n");
    person.expect("the disk as it was then: ");
    let (code, seen) = person.ends();
    assert_eq!(code, Some(1), "{seen}");
    let kept = list(&project.path("home/cache/build"));
    let kept = kept.iter().filter(|path| path.to_string_lossy().ends_with(".failed.qcow2"));
    assert_eq!(kept.count(), 1, "its disk: {seen}");
    let mut person = Session::new(&project, "build --on-error ask");
    person.expect(QUESTION);
    person.types("c\n");
    let (code, seen) = person.ends();
    assert_eq!(code, Some(1), "{seen}");
    project.nothing_left();
}
