//! `devbox console`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio_util::sync::CancellationToken;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::machine::lock::Lock;
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Ctrl-], as telnet and `virsh console` have it: no program in a guest needs it.
const LEAVE: u8 = 0x1d;
/// How long a signal may wait until it is seen.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// What is passed on at once.
const PIECE: usize = 4 << 10;

/// Connect this terminal to the dev box's serial console; leave with Ctrl-].
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (input, output) = (std::io::stdin(), std::io::stdout());
    if !input.is_terminal() || !output.is_terminal() {
        return Err(Error::usage("`devbox console` needs a terminal")
            .hint("Run a command with `devbox exec`, or read what was said with `devbox logs`."));
    }
    let (instance, _) = shared::running(ctx, args.machine.as_deref())?;
    let (name, files) = (instance.name().to_owned(), instance.files());
    // QEMU serves one client at a time, and lets a second one wait without a word.
    let _lock = Lock::acquire(&files.console_lock(), "devbox console")?;
    let socket = files.serial_socket();
    let stream = UnixStream::connect(&socket).map_err(|e| {
        Error::failed(format!("cannot reach the serial console `{}`", socket.display()))
            .cause(e)
            .hint("See `devbox status`.")
    })?;
    ctx.events.note(format!("connected to `{name}`; leave with Ctrl-]"));
    let end = ctx.block_on(async |cancel| {
        let raw = Raw::enter(input.as_fd())?;
        let work = tokio::task::spawn_blocking(move || talk(&stream, &cancel));
        let end = work.await.map_err(|e| Error::failed("the console ended").cause(e))?;
        drop(raw);
        end
    })?;
    // The guest's last line may have no end.
    ui::console(b"\r\n")?;
    ctx.events.note(match end {
        End::Left => format!("left `{name}`, which goes on"),
        End::Closed => format!("`{name}` has stopped"),
        End::Cancelled => return Err(Error::interrupted("interrupted")),
    });
    Ok(exit::OK)
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By Ctrl-].
    Left,
    /// QEMU closed it.
    Closed,
    /// By a signal.
    Cancelled,
}

/// Passes bytes on, both ways, as they are.
fn talk(mut stream: &UnixStream, cancel: &CancellationToken) -> Result<End> {
    let input = std::io::stdin();
    let mut piece = [0; PIECE];
    while !cancel.is_cancelled() {
        let ready = {
            let mut fds = [PollFd::new(&input, PollFlags::IN), PollFd::new(stream, PollFlags::IN)];
            match poll(&mut fds, Some(&LOOK)) {
                Ok(_) => fds.map(|fd| !fd.revents().is_empty()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(Error::failed("cannot wait for the console").cause(e)),
            }
        };
        if ready[1] {
            match stream.read(&mut piece)? {
                0 => return Ok(End::Closed),
                n => ui::console(&piece[..n])?,
            }
        }
        if ready[0] {
            // Not through the buffer of `Stdin`, which `poll` would not see.
            let n = rustix::io::read(&input, &mut piece).map_err(std::io::Error::from)?;
            let typed = &piece[..n];
            let leave = typed.iter().position(|b| *b == LEAVE);
            stream.write_all(&typed[..leave.unwrap_or(n)])?;
            if leave.is_some() || n == 0 {
                return Ok(End::Left);
            }
        }
    }
    Ok(End::Cancelled)
}

/// A terminal that passes each key on, Ctrl-C too; it is as before when this is dropped.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> Result<Self> {
        let failed = |e| Error::failed("cannot change the mode of the terminal").cause(e);
        let before = tcgetattr(terminal).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
