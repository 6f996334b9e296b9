//! A disk that is full, at many moments: the verb says so and the next one works once there is space. The
//! space that is left decides how far a verb comes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::people::{Said, exits, is_root, not_run, run};
use crate::workbench::{Project, TINY_MACHINE, tiny_spec};

/// A filesystem of its own for devbox's files, which goes away with the value.
struct Small {
    at: PathBuf,
}

impl Small {
    fn mount(project: &Project) -> Small {
        let at = project.dir().join("small");
        fs::create_dir_all(&at).expect("a folder");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1g", "none"]).arg(&at));
        Small { at }
    }

    /// Leaves `bytes` for others.
    fn leave(&self, bytes: u64) {
        let filler = self.at.join("filler");
        let _ = fs::remove_file(&filler);
        let free =
            |at: &Path| rustix::fs::statvfs(at).map(|s| s.f_bavail * s.f_frsize).expect("space");
        let fill = free(&self.at).saturating_sub(bytes);
        run(Command::new("fallocate").args(["-l", &fill.to_string()]).arg(&filler));
        assert!(free(&self.at) <= bytes + 4096, "{} bytes are free", free(&self.at));
    }

    fn free_again(&self) {
        fs::remove_file(self.at.join("filler")).expect("the filler");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// Runs a verb; true if it ended well, else it said that there is no space.
fn works_or_says_why(project: &Project, args: &[&str]) -> bool {
    let out = project.devbox(args).output().expect("devbox runs");
    let said = Said {
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    assert!(!said.err.contains("panicked"), "{args:?}: {}", said.err);
    if out.status.success() {
        return true;
    }
    assert_eq!(out.status.code(), Some(1), "{args:?}: {}", said.err);
    assert!(said.err.to_lowercase().contains("space"), "{args:?}: {}", said.err);
    false
}

#[test]
fn a_verb_that_finds_the_disk_full_says_so_and_works_when_there_is_space() {
    if !is_root() {
        return not_run("a full disk at every verb", "only root can mount a small filesystem");
    }
    let two = format!("{}{TINY_MACHINE}\n[machines.a]\n[machines.b]\n", tiny_spec("tiny", ""));
    let project = Project::new("full-disk", &two);
    let small = Small::mount(&project);
    let project = project.with_home(&small.at);
    run(&mut project.devbox(&["build"]));
    let mut refused = 0;

    // Making the template and the machine: memory of 256 MiB, of which a part is written, layers, a seed.
    for kib in [0, 200, 1024, 40 << 10] {
        small.leave(kib << 10);
        let worked = works_or_says_why(&project, &["up", "a"]);
        refused += u32::from(!worked);
        small.free_again();
        run(&mut project.devbox(&["up", "a"]));
        exits(&mut project.devbox(&["ssh", "a", "-c", "true"]), 0);
        run(&mut project.devbox(&["destroy", "-f"]));
        project.insist_on_no_guest();
        run(&mut project.devbox(&["box", "prune", "--templates"]));
    }

    run(&mut project.devbox(&["up", "a"]));
    let verbs: [&[&str]; 3] =
        [&["snapshot", "push", "-m", "a"], &["suspend", "--to-disk", "a"], &["clone", "a", "b"]];
    for verb in verbs {
        for kib in [0, 10 << 10] {
            small.leave(kib << 10);
            let worked = works_or_says_why(&project, verb);
            refused += u32::from(!worked);
            small.free_again();
            run(&mut project.devbox(&["up", "a"]));
            exits(&mut project.devbox(&["ssh", "a", "-c", "true"]), 0);
            run(&mut project.devbox(verb));
            run(&mut project.devbox(&["up", "a"]));
            run(&mut project.devbox(&["destroy", "-f", "b"]));
        }
    }
    assert!(refused >= 6, "the disk was hardly ever full: {refused} times");
    project.clear();
}
