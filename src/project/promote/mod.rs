//! What a machine changed, as a change of its spec: packages that somebody installed, files of theirs,
//! links, modes and what was removed. Secrets are named and left out.

mod diff;
mod edit;
mod packages;
mod secrets;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fs_err as fs;

use self::packages::Packages;
use crate::error::{Error, Result};
use crate::exec::shell_word;
use crate::image::disk::Holder;
use crate::image::tree::{Node, NodeKind};
use crate::parity::difference::{Kind, Place};
use crate::parity::drift::classes::{Class, Classified};
use crate::project::drift::Report;
use crate::spec::{self, FILE_NAME};

/// The folder beside the spec that files are copied to.
pub const FOLDER: &str = "promoted";
/// Longest file that is copied, in bytes: what is larger is no configuration.
const LONGEST: u64 = 4 << 20;
/// What programs of packages write when they are installed: a build makes it again.
const DERIVED: &[&str] = &[
    "var/lib/dpkg/",
    "var/lib/apt/",
    "var/lib/ucf/",
    "var/lib/systemd/deb-systemd-helper-enabled/",
    "var/lib/pam/",
    "var/lib/polkit-1/",
    "etc/ld.so.cache",
    "boot/initrd.img",
    "boot/grub/",
    "usr/share/mime/",
    "usr/share/icons/",
    "usr/share/applications/mimeinfo.cache",
    "usr/share/glib-2.0/schemas/gschemas.compiled",
    "usr/lib/locale/locale-archive",
    "usr/share/info/dir",
    "usr/lib/modules/",
    "lib/modules/",
    "etc/ssl/certs/ca-certificates.crt",
];
const ACCOUNTS: &[&str] = &["etc/passwd", "etc/group", "etc/subuid", "etc/subgid"];

/// A file that is copied beside the spec.
#[derive(Debug)]
struct Copied {
    /// In the guest, without a leading `/`.
    path: String,
    contents: Vec<u8>,
    mode: u16,
    owner: String,
}

/// A change of a spec.
#[derive(Debug, Default)]
pub struct Patch {
    old: String,
    new: String,
    files: Vec<Copied>,
    /// What is not in it: the place and why.
    pub left_out: Vec<(String, String)>,
}

/// Makes the patch of the spec in `dir` from what was found of a machine.
///
/// # Errors
/// The spec or a file of the machine cannot be read.
pub fn patch(report: &Report, dir: &Path) -> Result<Patch> {
    let old = fs::read_to_string(dir.join(FILE_NAME))?;
    let mut patch = Patch { new: old.clone(), old, ..Patch::default() };
    let Some(holder) = report.found.system() else {
        return Err(Error::undetermined("the image has no filesystem with a system"));
    };
    let packages = Packages::of(&report.drift, &report.found, &holder)?;
    let mut collect = Collect { report, holder, packages, patch: &mut patch, script: vec![] };
    for change in report.changes.iter().filter(|change| change.class == Class::Drift) {
        collect.change(change)?;
    }
    collect.finish()?;
    Ok(patch)
}

impl Patch {
    /// Whether nothing of the drift can be promoted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.old == self.new && self.files.is_empty()
    }

    /// The patch as a unified diff. Files that are no text are named alone.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = diff::unified(FILE_NAME, Some(&self.old), &self.new);
        for file in &self.files {
            let path = format!("{FOLDER}/{}", file.path);
            match std::str::from_utf8(&file.contents) {
                Ok(text) if !text.is_empty() && !text.chars().any(is_command) => {
                    out.push_str(&diff::unified(&path, None, text));
                }
                _ => {
                    let _ = writeln!(out, "Binary files /dev/null and b/{path} differ");
                }
            }
        }
        out
    }

    /// Writes it into the spec's folder `dir`: the files first, then the spec, at once.
    ///
    /// # Errors
    /// The spec was changed meanwhile, would be wrong, or a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let spec = dir.join(FILE_NAME);
        if fs::read_to_string(&spec)? != self.old {
            return Err(Error::failed(format!("`{}` was changed meanwhile", spec.display()))
                .hint("Run `devbox promote` again."));
        }
        for file in &self.files {
            let path = dir.join(FOLDER).join(&file.path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, &file.contents)?;
            let mode = if file.mode & 0o111 == 0 { 0o644 } else { 0o755 };
            fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        }
        let mut new =
            tempfile::Builder::new().prefix(".devbox").suffix(".toml").tempfile_in(dir)?;
        std::io::Write::write_all(&mut new, self.new.as_bytes())?;
        // Read as it will be, beside what it names.
        spec::load(Some(new.path()))?;
        let rights = fs::metadata(&spec)?.permissions();
        fs::set_permissions(new.path(), rights)?;
        new.persist(&spec).map_err(|e| Error::from(e.error))?;
        Ok(())
    }
}

