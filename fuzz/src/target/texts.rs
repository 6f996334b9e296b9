//! Targets whose input is the text itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use super::checks;
use crate::archive::Reader;
use crate::checksum;
use crate::error::{Error, Kind, Result};
use crate::image::ReadAt;
use crate::image::boot::{self, Files};
use crate::image::iso9660::Volume;
use crate::parity::manifest::Manifest;
use crate::reached::flows::{Flows, Names, Roles, Taken};
use crate::reached::pcap::{self, Record};
use crate::report::Report;
use crate::serial;
use crate::spec;
use crate::spec::boot_command::{self, variables::Variables};

/// Boot loader configuration. The input is a list of names and contents, all ended by NUL.
pub fn boot(data: &[u8]) {
    let files = Listed::of(data);
    match boot::entries(&files) {
        Ok(entries) => {
            let defaults = entries.iter().filter(|entry| entry.default).count();
            assert!(defaults <= 1, "{defaults} entries are the default");
            assert_eq!(boot::default_entry(&entries).is_some(), defaults == 1);
        }
        Err(e) => checks::error(&e),
    }
}

struct Listed<'a>(BTreeMap<&'a [u8], &'a [u8]>);

impl<'a> Listed<'a> {
    fn of(data: &'a [u8]) -> Self {
        let mut words = data.split(|byte| *byte == 0);
        let mut files = BTreeMap::new();
        while let (Some(name), Some(contents)) = (words.next(), words.next()) {
            files.insert(name, contents);
        }
        Listed(files)
    }
}

impl Files for Listed<'_> {
    fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        match self.0.get(path) {
            Some(text) if text.len() as u64 > limit => Err(Error::undetermined("too long")),
            found => Ok(found.map(|text| text.to_vec())),
        }
    }

    fn size(&self, path: &[u8]) -> Result<Option<u64>> {
        Ok(self.0.get(path).map(|text| text.len() as u64))
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let inside = self.0.keys().filter_map(|file| {
            let rest = file.strip_prefix(path)?.strip_prefix(b"/")?;
            rest.split(|byte| *byte == b'/').next().map(<[u8]>::to_vec)
        });
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

/// A manifest; one that is taken can be written.
pub fn manifest(data: &[u8]) {
    match Manifest::read(data, &checks::limits()) {
        Ok(manifest) => manifest.write(&mut std::io::sink()).expect("it can be written"),
        Err(e) => checks::error(&e),
    }
}

/// A devbox.toml: the spec, or problems that can be shown.
pub fn spec(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A folder that is there and has nothing that a spec could name.
    match spec::parse(text, Path::new(spec::FILE_NAME), Path::new("/proc/self/task")) {
        Ok(spec) => {
            let _ = spec::digest::spec1(&spec, None);
        }
        Err(problems) => {
            let error = Error::from(problems);
            let text = error.to_string();
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
    }
}

/// A publisher's list of checksums. The first line is the name that is looked for.
pub fn checksums(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    let (name, text) = input.split_once('\n').unwrap_or(("", input));
    // The name is the user's, and not what is tried here.
    if name.len() > 255 {
        return;
    }
    match checksum::find(text, name, "SHA256SUMS") {
        Ok(digest) => {
            assert!([64, 128].contains(&digest.len()));
            assert!(!digest.bytes().any(|b| b.is_ascii_uppercase()));
            let line = text.lines().find(|line| line.to_ascii_lowercase().contains(&digest));
            assert!(line.is_some(), "no line has it");
        }
        Err(e) => {
            assert_eq!(e.kind(), Kind::Failed, "{e}");
            checks::message(&e.to_string());
        }
    }
}

/// An installation medium from its first descriptor on, in which a kernel is looked for.
pub fn iso9660(data: &[u8]) {
    struct Medium<'a>(&'a [u8]);
    /// Nothing is in front of the descriptors (ECMA-119 6.2.1).
    const EMPTY: u64 = 16 * 2048;
    impl ReadAt for Medium<'_> {
        fn size(&self) -> u64 {
            EMPTY + self.0.len() as u64
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            for (place, byte) in (offset..).zip(buf) {
                assert!(place < self.size(), "a read behind the end");
                let at = place.checked_sub(EMPTY).and_then(|at| usize::try_from(at).ok());
                *byte = at.map_or(0, |at| self.0[at]);
            }
            Ok(())
        }
    }
    let medium = Medium(data);
    let found = Volume::open(&medium).and_then(|volume| volume.file("casper/vmlinuz"));
    match found {
        Ok(extent) => assert!(extent.offset + extent.size <= medium.size()),
        Err(e) => checks::message(&e.to_string()),
    }
}

