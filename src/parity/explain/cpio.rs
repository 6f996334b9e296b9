//! The files in an initial RAM disk: cpio archives one after the other, each perhaps compressed (kernel
//! documentation, driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use crate::digest::{FileDigest, Sha256};

/// Most bytes after decompression.
const MAX_BYTES: u64 = 1 << 30;
/// Most members.
const MAX_MEMBERS: usize = 500_000;
/// Longest name in bytes (PATH_MAX of Linux).
const MAX_NAME: u32 = 4096;

/// A member, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Type and permissions.
    pub(super) mode: u32,
    /// User and group.
    pub(super) owner: (u32, u32),
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    /// Digest of the contents, or of a link's target.
    pub(super) contents: FileDigest,
    /// Seconds since 1970 UTC.
    pub(super) mtime: u32,
}

/// The members by name, the last of a name as the kernel has it; or why they cannot be told.
pub(super) fn members(image: &[u8]) -> Result<BTreeMap<Vec<u8>, Member>, String> {
    let mut all = BTreeMap::new();
    let mut left = MAX_BYTES;
    let mut rest = image;
    loop {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(all);
        }
        if rest.starts_with(b"07070") {
            let mut reader = Counted { inner: rest, left, read: 0 };
            archive(&mut reader, &mut all)?;
            left = reader.left;
            let read = usize::try_from(reader.read).map_err(|e| e.to_string())?;
            // Archives begin at multiples of four.
            rest = rest.get(read.next_multiple_of(4)..).unwrap_or_default();
            continue;
        }
        // Whatever is compressed reaches to the end.
        let reader = decompressed(rest)?;
        let mut reader = Counted { inner: reader, left, read: 0 };
        while skip_zeros(&mut reader)? {
            archive(&mut reader, &mut all)?;
        }
        return Ok(all);
    }
}

fn decompressed(bytes: &[u8]) -> Result<Box<dyn BufRead + '_>, String> {
    let fail = |e: std::io::Error| format!("it cannot be decompressed: {e}");
    Ok(match bytes {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(bytes))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(bytes).map_err(fail)?))
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            Box::new(BufReader::new(liblzma::bufread::XzDecoder::new_multi_decoder(bytes)))
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => {
            return Err("it is compressed with lz4, which is not opened".into());
        }
        [b'B', b'Z', b'h', ..] => {
            return Err("it is compressed with bzip2, which is not opened".into());
        }
        [0x89, b'L', b'Z', b'O', ..] => {
            return Err("it is compressed with lzo, which is not opened".into());
        }
        _ => return Err("it is no cpio archive, and in no known compression".into()),
    })
}

/// Passes on at most `left` bytes, and counts them.
struct Counted<R> {
    inner: R,
    left: u64,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(buf)?;
        let count = len as u64;
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            std::io::Error::other(format!("more than {MAX_BYTES} bytes are in it"))
        })?;
        self.read += count;
        Ok(len)
    }
}

/// Goes to the next archive; `false` at the end.
fn skip_zeros<R: BufRead>(reader: &mut Counted<R>) -> Result<bool, String> {
    loop {
        let available = reader.inner.fill_buf().map_err(|e| e.to_string())?;
        if available.is_empty() {
            return Ok(false);
        }
        let zeros = available.iter().take_while(|byte| **byte == 0).count();
        let all = zeros == available.len();
        reader.inner.consume(zeros);
        reader.left = reader.left.saturating_sub(zeros as u64);
        if !all {
            return Ok(true);
        }
        if reader.left == 0 {
            return Err(format!("more than {MAX_BYTES} bytes are in it"));
        }
    }
}

