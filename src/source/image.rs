//! The `image` source: a disk image by path or address, verified before anything that comes of it is kept.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::address::Address;
use super::checksum;
use super::fetch::{self, Fetcher, hash_file, hash_file_like};
use super::signature::{KeyFile, Keys, Signed};
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::host::{Paths, private_dir};
use crate::image::container::{self, Format, Options};
use crate::spec::types::{
    Checksum, ImageSource, InputFormat, IsoSource, Location, Signing, Source,
};

/// Largest checksum file, signature or file of keys; those of distributions have some KiB, their keys some 100.
const MAX_CHECKSUM_FILE: u64 = 1 << 20;

/// A source image that is what its spec says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The file: the spec's own path, or a read-only file in the cache.
    pub path: PathBuf,
    /// Its format, found in its header by devbox; other programs are told and never guess.
    pub format: Format,
    /// Guest-visible size in bytes.
    pub virtual_size: u64,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
}

/// Gets the image that `source` names, verifies its digest, and reads its header.
///
/// # Errors
/// It cannot be fetched or read; its digest is not the expected one (both are named); it is not an
/// image that is read here, or it names other files; `cancel` was set.
pub async fn resolve(
    source: &ImageSource,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<ResolvedImage> {
    resolve_with(&Fetcher::new()?, source, paths, events, cancel).await
}

/// As [`resolve`]; but a local image whose SHA-256 the spec states is taken at its word meanwhile, and hashed beside
/// what the caller does. If it is another one, `cancel` is cancelled.
///
/// # Errors
/// As [`resolve`]; a wrong digest is an error of [`Verification::end`] then.
pub async fn claim(
    source: &ImageSource,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(ResolvedImage, Verification)> {
    let (Location::Path(path), Checksum::Sha256(sha256)) = (&source.location, &source.checksum)
    else {
        return Ok((resolve(source, paths, events, cancel).await?, Verification::default()));
    };
    // That it is there and a file is said at once.
    fs::File::open(path)?;
    let stop = cancel.child_token();
    let (at, expected, stopped) = (path.clone(), sha256.clone(), stop.clone());
    let all = cancel.clone();
    let hashing = tokio::spawn(async move {
        let verified = verified(&at, &expected, &Events::silent(), &stopped).await;
        verified.map(|_| ()).inspect_err(|_| all.cancel())
    });
    let verification = Verification(Some((hashing, stop.drop_guard())));
    let image = opened(source, path.clone(), sha256.clone(), events).await?;
    Ok((image, verification))
}

/// The comparison of a source image with the digest that its spec states. Given up, it stops.
#[derive(Debug, Default)]
pub struct Verification(Option<(JoinHandle<Result<()>>, DropGuard)>);

impl Verification {
    /// Waits for it. A second time there is nothing to wait for.
    ///
    /// # Errors
    /// The image is another one than the spec says, or cannot be read; Ctrl-C.
    pub async fn end(&mut self) -> Result<()> {
        let Some((hashing, _guard)) = self.0.take() else { return Ok(()) };
        hashing.await.map_err(|e| Error::failed("hashing the source image was stopped").cause(e))?
    }
}

async fn resolve_with(
    fetcher: &Fetcher,
    source: &ImageSource,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<ResolvedImage> {
    let (path, sha256) = file(fetcher, named(source), paths, events, cancel).await?;
    opened(source, path, sha256, events).await
}

/// What the header of a source image says.
async fn opened(
    source: &ImageSource,
    path: PathBuf,
    sha256: String,
    events: &Events,
) -> Result<ResolvedImage> {
    let options = Options {
        format: source.format.map(|format| match format {
            InputFormat::Raw => Format::Raw,
            InputFormat::Qcow2 => Format::Qcow2,
            InputFormat::Vhd => Format::Vhd,
        }),
        ..Options::default()
    };
    let opened = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            if options.format.is_none() {
                refuse_wrapped(&path)?;
            }
            container::open(&path, &options)
        })
    };
    // What parity could not tell is, for a build, a source that cannot be used.
    let container = opened
        .await
        .map_err(|e| Error::failed("reading the source image ended early").cause(e))?
        .map_err(|e| e.with_kind(Kind::Failed))?;
    for note in &container.notes {
        events.warn(format!("{}: {note}", path.display()));
    }
    Ok(ResolvedImage {
        path,
        format: container.format,
        virtual_size: container.reader.size(),
        sha256,
    })
}