/// What is typed into a boot loader, with its variables.
pub fn boot_command(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variables =
        Variables { hostname: "box".to_owned(), server: Some(("10.0.2.2".to_owned(), 8000)) };
    let (replaced, _) = variables.replace(text);
    if let Err(faults) = boot_command::parse(&replaced) {
        let characters = replaced.chars().count();
        assert!(!faults.is_empty());
        for fault in faults {
            assert!((1..=characters).contains(&fault.at), "{fault:?}");
            checks::message(&fault.what);
        }
    }
}

/// What a guest says on its serial console: all of it for people, the seal's lines for the build.
pub fn console(data: &[u8]) {
    let log = String::from_utf8_lossy(data);
    let shown = serial::plain(&log);
    assert!(!shown.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{shown:?}");
    let report = Report::parse(&log);
    let said = report.steps.iter().chain(&report.notes).chain(&report.failures);
    let paths = report.changes.iter().flat_map(|change| [&change.what, &change.path]);
    assert!(said.chain(paths).all(|text| !text.contains('\n')), "{report:?}");
    assert!(!report.complete || log.contains("devbox-seal: end sealed"), "{report:?}");
}

/// The record of a guest's network, as QEMU writes it.
pub fn network(data: &[u8]) {
    let mut flows = Flows::new([0x52, 0x54, 0, 0x12, 0x34, 0x56], Names::default());
    let mut frames = 0;
    // A mark ends it, where what comes before it is whole.
    let mark = pcap::mark(7);
    let read = pcap::read(data.chain(&mark[..]), |record| match record {
        Record::Frame(frame) => {
            frames += 1;
            flows.frame(frame);
            true
        }
        Record::Mark(number) => number != 7,
    });
    if let Err(why) = read {
        checks::message(&why);
    }
    let taken = flows.take();
    assert_eq!(taken.frames, frames);
    assert!(taken.reached.len() as u64 <= frames, "{taken:?}");
    for reached in &taken.reached {
        // It becomes an entry of a file that people read.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.:".contains(c);
        assert!(!reached.host.is_empty() && reached.host.chars().all(plain), "{reached:?}");
        assert!(!reached.by.as_str().is_empty());
        let mut roles = Roles::default();
        roles.add(&format!("http://[{}]:{}/debian", reached.address, reached.port));
        assert!(roles.is_mirror(reached), "{roles:?} {reached:?}");
    }
    assert_eq!(flows.take(), Taken::default());
}

/// What a guest sends where a folder is copied from it. The input is the whole stream.
pub fn archive(data: &[u8]) {
    let mut reader = Reader::new(data);
    loop {
        match reader.next() {
            Ok(None) => return reader.drain(),
            Err(e) => return checks::error(&e),
            Ok(Some(entry)) => {
                assert!(entry.path.len() <= 4096 && entry.link.len() <= 4096, "{entry:?}");
                assert!(entry.mode <= 0o777, "{entry:?}");
                let mut content = vec![];
                // Cut short is an error, and nothing is longer than it said.
                let whole = reader.content().read_to_end(&mut content).is_ok();
                let size = content.len() as u64;
                assert!(if whole { size == entry.size } else { size < entry.size }, "{entry:?}");
            }
        }
    }
}
