//! `devbox up`.

use std::time::Duration;

use crate::build::Pinned;
use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Result, exit};
use crate::exec::sandbox::Policy;
use crate::project::Project;
use crate::project::provision::Which;
use crate::project::up::{self, Options};
use crate::registry::{self, Address};
use clap_complete::engine::ArgValueCandidates;

/// Boot the dev box of this project, or all of its machines; builds their box first if it is not there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines and those that they depend on; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// How long to wait until a machine is ready; its `timeout` of the spec by default
    #[arg(long, value_name = "DURATION", value_parser = shared::duration)]
    timeout: Option<Duration>,
    /// Boot a new machine instead of restoring it from a template
    #[arg(long)]
    cold: bool,
    /// Change machines over that run on another box than the spec's, also after a rollback: their own disks are lost, data disks stay
    #[arg(long)]
    forward: bool,
    /// When a machine counts as up: its ssh server speaks, a login works, or cloud-init has finished too
    #[arg(long, value_enum, default_value_t = Wait::Ready)]
    wait: Wait,
    /// Where the box comes from if it is not here (`oci://…`, `dir:…`, `https://…`): machines start while it arrives
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Where the box is to be pulled from `registry` of devbox.toml, start machines while it arrives
    #[arg(long, conflicts_with = "from")]
    lazy: bool,
    /// Speak HTTP without TLS to that registry; one on this host is tried anyway
    #[arg(long, requires = "from")]
    plain_http: bool,
    /// Keep to `devbox.lock`: machines are made from a box that is as it says, or `up` fails.
    ///
    /// Ends with 2 before anything is done if there is no lock, or if it does not fit the spec.
    #[arg(long, conflicts_with_all = ["from", "lazy"])]
    locked: bool,
    /// Where a box has to be built, let `qemu-img` read disks with all your rights if this host cannot isolate it.
    #[arg(long)]
    allow_unsandboxed: bool,
    /// Do all of `[[provision]]`, done before or not
    #[arg(long, conflicts_with_all = ["no_provision", "provision_with"])]
    provision: bool,
    /// Do nothing of `[[provision]]`
    #[arg(long, conflicts_with = "provision_with")]
    no_provision: bool,
    /// Do only these of `[[provision]]`, by name, done before or not
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    provision_with: Vec<String>,
    /// Remove a machine again that was made now and does not come up; its evidence stays, in one file
    #[arg(long, overrides_with = "_no_destroy_on_error")]
    destroy_on_error: bool,
    /// Keep such a machine, as the evidence is inside (default)
    #[arg(long = "no-destroy-on-error")]
    _no_destroy_on_error: bool,
    #[command(flatten)]
    settings: shared::SettingArgs,
    #[command(flatten)]
    pub(super) events: shared::EventArgs,
}

/// The words of `--wait`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Wait {
    Boot,
    Ssh,
    Ready,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let (spec, overrides) = args.settings.spec(ctx)?;
    if args.locked {
        Pinned::of(&spec, true, &ctx.events)?;
    }
    let project = Project::here(&ctx.paths)?;
    let names = shared::wanted(&project, &spec, &args.machines)?;
    for old in project.existing().filter(|member| member.in_spec == Some(false)) {
        ctx.events.warn(format!(
            "`{0}` is a machine of this project and not in the spec any more; remove it with `devbox destroy {0}`",
            old.name()
        ));
    }
    let provision = match (args.provision, args.no_provision, args.provision_with) {
        (true, _, _) => Which::All,
        (_, true, _) => Which::Nothing,
        (_, _, names) if !names.is_empty() => Which::Named(names),
        _ => Which::Due,
    };
    provision.check(&spec)?;
    let from = args.from.map(|address| Address::parse(&address)).transpose()?;
    let plain_http = args.plain_http;
    let options = Options {
        lazy: args.lazy,
        locked: args.locked,
        from: from.map(|address| {
            // What has to be signed is known with the spec.
            let none = registry::Policy::none();
            (address, registry::Options { plain_http, ..registry::Options::new(none) })
        }),
        timeout: args.timeout,
        sandbox: Policy::from_flag(args.allow_unsandboxed),
        cold: args.cold,
        forward: args.forward,
        overrides,
        provision,
        destroy_on_error: args.destroy_on_error,
        wait: match args.wait {
            Wait::Boot => up::Wait::Boot,
            Wait::Ssh => up::Wait::Ssh,
            Wait::Ready => up::Wait::Ready,
        },
    };
    ctx.block_on(async |cancel| {
        up::up(&project, &spec, &names, &options, ctx.work(&cancel).of(&project)).await
    })?;
    Ok(exit::OK)
}