/// The SHA-256 that the file of a source has to have, as the spec or its checksum file says; the file is not fetched. None
/// where only another digest of it is listed, or where there is no file.
///
/// # Errors
/// The checksum file cannot be fetched, is not signed as it should be, or does not list the file.
pub async fn announced(
    source: &Source,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Option<FileDigest>> {
    let named = match source {
        Source::Packages(_) | Source::Box(_) => return Ok(None),
        Source::Image(image) => named(image),
        Source::Iso(IsoSource { location, checksum, signing, .. }) => {
            Named { location, checksum, signing: signing.as_ref() }
        }
    };
    let digest = expected(&Fetcher::new()?, named, events, cancel).await?;
    Ok(format!("sha256:{digest}").parse().ok())
}

/// A file that a source names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) location: &'a Location,
    pub(super) checksum: &'a Checksum,
    pub(super) signing: Option<&'a Signing>,
}

fn named(source: &ImageSource) -> Named<'_> {
    let ImageSource { location, checksum, signing, .. } = source;
    Named { location, checksum, signing: signing.as_ref() }
}

/// Gets a file that has to match a checksum: its path, and its SHA-256 in 64 hex digits.
pub(super) async fn file(
    fetcher: &Fetcher,
    named: Named<'_>,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(PathBuf, String)> {
    let digest = expected(fetcher, named, events, cancel).await?;
    let path = match named.location {
        Location::Path(path) => verified(path, &digest, events, cancel).await?,
        Location::Url(url) => {
            let folder = paths.cache.join("downloads");
            private_dir(&folder)?;
            fetcher.fetch(&Address::parse(url)?, &digest, &folder, events, cancel).await?
        }
    };
    let sha256 = match fetch::kind(&digest) {
        "sha256" => digest,
        _ => {
            let sha256 = hash_file(&path, events, cancel).await?;
            if let (Location::Url(_), Some(folder)) = (named.location, path.parent()) {
                // A lock knows it by this name; where that cannot be, it is fetched once more.
                let _ = fs::hard_link(&path, folder.join(&sha256));
            }
            sha256
        }
    };
    Ok((path, sha256))
}

/// QEMU reads the file as it is, so it has to be the disk itself. Said before anything is unpacked.
fn refuse_wrapped(path: &Path) -> Result<()> {
    let Some(wrapping) = container::wrapping(path)? else { return Ok(()) };
    Err(Error::failed(format!("`{}` is {wrapping}", path.display()))
        .cause("a source has to be a disk image itself, since QEMU boots from it")
        .hint("Unpack it, and give the path and the digest of the disk image that is inside."))
}

/// The digest that the image must have, in hex: its SHA-256, or its SHA-512 where only that is listed.
async fn expected(
    fetcher: &Fetcher,
    Named { location, checksum, signing }: Named<'_>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<String> {
    let list = match checksum {
        Checksum::Sha256(hex) => return Ok(hex.clone()),
        Checksum::File(list) => list,
    };
    let name = match location {
        Location::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        Location::Url(url) => Address::parse(url)?.file_name().map(str::to_owned),
    };
    let Some(name) = name else {
        return Err(Error::usage("the source's location ends without a file name")
            .hint("Give the image's digest as `sha256`, since a checksum file lists names."));
    };
    let (text, origin) =
        small(fetcher, list, "checksum file", signing.is_none(), events, cancel).await?;
    let text = match signing {
        None => text,
        Some(signing) => {
            let beside = match &signing.signature {
                None => None,
                Some(at) => Some(small(fetcher, at, "signature", false, events, cancel).await?),
            };
            let mut files = vec![];
            for at in &signing.keys {
                let (bytes, name) = small(fetcher, at, "key file", false, events, cancel).await?;
                files.push(KeyFile { name, bytes });
            }
            let keys = Keys::read(&files, &signing.fingerprints)?;
            keys.verified(Signed {
                text: &utf8(text, &origin)?,
                origin: &origin,
                signature: beside.as_ref().map(|(bytes, name)| (&**bytes, &**name)),
            })?
            .into_bytes()
        }
    };
    checksum::find(&utf8(text, &origin)?, &name, &origin)
}