/// Takes changes one by one.
struct Collect<'a> {
    report: &'a Report,
    holder: Holder,
    packages: Packages,
    patch: &'a mut Patch,
    /// Lines of a shell step for what is no file.
    script: Vec<String>,
}

impl Collect<'_> {
    fn leave(&mut self, place: &str, why: &str) {
        // A name of the guest's choice goes to a terminal.
        let show = |c: char| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        };
        self.patch.left_out.push((place.chars().map(show).collect(), why.to_owned()));
    }

    fn change(&mut self, change: &Classified) -> Result<()> {
        let Place::Path(Some(holder), path) = &change.path else {
            self.leave(&change.path.to_string(), "it is no file");
            return Ok(());
        };
        let inside = self.report.found.in_system(holder, path).filter(|_| *holder == self.holder);
        let Some(path) = inside else {
            self.leave(&change.path.to_string(), "it is not in the root filesystem");
            return Ok(());
        };
        if self.packages.owns(path) {
            return Ok(());
        }
        let Ok(path) = std::str::from_utf8(path) else {
            self.leave(&change.path.to_string(), "its name is no text");
            return Ok(());
        };
        let place = format!("/{path}");
        if DERIVED.iter().any(|derived| path.starts_with(derived)) || path.ends_with(".pyc") {
            return Ok(());
        }
        if let Some(why) = secrets::reason(path, b"", false) {
            self.leave(&place, &format!("a secret: {why}"));
            return Ok(());
        }
        if ACCOUNTS.contains(&path) {
            self.leave(&place, "accounts: write a step with `useradd`");
            return Ok(());
        }
        let found = &self.report.found;
        match found.node(&self.holder, path.as_bytes()).cloned() {
            None => self.script.push(format!("rm -rf -- {}", word(&place))),
            Some(node) => self.node(path, &node, change)?,
        }
        Ok(())
    }

    fn node(&mut self, path: &str, node: &Node, change: &Classified) -> Result<()> {
        let place = format!("/{path}");
        let quoted = word(&place);
        let kinds: Vec<Kind> = change.changes.iter().map(|one| one.kind).collect();
        let is_new = kinds.iter().any(|kind| matches!(kind, Kind::Added | Kind::Type));
        for one in &change.changes {
            if matches!(one.kind, Kind::Xattr | Kind::Flags | Kind::HardLinks) {
                self.leave(&place, &format!("its {} changed", one.kind.as_str()));
            }
        }
        match &node.kind {
            NodeKind::File { .. } if is_new || kinds.contains(&Kind::Content) => {
                self.file(path, node)?;
            }
            NodeKind::Symlink { target } if is_new || kinds.contains(&Kind::Target) => {
                let target = shell_word(OsStr::from_bytes(target)).to_string_lossy().into_owned();
                let parent = place.rsplit_once('/').map_or("/", |(parent, _)| parent);
                self.script.push(format!("mkdir -p -- {}", word(parent)));
                self.script.push(format!("ln -sfn -- {target} {quoted}"));
            }
            NodeKind::Directory { .. } if is_new => {
                self.script.push(format!("mkdir -p -- {quoted}"));
                self.rights(&quoted, node, true, true);
            }
            NodeKind::File { .. } | NodeKind::Directory { .. } => {
                self.rights(
                    &quoted,
                    node,
                    kinds.contains(&Kind::Mode),
                    kinds.contains(&Kind::Owner),
                );
            }
            NodeKind::Symlink { .. } => {}
            _ => self.leave(&place, "it is a device or a pipe"),
        }
        Ok(())
    }

    fn rights(&mut self, quoted: &str, node: &Node, mode: bool, owner: bool) {
        // A change of owner takes setuid away, so it comes first.
        if owner {
            self.script.push(format!("chown {}:{} -- {quoted}", node.uid, node.gid));
        }
        if mode {
            self.script.push(format!("chmod {:04o} -- {quoted}", node.mode));
        }
    }

    fn file(&mut self, path: &str, node: &Node) -> Result<()> {
        let place = format!("/{path}");
        let NodeKind::File { size, .. } = node.kind else { return Ok(()) };
        if size > LONGEST {
            self.leave(&place, &format!("it has {size} bytes: fetch or build it in a step"));
            return Ok(());
        }
        let found = &self.report.found;
        let contents = found.after(&self.report.drift, &self.holder, path.as_bytes())?;
        let Some(contents) = contents else { return Ok(()) };
        if let Some(why) = secrets::reason(path, &contents, node.mode & 0o077 == 0) {
            self.leave(&place, &format!("a secret: {why}"));
            return Ok(());
        }
        let owner = self.names()?.owner(node);
        self.patch.files.push(Copied { path: path.to_owned(), contents, mode: node.mode, owner });
        Ok(())
    }

    fn names(&self) -> Result<Names> {
        let read =
            |path: &str| self.report.found.after(&self.report.drift, &self.holder, path.as_bytes());
        Ok(Names { users: ids(read("etc/passwd")?), groups: ids(read("etc/group")?) })
    }

    /// The spec's new text.
    fn finish(mut self) -> Result<()> {
        for one in std::mem::take(&mut self.packages.changed) {
            self.leave(&one, "a build takes the newest version of a package");
        }
        for one in &self.packages.removed {
            self.script.push(format!("apt-get purge -y -- {}", word(one)));
        }
        let added = &self.packages.added;
        let mut steps = vec![];
        let text = match edit::with_packages(&self.patch.old, added)? {
            _ if added.is_empty() => self.patch.old.clone(),
            Some(text) => text,
            None => {
                let names: Vec<String> = added.iter().map(|name| word(name)).collect();
                let script = format!(
                    "apt-get update\nDEBIAN_FRONTEND=noninteractive apt-get install -y -- {}\n",
                    names.join(" ")
                );
                steps.push(shell("promoted packages", &script));
                self.patch.old.clone()
            }
        };
        for file in &self.patch.files {
            steps.push(file.step());
        }
        if !self.script.is_empty() {
            steps.push(shell("promoted changes", &(self.script.join("\n") + "\n")));
        }
        self.patch.new = edit::with_steps(&text, &steps);
        Ok(())
    }
}

