//! Which machines a project has, by its spec and by its folders.

use std::path::Path;

use super::*;
use crate::project::select;

const HEAD: &str =
    "name = \"box\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";

struct World {
    root: tempfile::TempDir,
    paths: Paths,
}

fn world() -> World {
    let root = tempfile::tempdir().expect("a folder");
    let below = |name: &str| root.path().join(name);
    let paths = Paths {
        store: below("store"),
        machines: below("machines"),
        templates: below("templates"),
        bundles: below("bundles"),
        disks: below("disks"),
        settings: below("config.toml"),
        cache: below("cache"),
        runtime: below("run"),
    };
    std::fs::create_dir(below("project")).expect("made");
    World { root, paths }
}

impl World {
    fn dir(&self) -> PathBuf {
        self.root.path().join("project")
    }

    /// A machine as far as its record counts; nothing reads what stands in it.
    fn made(&self, name: &str) {
        let of = Instance::of_project(&self.paths, name, &self.dir()).expect("named");
        std::fs::create_dir_all(of.files().dir()).expect("made");
        std::fs::write(of.files().record(), "not read").expect("written");
    }

    fn project(&self, machines: &str) -> Project {
        let text = format!("{HEAD}{machines}");
        let spec = crate::spec::parse(&text, Path::new("devbox.toml"), &self.dir());
        Project::open(&self.dir(), spec.ok(), &self.paths).expect("opened")
    }
}

fn names(project: &Project) -> Vec<(&str, Option<bool>, bool)> {
    project.members().iter().map(|m| (m.name(), m.in_spec, m.instance.exists())).collect()
}

#[test]
fn machines_come_from_the_spec_and_from_their_folders() {
    let world = world();
    for name in ["web", "old", "box"] {
        world.made(name);
    }
    let project = world.project("[machines.web]\ndepends_on = [\"db\"]\n[machines.db]\n");
    assert_eq!(
        names(&project),
        [
            ("web", Some(true), true),
            ("db", Some(true), false),
            ("box", Some(false), true),
            ("old", Some(false), true)
        ]
    );
    assert_eq!(project.members()[0].depends_on, ["db"]);
    // A broken spec hides no machine.
    let broken = world.project("[machines.Web]\n");
    assert_eq!(names(&broken), [("box", None, true), ("old", None, true), ("web", None, true)]);
}

#[test]
fn another_project_s_machines_are_not_taken() {
    let world = world();
    world.made("web");
    let elsewhere = world.root.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    let project = Project::open(&elsewhere, None, &world.paths).expect("opened");
    assert!(project.members().is_empty());
}

#[test]
fn one_machine_is_the_one_that_exists_or_has_to_be_named() {
    let world = world();
    let project = world.project("[machines.web]\n[machines.db]\n");
    assert!(select::one(project.members(), None).expect("none made").is_none());
    world.made("db");
    let project = world.project("[machines.web]\n[machines.db]\n");
    let name = |m: Option<&Member>| m.map(|m| m.name().to_owned());
    let only = select::one(project.members(), None).expect("one");
    assert_eq!(name(only).as_deref(), Some("db"));
    world.made("web");
    let project = world.project("[machines.web]\n[machines.db]\n");
    let e = select::one(project.members(), None).expect_err("several");
    assert_eq!(e.kind(), crate::error::Kind::Usage);
    assert_eq!(e.what(), "this project has several machines: `web`, `db`");
    let named = select::one(project.members(), Some("web")).expect("named");
    assert_eq!(name(named).as_deref(), Some("web"));
    assert!(select::one(project.members(), Some("w*")).is_err(), "one takes no pattern");
}
