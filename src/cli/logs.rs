//! `devbox logs`.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::helper::place::Place;
use crate::machine::serial::plain;
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(200);
/// A line that is longer is printed in pieces, so that a guest cannot fill our memory.
const LONGEST_LINE: usize = 64 << 10;
/// What is read at once.
const PIECE: usize = 64 << 10;

/// Print what the dev box wrote on its serial console.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Go on with what comes, also after a restart, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// What QEMU itself said instead
    #[arg(long)]
    qemu: bool,
    /// What the helper of the project did instead: its switch, its clocks
    #[arg(long, conflicts_with = "qemu")]
    helper: bool,
    /// Only the last lines
    #[arg(long, short = 'n', value_name = "NUMBER")]
    lines: Option<usize>,
}

/// What a guest writes is hostile to a terminal: its control codes are left out.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let path = if args.helper { of_helper(ctx)? } else { of_machine(&args, ctx)? };
    let mut log = Log::new(&path);
    let mut from_end = args.lines;
    loop {
        log.read(&mut from_end)?;
        if !args.follow {
            log.rest()?;
            return Ok(exit::OK);
        }
        std::thread::sleep(PAUSE);
    }
}

fn of_machine(args: &Args, ctx: &Context) -> Result<PathBuf> {
    let (instance, _) = shared::one(ctx, args.machine.as_deref())?;
    let files = instance.files();
    let path = if args.qemu { files.qemu_log() } else { files.serial_log() };
    if !path.exists() && !args.follow {
        return Err(Error::failed(format!("`{}` was never started", instance.name()))
            .hint("Start it with `devbox up`."));
    }
    Ok(path)
}

fn of_helper(ctx: &Context) -> Result<PathBuf> {
    let project = shared::project(ctx)?;
    let folder = project.members().first().map(|member| member.instance.project());
    let log = folder.map(|folder| Place::of(&ctx.paths, folder).log()).filter(|log| log.exists());
    log.ok_or_else(|| {
        Error::failed("no helper runs beside the machines of this project")
            .hint("Start them with `devbox up`.")
    })
}

/// A log that grows, and that a restart puts a new one in place of.
struct Log<'a> {
    path: &'a Path,
    file: Option<(File, u64)>,
    /// A line without its end.
    line: Vec<u8>,
}

impl<'a> Log<'a> {
    fn new(path: &'a Path) -> Self {
        Log { path, file: None, line: vec![] }
    }

    /// Prints all whole lines that are there and were not printed; the first time only the last
    /// `from_end`, where that is given.
    fn read(&mut self, from_end: &mut Option<usize>) -> Result<()> {
        if self.file.is_none() {
            match File::open(self.path) {
                Ok(file) => self.file = Some((file, 0)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(self.unreadable(e)),
            }
        }
        let Some((mut file, mut at)) = self.file.take() else { return Ok(()) };
        let size = file.metadata().map_err(|e| self.unreadable(e))?.len();
        if let Some(lines) = from_end.take() {
            at = start_of_last(&mut file, size, lines).map_err(|e| self.unreadable(e))?;
        }
        // Emptied: by QEMU, which starts its own log anew.
        if size < at {
            at = 0;
            self.rest()?;
        }
        file.seek(SeekFrom::Start(at)).map_err(|e| self.unreadable(e))?;
        let mut piece = vec![0; PIECE];
        loop {
            let n = file.read(&mut piece).map_err(|e| self.unreadable(e))?;
            if n == 0 {
                break;
            }
            at += n as u64;
            self.print(&piece[..n])?;
        }
        if self.replaced(&file) {
            // The rest of the old one was read; the new one is opened at the next look.
            self.rest()?;
        } else {
            self.file = Some((file, at));
        }
        Ok(())
    }

    fn print(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST_LINE {
                self.rest()?;
            }
        }
        Ok(())
    }

    /// Prints what has no end of line yet.
    fn rest(&mut self) -> Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        let text = plain(&String::from_utf8_lossy(&self.line));
        self.line.clear();
        ui::line(text.trim_end_matches('\n'))
    }

    /// Whether another file stands at the path now.
    fn replaced(&self, file: &File) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let there = std::fs::metadata(self.path).map(id).ok();
        there != file.metadata().map(id).ok()
    }

    fn unreadable(&self, e: std::io::Error) -> Error {
        Error::failed(format!("cannot read `{}`", self.path.display())).cause(e)
    }
}

/// Where the last `lines` lines begin. A last line without its end counts.
fn start_of_last(file: &mut File, size: u64, lines: usize) -> std::io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let (mut end, mut left) = (size, lines);
    if left == 0 {
        return Ok(size);
    }
    while end > 0 {
        let from = end.saturating_sub(PIECE as u64);
        let part = &mut piece[..usize::try_from(end - from).unwrap_or(PIECE)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(part)?;
        for (i, byte) in part.iter().enumerate().rev() {
            let at = from + i as u64;
            // The end of the last line begins no other one.
            if *byte == b'\n' && at + 1 < size {
                left -= 1;
                if left == 0 {
                    return Ok(at + 1);
                }
            }
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_begin_where_they_begin() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        let of = |text: &str, lines| {
            std::fs::write(&path, text).expect("written");
            let mut file = File::open(&path).expect("opened");
            let at = start_of_last(&mut file, text.len() as u64, lines).expect("read");
            text[usize::try_from(at).expect("small")..].to_owned()
        };
        assert_eq!(of("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(of("a\nb\nc", 2), "b\nc");
        assert_eq!(of("a\nb\n", 9), "a\nb\n");
        assert_eq!(of("a\nb\n", 0), "");
        assert_eq!(of("", 3), "");
        let long = format!("first\n{}\nlast\n", "x".repeat(PIECE + 10));
        assert_eq!(of(&long, 1), "last\n");
        assert_eq!(of(&long, 2), long["first\n".len()..]);
    }
}
