//! Folders of the host in a guest: mounted, tried out, and let go of, by scripts over ssh that need no more
//! than a shell, `mount` and the small programs of any guest.

mod script;
mod trial;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::ssh::{Client, Ended, Remote, Stream};
use super::work::as_root;
use crate::error::{Error, Result};
use crate::exec::quote;
use script::{HELD, MOUNT, NO_DEVICE, NO_FILESYSTEM, NO_TARGET, NOT_MOUNTED, UNMOUNT};
pub use trial::{Found, Trial};

/// For one script: seconds on an emulated guest; one that is busy takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Lines of a guest that are kept.
const LINES: usize = 40;

/// A folder of the host as a machine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// How it gets into the guest.
    pub kind: FolderKind,
    /// The folder on the host, absolute.
    pub source: PathBuf,
    /// Where the guest has it, absolute.
    pub target: String,
    /// Whether the guest may change what is in it.
    pub writable: bool,
    /// Patterns of rsync of what is not copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// `/home/ada/site on /work (9p, read-only)`.
impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights = match (self.kind, self.writable) {
            (FolderKind::Rsync, _) => "a copy",
            (_, true) => "writable",
            (_, false) => "read-only",
        };
        let (source, kind) = (self.source.display(), self.kind.as_str());
        write!(f, "{source} on {} ({kind}, {rights})", self.target)
    }
}

/// How a folder gets into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FolderKind {
    /// QEMU itself serves it, by the protocol 9P2000.L.
    #[serde(rename = "9p")]
    NineP,
    /// A process beside QEMU serves it, by the protocol of FUSE.
    #[serde(rename = "virtiofs")]
    Virtiofs,
    /// It is copied; no device.
    #[serde(rename = "rsync")]
    Rsync,
}

impl FolderKind {
    /// As in the spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FolderKind::NineP => "9p",
            FolderKind::Virtiofs => "virtiofs",
            FolderKind::Rsync => "rsync",
        }
    }

    /// What a guest without it can do.
    fn without(self) -> &'static str {
        match self {
            FolderKind::Virtiofs => {
                "Set `type = \"rsync\"`, or give the image a kernel that has it, as Debian's have (`CONFIG_VIRTIO_FS`)."
            }
            FolderKind::NineP | FolderKind::Rsync => {
                "Set `type = \"virtiofs\"` or `type = \"rsync\"`, or give the image a kernel that has it: Debian's `linux-image-amd64` does, and `linux-image-cloud-amd64` does not."
            }
        }
    }
}

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Where a folder is mounted, and how to do that in the guest.
#[derive(Debug, Clone, Copy)]
pub struct Mount<'a> {
    /// The folder.
    pub folder: &'a Folder,
    /// The tag of its device.
    pub tag: &'a str,
    /// The guest.
    pub client: &'a Client,
    /// Cancelled by Ctrl-C.
    pub cancel: &'a CancellationToken,
}

impl Mount<'_> {
    /// Mounts it, unless it is mounted: then false.
    ///
    /// # Errors
    /// The guest's kernel does not know the filesystem, sees no device, or refuses.
    pub async fn mount(&self) -> Result<bool> {
        let folder = self.folder;
        let said = self.run(as_root(&format!("{}\n{MOUNT}", self.words()))).await?;
        let (target, kind) = (&folder.target, folder.kind.as_str());
        let error = match said.code {
            0 => return Ok(said.out.iter().any(|line| line == "mounted")),
            NO_FILESYSTEM => {
                return Err(Error::failed(format!(
                    "`{target}` is not mounted: the kernel of the guest has no {kind}"
                ))
                .hint(folder.kind.without()));
            }
            NO_DEVICE => Error::failed(format!(
                "`{target}` is not mounted: the guest does not see the device `{}`",
                self.tag
            ))
            .hint("Restart the machine with `devbox reload`; its kernel needs PCI hotplug."),
            NO_TARGET => Error::failed(format!("`{target}` cannot be made in the guest"))
                .hint("Choose another `target` in `[[mounts]]`."),
            NOT_MOUNTED => Error::failed(format!("the guest does not mount `{target}`"))
                .hint("Its own words are above; `devbox logs` may have more of its kernel."),
            code => Error::failed(format!(
                "mounting `{target}` in the guest failed with exit code {code}"
            ))
            .hint("Root's work needs `sudo` without a password in the guest."),
        };
        Err(said.err.into_iter().fold(error, Error::detail))
    }

    /// Lets go of it; no fault if it is not mounted.
    ///
    /// # Errors
    /// Something in the guest holds it, which is named.
    pub async fn unmount(&self) -> Result<()> {
        let said = self.run(as_root(&format!("{}\n{UNMOUNT}", self.words()))).await?;
        let target = &self.folder.target;
        if said.code == 0 {
            return Ok(());
        }
        let error = Error::failed(format!("`{target}` cannot be unmounted in the guest"));
        let mut error = said.err.into_iter().fold(error, Error::detail);
        if said.code == HELD {
            for line in said.out {
                // The guest made these names up.
                error = error.detail(line.replace(char::is_control, "?"));
            }
        }
        Err(error
            .hint("End what uses it, or leave the folder there, and run the same command again."))
    }

    /// The variables of the scripts.
    fn words(&self) -> String {
        let q = |text: &str| quote(OsStr::new(text));
        let folder = self.folder;
        let rights = if folder.writable { "rw" } else { "ro" };
        // `mmap`: programs that map a file and write to it (databases, linkers) get an error without
        // it. What is only read need not be kept: the host changes it.
        let cache = if folder.writable { "mmap" } else { "none" };
        let (modules, more) = match folder.kind {
            // What is kept there is its server's choice.
            FolderKind::Virtiofs => ("virtiofs", String::new()),
            FolderKind::NineP | FolderKind::Rsync => (
                "9pnet_virtio 9p",
                format!(",trans=virtio,version=9p2000.L,msize=262144,cache={cache}"),
            ),
        };
        let options = format!("{rights},nosuid,nodev{more}");
        let (tag, target, kind) = (q(self.tag), q(&folder.target), folder.kind.as_str());
        format!(
            "tag={tag} target={target} type={kind} modules={} options={}",
            q(modules),
            q(&options)
        )
    }

    async fn run(&self, command: String) -> Result<Said> {
        run(self.client, Remote::new(command), self.cancel, |_| {}).await
    }
}

