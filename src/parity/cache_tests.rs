//! When an entry counts, and when it does not.

use std::time::Duration;

use super::*;

/// A folder with an image that has rested, and a cache.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Lab { dir: tempfile::tempdir().expect("tempdir") };
        std::fs::write(lab.image(), b"disk").expect("write");
        lab
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn cache(&self) -> Cache {
        Cache::new(self.dir.path().join("cache/digests"))
    }

    /// A watch that begins when the image has rested: ctime cannot be set, so the clock is.
    fn watch(&self, later: u64) -> Watch {
        let mut watch = Watch::begin(&self.image()).expect("watch");
        watch.set_began(SystemTime::now() + Duration::from_secs(later));
        watch
    }

    fn place(&self) -> Place {
        self.cache().place(&self.image(), Level::Content, &Limits::default()).expect("a place")
    }

    fn put(&self, later: u64) {
        self.cache().put(&self.place(), &self.watch(later), &answer());
    }

    fn get(&self) -> Option<Answer> {
        self.cache().get(&self.place())
    }

    fn entries(&self) -> Vec<PathBuf> {
        let list = std::fs::read_dir(self.dir.path().join("cache/digests"));
        list.map(|l| l.map(|e| e.expect("entry").path()).collect()).unwrap_or_default()
    }
}

fn answer() -> Answer {
    let (digests, notes) = (vec!["box1:0".to_owned()], vec!["a note".to_owned()]);
    Answer { digests, notes, host_keys: vec!["sha256:0 /etc/ssh/k".to_owned()] }
}

const LONG: u64 = 1000;

#[test]
fn an_answer_is_kept_for_a_file_that_has_rested() {
    let lab = Lab::new();
    assert_eq!(lab.get(), None);
    lab.put(0);
    assert_eq!(lab.get(), None, "written a moment ago");
    assert!(lab.entries().is_empty());
    lab.put(LONG);
    assert_eq!(lab.get(), Some(answer()));
    let other = |level, limits: &Limits| {
        let place = lab.cache().place(&lab.image(), level, limits).expect("a place");
        lab.cache().get(&place)
    };
    assert_eq!(other(Level::Disk, &Limits::default()), None);
    assert_eq!(other(Level::Content, &Limits { entries: 7, ..Limits::default() }), None);
    let deadline = Some(crate::image::limits::Deadline::after(Duration::from_secs(9)));
    assert_eq!(other(Level::Content, &Limits { deadline, ..Limits::default() }), Some(answer()));
}

#[test]
fn a_changed_or_replaced_file_has_no_answer() {
    let lab = Lab::new();
    lab.put(LONG);
    let before = std::fs::metadata(lab.image()).expect("stat").modified().expect("mtime");
    // One byte, same size, mtime put back: ctime tells.
    std::fs::write(lab.image(), b"disc").expect("write");
    let file = std::fs::File::options().write(true).open(lab.image()).expect("open");
    file.set_modified(before).expect("mtime");
    assert_eq!(lab.get(), None);
    lab.put(LONG);
    assert_eq!(lab.get(), Some(answer()));
    let other = lab.dir.path().join("other");
    std::fs::write(&other, b"disc").expect("write");
    std::fs::rename(&other, lab.image()).expect("rename");
    assert_eq!(lab.get(), None);
}

/// A VMDK's extents are looked for beside the path that was given.
#[test]
fn a_link_to_the_image_in_another_folder_is_another_question() {
    let lab = Lab::new();
    let link = lab.dir.path().join("folder/image");
    std::fs::create_dir(lab.dir.path().join("folder")).expect("mkdir");
    std::os::unix::fs::symlink("../image", &link).expect("link");
    lab.put(LONG);
    let place = lab.cache().place(&link, Level::Content, &Limits::default()).expect("a place");
    assert_eq!(lab.cache().get(&place), None);
    assert_eq!(lab.get(), Some(answer()));
}