fn utf8(bytes: Vec<u8>, origin: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        Error::failed(format!("the checksum file `{origin}` is no text")).cause(e.utf8_error())
    })
}

/// A small file that lies beside an image, and what it is called; `alone`: nothing but the way it came by proves it.
async fn small(
    fetcher: &Fetcher,
    at: &Location,
    what: &str,
    alone: bool,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(Vec<u8>, String)> {
    match at {
        Location::Path(path) => {
            let size = fs::metadata(path)?.len();
            if size > MAX_CHECKSUM_FILE {
                return Err(Error::failed(format!("`{}` is too big for a {what}", path.display()))
                    .cause(format!("it has {size} bytes")));
            }
            Ok((fs::read(path)?, path.display().to_string()))
        }
        Location::Url(url) => {
            let address = Address::parse(url)?;
            if alone && !address.is_protected() {
                events.warn(format!(
                    "the {what} `{address}` comes without TLS: whoever can change it on its way can change the image too"
                ));
            }
            let bytes = fetcher.small(&address, MAX_CHECKSUM_FILE, cancel).await?;
            Ok((bytes, address.to_string()))
        }
    }
}

/// Hashes a local file where it is.
async fn verified(
    path: &Path,
    expected: &str,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let found = hash_file_like(expected, path, events, cancel).await?;
    if found == expected {
        return Ok(path.to_path_buf());
    }
    let kind = fetch::kind(expected);
    Err(Error::failed(format!("`{}` is not the expected image", path.display()))
        .detail(format!("expected {kind}:{expected}"))
        .detail(format!("found    {kind}:{found}"))
        .hint("Check that the file is whole and the right version, or correct the digest in the spec."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::FileDigest;
    use crate::image::oracle::{run, tool};
    use crate::spec::types::Signing;

    fn paths(dir: &Path) -> Paths {
        let at = |name: &str| dir.join(name);
        Paths {
            store: at("s"),
            machines: at("m"),
            templates: at("t"),
            bundles: at("b"),
            disks: at("d"),
            settings: at("u"),
            cache: at("c"),
            runtime: at("r"),
        }
    }

    async fn resolved(dir: &Path, source: &ImageSource) -> Result<ResolvedImage> {
        resolve(source, &paths(dir), &Events::silent(), &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn what_is_packed_is_refused_before_it_is_unpacked() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("disk.raw.gz");
        // A header and nothing else, which cannot be unpacked.
        let bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\x03";
        fs::write(&path, bytes).expect("write");
        let source = ImageSource {
            location: Location::Path(path),
            checksum: Checksum::Sha256(FileDigest::of(bytes).hex()),
            format: None,
            signing: None,
        };
        let e = resolved(dir.path(), &source).await.expect_err("packed").to_string();
        assert!(e.contains("disk.raw.gz` is a gzip-compressed file"), "{e}");
    }

    #[tokio::test]
    async fn a_local_image_is_verified_and_its_format_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let Some(qemu) = tool("qemu-img", "local image source") else { return };
        run(dir.path(), &qemu, &["create", "-q", "-f", "qcow2", "disk.img", "8M"]);
        let path = dir.path().join("disk.img");
        let hex = FileDigest::of(&fs::read(&path).expect("read")).hex();
        let sums = dir.path().join("SHA256SUMS");
        fs::write(&sums, format!("{hex}  disk.img\n")).expect("write");
        let mut source = ImageSource {
            location: Location::Path(path.clone()),
            checksum: Checksum::File(Location::Path(sums)),
            format: None,
            signing: None,
        };
        let found = resolved(dir.path(), &source).await.expect("good");
        assert_eq!(
            found,
            ResolvedImage {
                path,
                format: Format::Qcow2,
                virtual_size: 8 << 20,
                sha256: hex.clone()
            }
        );

        let mut sum = std::process::Command::new("sha512sum");
        let sum = sum.arg("disk.img").current_dir(dir.path()).output().expect("sha512sum runs");
        let sum = String::from_utf8(sum.stdout).expect("text");
        fs::write(dir.path().join("SHA512SUMS"), &sum).expect("write");
        let listed = Checksum::File(Location::Path(dir.path().join("SHA512SUMS")));
        let by_sha512 = ImageSource { checksum: listed, ..source.clone() };
        let found = resolved(dir.path(), &by_sha512).await.expect("good");
        assert_eq!(found.sha256, hex, "it is known by its SHA-256 all the same");
        let other = sum.replacen(&sum[..1], if sum.starts_with('0') { "1" } else { "0" }, 1);
        fs::write(dir.path().join("SHA512SUMS"), other).expect("write");
        let e = resolved(dir.path(), &by_sha512).await.expect_err("wrong digest").to_string();
        assert!(e.contains("expected sha512:") && e.contains(&sum[..128]), "{e}");

        source.checksum = Checksum::Sha256("0".repeat(64));
        let e = resolved(dir.path(), &source).await.expect_err("wrong digest").to_string();
        assert!(e.contains(&"0".repeat(64)) && e.contains(&hex), "{e}");

        source.checksum = Checksum::Sha256(hex);
        source.format = Some(InputFormat::Vhd);
        let e = resolved(dir.path(), &source).await.expect_err("not a vhd");
        assert_eq!(e.kind(), Kind::Failed);
    }

    #[tokio::test]
    async fn what_an_unsigned_checksum_file_says_is_not_used_where_the_spec_names_keys() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("disk.img"), "x").expect("write");
        fs::write(at("SUMS"), format!("{}  disk.img\n", FileDigest::of(b"x").hex()))
            .expect("write");
        // A public key packet of version 4, and no more of it than its fingerprint is made of.
        fs::write(at("key"), [0xc6, 1, 4]).expect("write");
        let source = ImageSource {
            location: Location::Path(at("disk.img")),
            checksum: Checksum::File(Location::Path(at("SUMS"))),
            format: None,
            signing: Some(Signing {
                keys: vec![Location::Path(at("key"))],
                fingerprints: vec![],
                signature: None,
            }),
        };
        let e = resolved(dir.path(), &source).await.expect_err("unsigned");
        assert_eq!(e.kind(), Kind::Trust);
        assert!(e.to_string().contains("SUMS` is not accepted"), "{e}");
    }

    #[tokio::test]
    async fn an_image_that_names_another_file_is_refused_before_any_other_program_sees_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let Some(qemu) = tool("qemu-img", "image source with a backing file") else { return };
        let args = [
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/passwd",
            "x.qcow2",
            "1M",
        ];
        run(dir.path(), &qemu, &args);
        let path = dir.path().join("x.qcow2");
        let hex = FileDigest::of(&fs::read(&path).expect("read")).hex();
        let source = ImageSource {
            location: Location::Path(path),
            checksum: Checksum::Sha256(hex),
            format: None,
            signing: None,
        };
        let e = resolved(dir.path(), &source).await.expect_err("refused").to_string();
        assert!(e.contains("`/etc/passwd`, which was not opened"), "{e}");
    }
}