/// One archive up to its trailer: the `newc` form, with or without checksums.
fn archive<R: Read>(
    reader: &mut Counted<R>,
    all: &mut BTreeMap<Vec<u8>, Member>,
) -> Result<(), String> {
    let start = reader.read;
    loop {
        let mut head = [0; 110];
        read(reader, &mut head)?;
        if !matches!(&head[..6], b"070701" | b"070702") {
            return Err("a member has no header of the form newc".to_owned());
        }
        let mut fields = [0u32; 13];
        for (field, text) in fields.iter_mut().zip(head[6..].chunks_exact(8)) {
            let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
            *field = u32::from_str_radix(text, 16).map_err(|e| e.to_string())?;
        }
        let [_, mode, uid, gid, _, mtime, size, _, _, major, minor, len, _] = fields;
        if len == 0 || len > MAX_NAME {
            return Err(format!("a member's name has {len} bytes"));
        }
        let mut name = vec![0; len as usize];
        read(reader, &mut name)?;
        pad(reader, start)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        let contents = contents(reader, size)?;
        pad(reader, start)?;
        if name == b"TRAILER!!!" {
            return Ok(());
        }
        if all.len() >= MAX_MEMBERS {
            return Err(format!("more than {MAX_MEMBERS} files are in it"));
        }
        let name = name.strip_prefix(b"./").unwrap_or(&name).to_vec();
        let member = Member { mode, owner: (uid, gid), device: (major, minor), contents, mtime };
        all.insert(name, member);
    }
}

fn contents<R: Read>(reader: &mut Counted<R>, size: u32) -> Result<FileDigest, String> {
    let mut hash = Sha256::new();
    let mut left = size as usize;
    let mut buf = vec![0; left.min(1 << 16)];
    while left > 0 {
        let len = left.min(buf.len());
        read(reader, &mut buf[..len])?;
        hash.update(&buf[..len]);
        left -= len;
    }
    Ok(FileDigest::from_bytes(hash.finish()))
}

fn read<R: Read>(reader: &mut Counted<R>, buf: &mut [u8]) -> Result<(), String> {
    reader.read_exact(buf).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "it ends in the middle of a member".to_owned(),
        _ => e.to_string(),
    })
}

/// Names and contents end at multiples of four from the start of the archive.
fn pad<R: Read>(reader: &mut Counted<R>, start: u64) -> Result<(), String> {
    let over = (reader.read - start) % 4;
    let mut none = [0; 4];
    let len = if over == 0 { 0 } else { (4 - over) as usize };
    read(reader, &mut none[..len])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// An archive of files, as `cpio -o -H newc` writes it.
    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("write");
        }
        let list: String = files.iter().map(|(name, _)| format!("{name}\n")).collect();
        let mut child = std::process::Command::new("cpio")
            .args(["-o", "-H", "newc", "--quiet"])
            .current_dir(dir.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("cpio is needed for this test");
        child.stdin.take().expect("a pipe").write_all(list.as_bytes()).expect("write");
        child.wait_with_output().expect("cpio").stdout
    }

    fn names(image: &[u8]) -> Result<Vec<String>, String> {
        let all = members(image)?;
        Ok(all.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    #[test]
    fn what_cpio_wrote_is_found_plain_compressed_and_behind_microcode() {
        let early = archive(&[("microcode", "12345")]);
        let main = archive(&[("init", "#!/bin/sh\n"), ("bin", "x")]);
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gzip.write_all(&main).expect("write");
        let gzip = gzip.finish().expect("gzip");
        let zstd = zstd::stream::encode_all(&main[..], 1).expect("zstd");
        for packed in [&main, &gzip, &zstd] {
            let image = [&early[..], packed].concat();
            assert_eq!(names(&image).expect("members"), ["bin", "init", "microcode"]);
        }
        let members = members(&main).expect("members");
        assert_eq!(members[&b"bin"[..]].contents, FileDigest::of(b"x"));
        assert_eq!(members[&b"init"[..]].mode & 0o170_000, 0o100_000);
    }

    #[test]
    fn what_is_no_archive_or_ends_early_is_said() {
        let main = archive(&[("init", "#!/bin/sh\n")]);
        for (image, word) in [
            (&b"nothing of the kind"[..], "no cpio archive"),
            (&main[..130], "in the middle"),
            (&[0x02, 0x21, 0x4c, 0x18, 0][..], "lz4"),
            (&[0x1f, 0x8b, 8, 0][..], "e"),
        ] {
            let why = names(image).expect_err("refused");
            assert!(why.contains(word), "{why}");
        }
        assert_eq!(names(&[0; 600]).expect("nothing"), Vec::<String>::new());
    }
}