/// Whether a terminal would do something else with it than show it.
fn is_command(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

fn word(text: &str) -> String {
    shell_word(OsStr::new(text)).to_string_lossy().into_owned()
}

fn shell(name: &str, script: &str) -> String {
    let name = edit::string(name);
    // Line by line as in a string, without its quotes.
    let line = |line: &str| edit::string(line).split_at(1).1.strip_suffix('"').map(str::to_owned);
    let inside = script.lines().filter_map(line).collect::<Vec<_>>().join("\n");
    format!("[[steps]]\ntype = \"shell\"\nname = {name}\ninline = \"\"\"\n{inside}\n\"\"\"\n")
}

impl Copied {
    fn step(&self) -> String {
        let (source, target) = (format!("{FOLDER}/{}", self.path), format!("/{}", self.path));
        let mut step = format!(
            "[[steps]]\ntype = \"file\"\nname = {}\nsource = {}\ntarget = {}\nmode = \"{:04o}\"\n",
            edit::string(&format!("promoted {target}")),
            edit::string(&source),
            edit::string(&target),
            self.mode
        );
        if self.owner != "root:root" {
            let _ = writeln!(step, "owner = {}", edit::string(&self.owner));
        }
        step
    }
}

/// Names of the guest's users and groups.
struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    fn owner(&self, node: &Node) -> String {
        let name = |all: &BTreeMap<u32, String>, id: u32| {
            all.get(&id).cloned().unwrap_or_else(|| id.to_string())
        };
        format!("{}:{}", name(&self.users, node.uid), name(&self.groups, node.gid))
    }
}

/// The third field of each line, and the first.
fn ids(file: Option<Vec<u8>>) -> BTreeMap<u32, String> {
    let text = String::from_utf8_lossy(&file.unwrap_or_default()).into_owned();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(entry).collect()
}
