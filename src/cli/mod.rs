//! The verbs: one verb, one file, each an `Args` whose doc comment is the help, and a `run`.

mod attest_args;
mod box_server;
mod boxes;
mod build;
mod bundle;
mod by_agent;
mod cache;
mod clone;
mod compact;
mod completions;
mod console;
mod cp;
mod destroy;
mod digest;
mod doctor;
mod drift;
mod exec;
mod export;
mod folder_server;
mod halt;
mod helper;
mod import;
mod init;
mod limits;
mod list;
mod live_args;
mod lock;
mod logs;
mod machine;
mod manifest;
mod new_file;
mod on_error;
mod outdated;
mod parity;
mod policy_args;
mod port;
mod promote;
mod provision;
mod prune;
mod reference;
mod reload;
mod remote;
mod replaced_file;
mod report_args;
mod reset;
mod resume;
mod rollback;
mod schema;
mod screenshot;
mod seal;
mod signatures;
mod snapshot;
mod ssh;
mod ssh_config;
mod status;
mod suspend;
mod sync;
mod templates;
mod transfer;
mod up;
mod validate;
mod verify;
mod verify_attestation;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::CompleteEnv;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result, exit};
use crate::event::Events;
use crate::host::Paths;
use crate::parity::cache::Cache;
use crate::project::Run;
use crate::ui::ndjson::{self, Ndjson};
use crate::ui::{self, Verbosity};

/// How long a verb may clean up after Ctrl-C; longer than a guest needs to be killed and a
/// partial output to be removed.
const CLEANUP: Duration = Duration::from_secs(20);

/// One spec, one sealed image, a dev box that runs it, and proof by hash that dev and cloud match.
#[derive(Debug, Parser)]
#[command(name = "devbox", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Show warnings and errors only.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Show what helper programs print, too.
    #[arg(long, short, global = true)]
    verbose: bool,
}

impl Cli {
    fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// The verbs, in the order of the help.
#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Validate(validate::Args),
    Schema(schema::Args),
    Build(build::Args),
    Lock(lock::Args),
    Up(up::Args),
    Halt(halt::Args),
    Reload(reload::Args),
    Provision(provision::Args),
    Sync(sync::Args),
    Suspend(suspend::Args),
    Resume(resume::Args),
    Snapshot(snapshot::Args),
    Clone(clone::Args),
    Compact(compact::Args),
    Reset(reset::Args),
    Rollback(rollback::Args),
    Destroy(destroy::Args),
    Status(status::Args),
    List(list::Args),
    Ssh(ssh::Args),
    Exec(exec::Args),
    Cp(cp::Args),
    SshConfig(ssh_config::Args),
    Port(port::Args),
    Logs(logs::Args),
    Console(console::Args),
    Screenshot(screenshot::Args),
    Box(boxes::Args),
    Cache(cache::Args),
    Doctor(doctor::Args),
    Bundle(bundle::Args),
    Drift(drift::Args),
    Promote(promote::Args),
    Parity(Box<parity::Args>),
    Digest(digest::Args),
    Manifest(manifest::Args),
    Seal(seal::Args),
    VerifyAttestation(verify_attestation::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Helper(helper::Args),
    #[command(hide = true)]
    BoxServer(box_server::Args),
    #[command(hide = true)]
    FolderServer(folder_server::Args),
}

impl Verb {
    /// Whether what it does goes to standard output, as JSON.
    fn sends_events(&self) -> bool {
        match self {
            Verb::Up(args) => args.events.json,
            Verb::Halt(args) => args.events.json,
            Verb::Suspend(args) => args.events.json,
            Verb::Resume(args) => args.events.json,
            Verb::Reload(args) => args.events.json,
            Verb::Provision(args) => args.events.json,
            Verb::Rollback(args) => args.events.json,
            Verb::Sync(args) => args.events.json,
            Verb::Clone(args) => args.events.json,
            Verb::Compact(args) => args.events.json,
            Verb::Destroy(args) => args.events.json,
            _ => false,
        }
    }
}

/// What a verb needs from outside.
#[derive(Debug)]
pub(crate) struct Context {
    /// The user's folders.
    pub(crate) paths: Paths,
    /// What the engine says goes here.
    pub(crate) events: Events,
}

impl Context {
    /// Where digests of images are kept.
    pub(crate) fn digests(&self) -> Cache {
        Cache::new(self.paths.digests())
    }

    /// What work on machines needs.
    pub(crate) fn work<'a>(&'a self, cancel: &'a CancellationToken) -> Run<'a> {
        Run { paths: &self.paths, events: &self.events, cancel, spec: None }
    }

