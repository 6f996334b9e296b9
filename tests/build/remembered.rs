//! The guest before the last step: a build that has to run that step alone goes on from there.

use std::path::PathBuf;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::project::{Project, list, shell, text};

const GOES_ON: &str = "the guest goes on";
const BOOTS: &str = "booted, ssh answers";

fn steps(last: &str) -> String {
    // A name that the guest looks up once, and a file that only memory has.
    let first = "mkdir -p /srv; echo one > /srv/one; mkdir -p /run/kept; echo only in memory > /run/kept/note";
    [shell("one", first, ""), shell("two", last, "")].concat()
}

fn build(project: &Project, args: &[&str]) -> (Output, String) {
    let out = project.run(&[&["build"], args].concat());
    let said = text(&out.stderr);
    (out, said)
}

fn built(project: &Project, args: &[&str]) -> String {
    let (out, said) = build(project, args);
    assert!(out.status.success(), "{said}");
    project.nothing_left();
    said
}

/// The folders of guests that are kept.
fn kept(project: &Project) -> Vec<PathBuf> {
    let all = list(&project.path("home/cache/layers")).into_iter();
    all.filter(|path| path.extension().is_some_and(|e| e == "memory")).collect()
}

#[tokio::test]
async fn a_changed_last_step_goes_on_from_the_guest_before_it() {
    let project = Project::new(&steps("echo two > /srv/two; exit 9")).await;
    // Also the guest of a build that failed is kept: its last step is the one that is tried again.
    let (out, said) = build(&project, &[]);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(BOOTS), "{said}");
    project.nothing_left();
    assert_eq!(kept(&project).len(), 1);

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
    let check = format!(
        "test \"$(cat /run/kept/note)\" = 'only in memory'\n\
         test $(($(date +%s) - {now})) -ge 0\necho two > /srv/two"
    );
    project.spec_with(|spec| spec.replace("echo two > /srv/two; exit 9", &check));
    let said = built(&project, &[]);
    assert!(said.contains(GOES_ON) && !said.contains(BOOTS), "{said}");
    assert!(said.contains("step 1 one is in the cache"), "{said}");
    assert_eq!(kept(&project).len(), 1, "the same one serves the next build");

    // Once more, and the same from nothing: no difference in what is in the image.
    let again = |spec: String| spec.replace(&check, "echo three > /srv/two");
    project.spec_with(again);
    let said = built(&project, &[]);
    assert!(said.contains(GOES_ON), "{said}");
    let resumed = project.path("resumed.qcow2");
    std::fs::copy(project.path("dist/tiny-1.0.0-dev.qcow2"), &resumed).expect("copied");
    let said = built(&project, &["--no-cache"]);
    assert!(said.contains(BOOTS) && !said.contains(GOES_ON), "{said}");
    let same = project.run(&[
        "parity",
        "resumed.qcow2",
        "dist/tiny-1.0.0-dev.qcow2",
        "--level",
        "content",
    ]);
    assert!(same.status.success(), "{}{}", text(&same.stdout), text(&same.stderr));
}

#[tokio::test]
async fn a_single_step_goes_on_from_the_boot_and_a_damaged_memory_is_not_used() {
    let project = Project::new(&shell("one", "mkdir -p /srv; echo one > /srv/one", "")).await;
    let said = built(&project, &[]);
    assert!(said.contains(BOOTS), "{said}");
    project.spec_with(|spec| spec.replace("echo one", "echo another"));
    let said = built(&project, &[]);
    assert!(said.contains(GOES_ON) && !said.contains(BOOTS), "{said}");
    // Layers lie on what the guest wrote while it booted: a build that needs nothing finds them.
    let said = built(&project, &["--rebuild"]);
    assert!(said.contains("step 1 one is in the cache"), "{said}");

    // QEMU refuses a state that breaks off: its size and times are as they were.
    let state = kept(&project)[0].join("state");
    let times = std::fs::metadata(&state).expect("there").modified().expect("a time");
    let mut bytes = std::fs::read(&state).expect("read");
    let half = bytes.len() / 2;
    bytes[half..].fill(0xff);
    std::fs::write(&state, bytes).expect("written");
    std::fs::File::options()
        .write(true)
        .open(&state)
        .and_then(|file| file.set_modified(times))
        .expect("set");
    project.spec_with(|spec| spec.replace("echo another", "echo a third"));
    let said = built(&project, &[]);
    assert!(said.contains("the guest does not go on, so it boots"), "{said}");
    assert!(said.contains(BOOTS), "{said}");

    // Changed in any other way it is not even tried; another machine is another one.
    std::fs::write(kept(&project)[0].join("state"), b"short").expect("written");
    project.spec_with(|spec| spec.replace("echo a third", "echo a fourth"));
    let said = built(&project, &[]);
    assert!(said.contains(BOOTS) && !said.contains("does not go on"), "{said}");
    project.spec_with(|spec| {
        spec.replace("echo a fourth", "echo a fifth").replace("cpus = 1", "cpus = 2")
    });
    let said = built(&project, &[]);
    assert!(said.contains(BOOTS) && !said.contains("does not go on"), "{said}");
    // Nothing stays of those that are no longer used.
    assert_eq!(kept(&project).len(), 1);
    let pruned = project.run(&["cache", "prune", "--all"]);
    assert!(pruned.status.success(), "{}", text(&pruned.stderr));
    assert_eq!(kept(&project).len(), 0);
}

#[tokio::test]
async fn a_guest_that_was_told_a_secret_is_not_kept() {
    let secret = "secrets = { TOKEN = { file = \"token\" } }";
    let steps = [shell("one", "test -n \"$TOKEN\"", secret), shell("two", "true", "")];
    let project = Project::new(&steps.concat()).await;
    std::fs::write(project.path("token"), "planted-0d7e5b3f4a1c\n").expect("written");
    built(&project, &[]);
    assert_eq!(kept(&project).len(), 0);
    project.spec_with(|spec| spec.replace("\ntrue\n", "\n:\n"));
    let said = built(&project, &[]);
    assert!(said.contains(BOOTS), "{said}");
}
