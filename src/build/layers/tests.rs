use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::event::Events;

/// A cache with a base of one MiB, in a folder of its own.
struct Lab {
    dir: tempfile::TempDir,
    paths: Paths,
    base: Base,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let paths = Paths {
            store: at("store"),
            machines: at("machines"),
            templates: at("templates"),
            disks: at("disks"),
            bundles: at("bundles"),
            cache: at("cache"),
            settings: at("settings"),
            runtime: at("runtime"),
        };
        fs::write(at("base.raw"), vec![7; 1 << 20]).expect("written");
        let base = Base::own(&at("base.raw")).expect("there");
        Lab { dir, paths, base }
    }

    /// Keeps a layer for each step that has none, as a build does.
    async fn build(&self, plan: &[Planned]) -> Start {
        let layers = Layers::open(&self.paths).expect("open");
        let start = self.find(&layers, plan, Reuse::All).await;
        let mut files = start.files.clone();
        for planned in &plan[start.done..] {
            let draft = layers.draft().expect("a name");
            let below = files.last().map_or(&*self.base.path, |file| &**file);
            let format = if files.is_empty() { "raw" } else { "qcow2" };
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
                .arg(below)
                .arg(draft.path())
                .status();
            assert!(made.expect("qemu-img runs").success());
            let below = files.last().map(|file| &**file);
            let made = Made {
                base: &self.base,
                below,
                keys: &[],
                reached: &[],
                down: false,
                image: "box:1.0.0",
            };
            let kept = layers.keep(planned, draft, made, &Events::silent(), &none()).await;
            files.push(kept.expect("kept"));
        }
        start
    }

    async fn find(&self, layers: &Layers, plan: &[Planned], reuse: Reuse) -> Start {
        let found = layers.find(plan, &self.base, reuse, &Events::silent(), &none()).await;
        found.expect("found")
    }

    /// How many steps are in the cache, and why the next is not.
    async fn there(&self, plan: &[Planned]) -> (usize, Option<String>) {
        let layers = Layers::open(&self.paths).expect("open");
        let start = self.find(&layers, plan, Reuse::All).await;
        (start.done, start.why)
    }

    fn files(&self) -> usize {
        fs::read_dir(folder(&self.paths)).expect("a folder").count()
    }

    fn prune(&self, age: Age) -> usize {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match prune(&self.paths, age, false).expect("pruned") {
                Some(pruned) => return pruned.len(),
                // Children that other tests are just starting hold copies of our locks until they become another
                // program.
                None => assert!(Instant::now() < end, "no build runs"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn none() -> CancellationToken {
    CancellationToken::new()
}

/// The steps of a spec: a name and the text of its script each.
fn plan(steps: &[(&str, &str)]) -> Vec<Planned> {
    let text: String = steps
        .iter()
        .map(|(name, text)| {
            format!("[[steps]]\ntype = \"shell\"\nname = \"{name}\"\ninline = \"{text}\"\n")
        })
        .collect();
    let head =
        "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";
    let dir = Path::new("/nowhere");
    let spec = crate::spec::parse(&format!("{head}{text}"), &dir.join("devbox.toml"), dir);
    let source = crate::source::SourceDisk {
        format: crate::spec::InputFormat::Raw,
        path: "/base".into(),
        size: 1 << 20,
        epoch: 1,
        key: "k".into(),
    };
    super::plan(&spec.expect("valid"), &source).expect("planned")
}

#[tokio::test]
async fn a_build_goes_on_where_the_steps_begin_to_differ_and_says_why() {
    let lab = Lab::new();
    let old = plan(&[("one", "true"), ("two", "true"), ("three", "true")]);
    let start = lab.build(&old).await;
    assert_eq!((start.done, start.why.as_deref()), (0, Some("it was not run before")));
    assert_eq!(lab.there(&old).await, (3, None));
    let changed = |text: &str| Some(text.to_owned());
    let new = plan(&[("one", "true"), ("two", "false"), ("three", "true")]);
    assert_eq!(lab.there(&new).await, (1, changed("its `script` changed")));
    lab.build(&new[..2]).await;
    assert_eq!(lab.there(&new).await, (2, changed("a step before it changed")));
    let more = plan(&[("one", "true"), ("two", "true"), ("three", "true"), ("four", "true")]);
    assert_eq!(lab.there(&more).await, (3, changed("it was not run before")));
    // Both are there still: a step that is changed back costs nothing.
    assert_eq!(lab.there(&old).await, (3, None));
    let layers = Layers::open(&lab.paths).expect("open");
    assert_eq!(lab.find(&layers, &old, Reuse::Before(1)).await.done, 1);
    assert_eq!(lab.find(&layers, &old, Reuse::Nothing).await.done, 0);
}

#[tokio::test]
async fn a_layer_that_is_not_what_it_was_is_not_used() {
    let lab = Lab::new();
    let plan = plan(&[("one", "true"), ("two", "true")]);
    lab.build(&plan).await;
    let file = lab.find(&Layers::open(&lab.paths).expect("open"), &plan, Reuse::All).await.files[1]
        .clone();
    let bytes = fs::read(&file).expect("read");
    let mut damaged = bytes.clone();
    *damaged.last_mut().expect("a byte") ^= 1;
    fs::write(&file, damaged).expect("written");
    assert_eq!(lab.there(&plan).await, (1, Some("its layer is damaged".to_owned())));
    fs::write(&file, bytes).expect("written");
    assert_eq!(lab.there(&plan).await, (2, None));
    fs::remove_file(&file).expect("removed");
    assert_eq!(lab.there(&plan).await, (1, Some("its layer is gone".to_owned())));
    // A source that was made anew under the same name.
    let base = lab.dir.path().join("base.raw");
    fs::rename(&base, lab.dir.path().join("old")).expect("renamed");
    fs::write(&base, vec![7; 1 << 20]).expect("written");
    let lab = Lab { base: Base::own(&base).expect("there"), ..lab };
    let anew = "the disk below it was made anew".to_owned();
    assert_eq!(lab.there(&plan).await, (0, Some(anew)));
}

#[tokio::test]
async fn layers_go_by_age_and_size_and_never_from_under_others() {
    let lab = Lab::new();
    let (one, two) = (plan(&[("one", "true"), ("two", "true")]), plan(&[("three", "false")]));
    lab.build(&one).await;
    lab.build(&two).await;
    assert_eq!(lab.files(), 7, "three layers with a record each, and the lock");
    let layers = Layers::open(&lab.paths).expect("open");
    drop(layers.draft().expect("a name"));
    // Of a build that was killed: a file without a record.
    fs::write(folder(&lab.paths).join("left.qcow2"), "x").expect("written");
    assert!(prune(&lab.paths, Age::default(), false).expect("asked").is_none(), "a build runs");
    drop(layers);
    assert_eq!(lab.prune(Age::default()), 1);
    assert_eq!((lab.there(&one).await.0, lab.there(&two).await.0), (2, 1));
    // The chain was used by a build just now, the other layer a day ago.
    let day = std::time::SystemTime::now() - Duration::from_secs(24 * 3600);
    let record = folder(&lab.paths).join(format!("{}.json", two[0].key));
    fs::OpenOptions::new()
        .append(true)
        .open(&record)
        .expect("open")
        .file()
        .set_modified(day)
        .expect("set");
    let stored: u64 = list(&lab.paths).iter().map(|kept| kept.stored).sum();
    assert_eq!(lab.prune(Age { bytes: stored - 1, ..Age::default() }), 2);
    assert_eq!((lab.there(&one).await.0, lab.there(&two).await.0), (2, 0));
    // The lowest layer is gone: what lies on it is of no use.
    let lowest = folder(&lab.paths).join(format!("{}.json", one[0].key));
    fs::remove_file(lowest).expect("removed");
    assert_eq!(lab.prune(Age::default()), 3);
    assert_eq!(lab.files(), 1);
    lab.build(&one).await;
    assert_eq!(lab.prune(Age { unused: Duration::ZERO, ..Age::default() }), 4);
}