    /// Runs asynchronous work. On the first SIGINT or SIGTERM the token is cancelled: the work then
    /// cleans up and returns; after [`CLEANUP`], or a second signal, it is dropped where it is.
    pub(crate) fn block_on<T, F, Work>(&self, work: Work) -> Result<T>
    where
        F: Future<Output = Result<T>>,
        Work: FnOnce(CancellationToken) -> F,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| Error::failed("cannot start the async runtime").cause(e))?;
        runtime.block_on(async {
            let cancel = CancellationToken::new();
            let mut int = signal(SignalKind::interrupt())?;
            let mut term = signal(SignalKind::terminate())?;
            let work = work(cancel.clone());
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => return result,
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            cancel.cancel();
            self.events.note("interrupted; cleaning up");
            tokio::select! {
                // Work that could not be stopped any more still counts as done.
                result = &mut work => result,
                () = tokio::time::sleep(CLEANUP) => Err(Error::interrupted("interrupted")),
                _ = int.recv() => Err(Error::interrupted("interrupted twice")),
            }
        })
    }
}

/// Parses the command line, runs the verb, prints its error.
#[must_use]
pub fn main() -> ExitCode {
    match asked_by_a_shell() {
        Ok(false) => {}
        Ok(true) => return ExitCode::from(exit::OK),
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(exit::USAGE);
        }
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let json = cli.verb.sends_events();
    match run(cli) {
        Ok(code) => {
            if json {
                ndjson::end(code, None);
            }
            ExitCode::from(code)
        }
        Err(e) => {
            let code = e.kind().exit_code();
            if json {
                ndjson::end(code, Some(&e));
            }
            ui::error(&e);
            ExitCode::from(code)
        }
    }
}

/// Whether a shell asked how a word goes on; then it was answered.
fn asked_by_a_shell() -> clap::error::Result<bool> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .var(completions::VARIABLE)
        .try_complete(std::env::args_os(), here.as_deref())
}

fn run(cli: Cli) -> Result<u8> {
    let events = match cli.verb.sends_events() {
        true => Events::new(Ndjson::new()),
        false => Events::new(ui::Terminal::new(cli.verbosity())),
    };
    let ctx = Context { paths: Paths::from_env()?, events };
    let done = match cli.verb {
        // "Could not tell" is an answer of its own only where a question was asked.
        Verb::Drift(args) => return drift::run(args, &ctx),
        Verb::Parity(args) => return parity::run(*args, &ctx),
        Verb::Digest(args) => return digest::run(args, &ctx),
        Verb::Manifest(args) => return manifest::run(args, &ctx),
        Verb::Seal(args) => return seal::run(args, &ctx),
        Verb::Box(args) if args.asks() => return boxes::run(args, &ctx),
        Verb::VerifyAttestation(args) => return verify_attestation::run(args, &ctx),
        Verb::Init(args) => init::run(args, &ctx),
        Verb::Validate(args) => validate::run(args, &ctx),
        Verb::Schema(args) => schema::run(args, &ctx),
        Verb::Build(args) => build::run(args, &ctx),
        Verb::Lock(args) => lock::run(args, &ctx),
        Verb::Up(args) => up::run(args, &ctx),
        Verb::Halt(args) => halt::run(args, &ctx),
        Verb::Reload(args) => reload::run(args, &ctx),
        Verb::Provision(args) => provision::run(args, &ctx),
        Verb::Sync(args) => sync::run(args, &ctx),
        Verb::Suspend(args) => suspend::run(args, &ctx),
        Verb::Resume(args) => resume::run(args, &ctx),
        Verb::Snapshot(args) => snapshot::run(args, &ctx),
        Verb::Clone(args) => clone::run(args, &ctx),
        Verb::Compact(args) => compact::run(args, &ctx),
        Verb::Promote(args) => promote::run(args, &ctx),
        Verb::Reset(args) => reset::run(args, &ctx),
        Verb::Rollback(args) => rollback::run(args, &ctx),
        Verb::Destroy(args) => destroy::run(args, &ctx),
        Verb::Status(args) => status::run(args, &ctx),
        Verb::List(args) => list::run(args, &ctx),
        Verb::Ssh(args) => ssh::run(args, &ctx),
        Verb::Exec(args) => exec::run(args, &ctx),
        Verb::Cp(args) => cp::run(args, &ctx),
        Verb::SshConfig(args) => ssh_config::run(args, &ctx),
        Verb::Port(args) => port::run(args, &ctx),
        Verb::Logs(args) => logs::run(args, &ctx),
        Verb::Console(args) => console::run(args, &ctx),
        Verb::Screenshot(args) => screenshot::run(args, &ctx),
        Verb::Box(args) => boxes::run(args, &ctx),
        Verb::Cache(args) => cache::run(args, &ctx),
        Verb::Completions(args) => completions::run(args, &ctx),
        Verb::Helper(args) => helper::run(args, &ctx),
        Verb::BoxServer(args) => box_server::run(args, &ctx),
        Verb::FolderServer(args) => folder_server::run(&args),
        Verb::Doctor(args) => doctor::run(args, &ctx),
        Verb::Bundle(args) => bundle::run(args, &ctx),
    };
    done.map_err(|e| match e.kind() {
        Kind::Undetermined => e.with_kind(Kind::Failed),
        _ => e,
    })
}
