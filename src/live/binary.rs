//! The devbox that is sent to a host: an ELF program that needs no other file.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// The file in which a running program is (proc(5)).
const OWN: &str = "/proc/self/exe";
/// The largest program that is sent. devbox has 25 MB, a debug build of it 50 MB.
const MAX: u64 = 512 << 20;
/// ELF: little-endian, 64 bits (elf(5), `e_ident`).
const ELF64_LE: [u8; 6] = *b"\x7fELF\x02\x01";
/// A program header that names a dynamic loader (elf(5)).
const PT_INTERP: u32 = 3;

/// A program to send.
#[derive(Debug)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// What it runs on.
    pub machine: Machine,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// An architecture of 64 bits, by its number in ELF (`e_machine`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// `EM_X86_64`
    X86_64,
    /// `EM_AARCH64`
    Aarch64,
    /// `EM_RISCV`
    Riscv64,
}

impl Machine {
    /// What `uname -m` says there.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Machine::X86_64 => &["x86_64", "amd64"],
            Machine::Aarch64 => &["aarch64", "arm64"],
            Machine::Riscv64 => &["riscv64"],
        }
    }
}

impl Binary {
    /// The program at `path`, which the user named.
    ///
    /// # Errors
    /// Kind `Usage`: it cannot be read, or is no static program.
    pub fn named(path: &Path) -> Result<Self> {
        let refused = || Error::usage(format!("cannot send `{}` to a host", path.display()));
        match Self::read(path) {
            Ok(Ok(binary)) => Ok(binary),
            Ok(Err(why)) => Err(refused().cause(why).hint(super::STATIC)),
            Err(e) => Err(refused().cause(e)),
        }
    }

    /// The program that runs here, or why it cannot be sent.
    ///
    /// # Errors
    /// A sentence.
    pub fn own() -> Result<Self, String> {
        match Self::read(Path::new(OWN)) {
            Ok(Ok(binary)) => Ok(binary),
            Ok(Err(why)) => Err(format!("the devbox that runs here cannot be sent: {why}")),
            Err(e) => Err(format!("the devbox that runs here cannot be read: {e}")),
        }
    }

    fn read(path: &Path) -> std::io::Result<Result<Self, &'static str>> {
        let meta = fs::metadata(path)?;
        if !meta.is_file() || meta.len() > MAX {
            return Ok(Err("it is not a program"));
        }
        let bytes = fs::read(path)?;
        Ok(machine(&bytes).map(|machine| Binary { path: path.to_owned(), machine, bytes }))
    }

    /// The SHA-256 in hex.
    #[must_use]
    pub fn sha256(&self) -> String {
        FileDigest::of(&self.bytes).hex()
    }
}

/// What a static program runs on; else why it is none.
fn machine(elf: &[u8]) -> Result<Machine, &'static str> {
    const NONE: &str = "it is not an ELF program of 64 bits";
    if !elf.starts_with(&ELF64_LE) {
        return Err(NONE);
    }
    let u16_at = |at: usize| -> Option<u16> {
        Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?))
    };
    let headers = || -> Option<Vec<u32>> {
        let start = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
        let start = usize::try_from(start).ok()?;
        let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
        let kind = |i: usize| {
            let at = start.checked_add(i.checked_mul(size)?)?;
            let bytes = elf.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        (0..count).map(kind).collect()
    };
    // `ET_EXEC` and `ET_DYN`, of which the second is also a library.
    if !matches!(u16_at(16), Some(2 | 3)) {
        return Err(NONE);
    }
    let kinds = headers().ok_or("its ELF headers are damaged")?;
    if kinds.contains(&PT_INTERP) {
        return Err("it is not static: it needs the libraries of the system it was built on");
    }
    match u16_at(18) {
        Some(62) => Ok(Machine::X86_64),
        Some(183) => Ok(Machine::Aarch64),
        Some(243) => Ok(Machine::Riscv64),
        _ => Err("it is for an architecture that devbox does not run on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with program headers of these types.
    fn elf(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56 * kinds.len()];
        elf[..6].copy_from_slice(&ELF64_LE);
        elf[16] = 3;
        elf[18..20].copy_from_slice(&machine.to_le_bytes());
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = kinds.len() as u8;
        for (i, kind) in kinds.iter().enumerate() {
            elf[64 + 56 * i..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        elf
    }

    #[test]
    fn a_static_program_names_its_architecture() {
        assert_eq!(machine(&elf(62, &[1, 6])), Ok(Machine::X86_64));
        assert_eq!(machine(&elf(183, &[1])), Ok(Machine::Aarch64));
    }

    #[test]
    fn what_cannot_run_everywhere_is_refused() {
        assert!(machine(&elf(62, &[1, PT_INTERP])).is_err_and(|why| why.contains("not static")));
        assert!(machine(&elf(40, &[1])).is_err());
        assert!(machine(b"#!/bin/sh\n").is_err());
        let mut cut = elf(62, &[1, 1]);
        cut.truncate(100);
        assert!(machine(&cut).is_err_and(|why| why.contains("damaged")));
        assert_eq!(
            Binary::named(Path::new("/etc/passwd")).expect_err("text").kind().exit_code(),
            2
        );
    }
}