#[test]
fn every_file_of_the_image_counts() {
    let lab = Lab::new();
    let extent = lab.dir.path().join("extent");
    std::fs::write(&extent, b"more").expect("write");
    let mut watch = lab.watch(LONG);
    watch.also(&extent, &std::fs::metadata(&extent).expect("there"));
    lab.cache().put(&lab.place(), &watch, &answer());
    assert_eq!(lab.get(), Some(answer()));
    std::fs::write(&extent, b"less").expect("write");
    assert_eq!(lab.get(), None);
    assert!(watch.check_unchanged().expect_err("changed").what().contains("extent"));
    std::fs::remove_file(&extent).expect("remove");
    assert_eq!(lab.get(), None);
}

#[test]
fn a_damaged_entry_is_none() {
    let lab = Lab::new();
    lab.put(LONG);
    let [entry] = &lab.entries()[..] else { panic!("one entry") };
    let whole = std::fs::read(entry).expect("read");
    for i in 0..whole.len() {
        let mut bad = whole.clone();
        bad[i] ^= 1;
        std::fs::write(entry, &bad).expect("write");
        assert_eq!(lab.get(), None, "byte {i}");
    }
    for bad in [&b""[..], &whole[..whole.len() / 2], &vec![b'x'; 1 << 20]] {
        std::fs::write(entry, bad).expect("write");
        assert_eq!(lab.get(), None);
    }
    lab.put(LONG);
    assert_eq!(lab.get(), Some(answer()), "computed again and kept");
}

/// The answer to another question under this one's name, whole in itself.
#[test]
fn an_entry_answers_its_own_question_alone() {
    let lab = Lab::new();
    lab.put(LONG);
    let [entry] = &lab.entries()[..] else { panic!("one entry") };
    let other = lab.cache().place(&lab.image(), Level::Disk, &Limits::default()).expect("a place");
    std::fs::copy(entry, &other.file).expect("copy");
    assert_eq!(lab.cache().get(&other), None);
}

#[test]
fn a_folder_that_others_can_write_to_is_not_asked() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    lab.put(LONG);
    let folder = lab.dir.path().join("cache/digests");
    let mode = |mode| {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(0o777);
    assert_eq!(lab.get(), None);
    mode(0o700);
    assert_eq!(lab.get(), Some(answer()));
}

#[test]
fn what_cannot_be_written_is_not_kept_and_does_no_harm() {
    let lab = Lab::new();
    std::fs::write(lab.dir.path().join("cache"), b"a file in the way").expect("write");
    lab.put(LONG);
    assert_eq!(lab.get(), None);
}

#[test]
fn directories_and_devices_are_never_kept() {
    let lab = Lab::new();
    for path in [lab.dir.path(), Path::new("/dev/null")] {
        let mut watch = Watch::begin(path).expect("watch");
        watch.set_began(SystemTime::now() + Duration::from_secs(LONG));
        lab.cache().put(&lab.place(), &watch, &answer());
        assert!(lab.entries().is_empty(), "{}", path.display());
    }
}

#[test]
fn the_folder_stays_small_and_writers_do_not_hurt_each_other() {
    let lab = Lab::new();
    let images: Vec<_> = (0..40).map(|i| lab.dir.path().join(format!("image{i}"))).collect();
    for image in &images {
        std::fs::write(image, b"disk").expect("write");
    }
    let folder = lab.dir.path().join("cache/digests");
    lab.put(LONG);
    for i in 0..MAX_ENTRIES {
        std::fs::write(folder.join(format!("old{i}")), b"").expect("write");
        let file = std::fs::File::options().write(true).open(folder.join(format!("old{i}")));
        file.and_then(|f| f.set_modified(SystemTime::UNIX_EPOCH)).expect("mtime");
    }
    std::thread::scope(|scope| {
        for chunk in images.chunks(10) {
            let lab = &lab;
            scope.spawn(move || {
                for image in chunk {
                    let mut watch = Watch::begin(image).expect("watch");
                    watch.set_began(SystemTime::now() + Duration::from_secs(LONG));
                    let place = lab.cache().place(image, Level::Disk, &Limits::default());
                    lab.cache().put(&place.expect("a place"), &watch, &answer());
                }
            });
        }
    });
    for image in &images {
        let place = lab.cache().place(image, Level::Disk, &Limits::default()).expect("a place");
        assert_eq!(lab.cache().get(&place), Some(answer()), "{}", image.display());
    }
    assert!(lab.entries().len() <= MAX_ENTRIES);
    assert_eq!(lab.get(), Some(answer()), "the old ones went first");
}
