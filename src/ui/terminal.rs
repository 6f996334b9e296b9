//! Events as lines on standard error, with one moving line below them on a terminal.

use std::io::{IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::{Event, Sink};
use crate::ui::Verbosity;
use crate::ui::text::{bytes, duration, plain};

/// In a pipe a transfer says how far it is this often: seldom enough for a log, often enough that
/// nobody takes it for dead.
const PROGRESS_LINE: Duration = Duration::from_secs(15);
/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows events on standard error.
pub struct Terminal {
    verbosity: Verbosity,
    moving: bool,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    bar: Option<ProgressBar>,
    /// What the bar shows the transfer of, if it is a bar and no spinner.
    transfer: Option<String>,
    /// When the last line about a transfer was printed.
    told: Option<Instant>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("verbosity", &self.verbosity).finish_non_exhaustive()
    }
}

impl Terminal {
    /// A sink for this process's standard error.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        let ci = std::env::var_os("CI").is_some_and(|v| !v.is_empty());
        let moving =
            std::io::stderr().is_terminal() && !dumb && !ci && verbosity != Verbosity::Quiet;
        Self::to(Box::new(anstream::stderr()), verbosity, moving)
    }

    fn to(out: Box<dyn Write + Send>, verbosity: Verbosity, moving: bool) -> Self {
        let state = State { out, bar: None, transfer: None, told: None };
        Terminal { verbosity, moving, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Terminal {
    fn emit(&self, event: Event) {
        let mut state = self.state();
        let quiet = self.verbosity == Verbosity::Quiet;
        match event.flat() {
            // Flat by now.
            Event::Of { .. } => {}
            Event::Asks => state.clear(),
            Event::Warning(text) => {
                let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
                state.line(&format!("{yellow}warning:{yellow:#} {text}"));
            }
            _ if quiet => {}
            Event::Phase(text) => {
                state.clear();
                let bold = anstyle::Style::new().bold();
                state.line(&format!("{bold}==> {text}{bold:#}"));
                if self.moving {
                    state.spin(&text);
                }
            }
            Event::Done { text, took } => {
                state.clear();
                state.line(&format!("    {text} ({})", duration(took)));
            }
            Event::Part { text, took } => {
                state.line(&format!("    {text} ({})", duration(took)));
            }
            Event::Note(text) => state.line(&format!("    {text}")),
            Event::Output { from, line } => {
                let dim = anstyle::Style::new().dimmed();
                state.line(&format!("    {dim}{}:{dim:#} {}", plain(&from), plain(&line)));
            }
            Event::Program { name, line } => {
                if self.verbosity == Verbosity::Verbose {
                    let dim = anstyle::Style::new().dimmed();
                    state.line(&format!("    {dim}{name}: {}{dim:#}", plain(&line)));
                }
            }
            Event::Progress { what, done, total } if self.moving => {
                state.transfer(what, done, total);
            }
            Event::Progress { what, done, total } => {
                let finished = total == Some(done);
                if finished || state.told.is_none_or(|t| t.elapsed() >= PROGRESS_LINE) {
                    // The first event only starts the clock: what ends quickly needs no line.
                    let first = state.told.is_none();
                    state.told = (!finished).then(Instant::now);
                    if !first {
                        state.line(&format!("    {}", progress(&what, done, total)));
                    }
                }
            }
        }
    }
}

impl State {
    fn line(&mut self, text: &str) {
        let out = &mut self.out;
        let mut print = || {
            let _ = writeln!(out, "{text}");
            let _ = out.flush();
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn clear(&mut self) {
        self.transfer = None;
        self.told = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn spin(&mut self, phase: &str) {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("    {spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_message(phase.to_owned());
        bar.enable_steady_tick(TICK);
        self.bar = Some(bar);
    }

    fn transfer(&mut self, what: String, done: u64, total: Option<u64>) {
        if self.bar.is_none() {
            self.spin(&what);
        }
        let Some(bar) = &self.bar else { return };
        if let Some(total) = total {
            if self.transfer.as_ref() != Some(&what) {
                let form = "    {spinner} {wide_msg} [{bar:24}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
                if let Ok(style) = ProgressStyle::with_template(form) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_message(what.clone());
            }
            bar.set_length(total);
            bar.set_position(done);
        } else {
            bar.set_message(progress(&what, done, None));
        }
        self.transfer = Some(what);
    }
}

/// `disk.qcow2: 120 MiB of 500 MiB (24 %)`.
fn progress(what: &str, done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => {
            let percent = u128::from(done) * 100 / u128::from(total);
            format!("{what}: {} of {} ({percent} %)", bytes(done), bytes(total))
        }
        _ => format!("{what}: {}", bytes(done)),
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.state().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Events;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic before").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn shown(verbosity: Verbosity) -> String {
        let buffer = Buffer::default();
        let out = anstream::StripStream::new(Box::new(buffer.clone()) as Box<dyn Write + Send>);
        let events = Events::new(Terminal::to(Box::new(out), verbosity, false));
        events.phase("Booting web");
        events.output("step 1", "hello\u{1b}[31m");
        events.program("mmdebstrap", "I: done");
        events.note("port 8080 is in use; took 8081");
        events.warn("no /dev/kvm");
        for done in [0, 5, 10] {
            events.emit(Event::Progress { what: "disk".into(), done, total: Some(10) });
        }
        let web = events.part("web");
        web.phase("Booting");
        web.done("ready", Duration::from_secs(12));
        web.warn("slow");
        events.done("booted, ssh answers", Duration::from_millis(81_500));
        drop(web);
        drop(events);
        let bytes = buffer.0.lock().expect("no panic before").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn lines_in_a_pipe_are_plain_and_complete() {
        assert_eq!(
            shown(Verbosity::Normal),
            "==> Booting web\n    step 1: hello\n    port 8080 is in use; took 8081\n\
             warning: no /dev/kvm\n    disk: 10 B of 10 B (100 %)\n    web: Booting\n    web: ready (12 s)\n\
             warning: web: slow\n    booted, ssh answers (1 min 21 s)\n"
        );
    }

    #[test]
    fn quiet_keeps_warnings_and_verbose_adds_programs() {
        assert_eq!(shown(Verbosity::Quiet), "warning: no /dev/kvm\nwarning: web: slow\n");
        assert!(shown(Verbosity::Verbose).contains("    mmdebstrap: I: done\n"));
    }
}