/// How a script ended, and its last lines.
struct Said {
    code: i32,
    out: Vec<String>,
    err: Vec<String>,
}

async fn run(
    client: &Client,
    remote: Remote,
    cancel: &CancellationToken,
    mut on_line: impl FnMut(&str),
) -> Result<Said> {
    let (mut out, mut err) = (VecDeque::new(), VecDeque::new());
    let take = |stream: Stream, line: &str| {
        if stream == Stream::Out {
            on_line(line);
        }
        let kept = if stream == Stream::Out { &mut out } else { &mut err };
        kept.push_back(line.to_owned());
        if kept.len() > LINES {
            kept.pop_front();
        }
    };
    match client.run(remote, take, PATIENCE, cancel).await? {
        Ended::Code(code) => Ok(Said { code, out: out.into(), err: err.into() }),
        Ended::TimedOut => Err(Error::failed(format!(
            "the guest did not handle its folders within {} s",
            PATIENCE.as_secs()
        ))
        .hint("Look at it with `devbox ssh`.")),
        Ended::Cancelled => Err(Error::interrupted("interrupted while folders were mounted")),
    }
}

/// Makes the target of a copy, which then is the account's; fails where the guest has no rsync.
///
/// # Errors
/// The guest has no rsync, or the target cannot be made.
pub async fn prepare_copy(
    client: &Client,
    folder: &Folder,
    cancel: &CancellationToken,
) -> Result<()> {
    let target = &folder.target;
    let t = quote(OsStr::new(target));
    let make =
        as_root(&format!("t={t}; [ -d \"$t\" ] || {{ mkdir -p \"$t\" && chown \"$1\" \"$t\"; }}"));
    let script = format!(
        "command -v rsync > /dev/null || exit {NO_FILESYSTEM}; [ -w {t} ] || {make} sh \"$(id -u):$(id -g)\" || exit {NO_TARGET}"
    );
    let said = run(client, Remote::new(script), cancel, |_| {}).await?;
    let error = match said.code {
        0 => return Ok(()),
        NO_FILESYSTEM => {
            return Err(Error::failed(format!(
                "nothing is copied to {target}: there is no `rsync` in the guest"
            ))
            .hint("Add \"rsync\" to the `packages` of `[source]`, or install it by a step; `devbox cp` needs none."));
        }
        _ => Error::failed(format!("`{target}` cannot be made in the guest"))
            .hint("Choose another `target` in `[[mounts]]`."),
    };
    Err(said.err.into_iter().fold(error, Error::detail))
}

/// The ids of the account that logs in.
///
/// # Errors
/// The guest cannot be reached, or says something else.
pub async fn account(client: &Client, cancel: &CancellationToken) -> Result<Ids> {
    let said = run(client, Remote::new("id -u; id -g"), cancel, |_| {}).await?;
    let mut numbers = said.out.iter().map(|line| line.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(uid)), Some(Ok(gid))) => Ok(Ids { uid, gid }),
        _ => Err(Error::failed("the guest does not tell the ids of its account")
            .hint("Look with `devbox ssh -c id`.")),
    }
}
