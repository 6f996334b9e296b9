//! Templates: a box is booted once on each shape of machine, saved when it is ready, and every later
//! machine of that shape goes on from there.

use std::time::{Duration, Instant};

use fs_err as fs;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::last_lines;
use crate::guest::agent::{self, Agent};
use crate::guest::identity::{self, Account};
use crate::guest::keys::KeyPair;
use crate::guest::seed::instance_id;
use crate::image::container::Options;
use crate::image::disk::Disk;
use crate::machine::config::{Config, Lifetime, MemoryFile};
use crate::machine::instance::new_layer;
use crate::machine::record::BaseImage;
use crate::machine::template::{self, Found, Key, Made, Parts, Template, Templates};
use crate::machine::{Machine, ready};
use crate::project::{Run, hardware};

/// Between two looks whether another devbox has finished the template.
const PAUSE: Duration = Duration::from_millis(200);
/// For one command of the agent that should answer at once; a loaded host takes longer.
const AGENT_WAIT: Duration = Duration::from_secs(30);

/// Ends when the guest has nothing left to start: what a template does while it is saved, every machine
/// that is restored from it does again.
const SETTLED: &str = r#"if command -v cloud-init > /dev/null && [ ! -e /run/cloud-init/disabled ]; then
    while [ ! -e /run/cloud-init/result.json ]; do sleep 0.5; done
fi
if command -v systemctl > /dev/null; then systemctl is-system-running --wait > /dev/null 2>&1 || :; fi
"#;

/// How a new machine starts.
#[derive(Debug)]
pub(super) enum Way {
    /// From this template.
    Warm(Box<Template>),
    /// From its firmware, and why.
    Cold(String),
}

/// What a template is made of.
pub(super) struct Wanted<'a> {
    /// The image.
    pub(super) base: &'a BaseImage,
    /// Bytes of the machine's disk.
    pub(super) disk: u64,
    /// The hardware, without what belongs to one machine.
    pub(super) shape: Config,
    /// The account in the guest.
    pub(super) user: &'a str,
    /// How long a template's guest may take to be ready.
    pub(super) timeout: Duration,
}

impl Wanted<'_> {
    /// The template for such machines, made if there is none yet.
    ///
    /// # Errors
    /// Interrupted. Every other failure is a reason to boot.
    pub(super) async fn way(&self, run: Run<'_>, events: &Events) -> Result<Way> {
        if self.shape.tpm {
            // What was measured into a template's TPM, and its keys, are the template's.
            return Ok(Way::Cold("a machine with a TPM does not start from a template".to_owned()));
        }
        match self.template(run, events).await {
            Ok(way) => Ok(way),
            Err(e) if e.kind() == Kind::Interrupted => Err(e),
            Err(e) => Ok(Way::Cold(reason(&e))),
        }
    }

    /// The key of the template for such machines.
    ///
    /// # Errors
    /// QEMU is not installed.
    pub(super) fn key(&self) -> Result<Key> {
        Key::new(self.base, self.disk, &self.shape, self.user)
    }

    async fn template(&self, run: Run<'_>, events: &Events) -> Result<Way> {
        let templates = Templates::new(&run.paths.templates);
        let key = self.key()?;
        if let Some(way) = found(&templates, &key, events) {
            return Ok(way);
        }
        let mut told = false;
        let _lock = loop {
            match templates.lock(&key, "devbox up") {
                Ok(lock) => break lock,
                Err(e) if templates.maker(&key).is_none() && !told => return Err(e),
                Err(_) => {}
            }
            if !told {
                events.phase("Waiting for the template that another machine's start makes");
                told = true;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = run.cancel.cancelled() => {
                    return Err(Error::interrupted("interrupted while a template was made"));
                }
            }
        };
        // Another devbox may have made it while we waited.
        if let Some(way) = found(&templates, &key, &Events::silent()) {
            return Ok(way);
        }
        let made = Made {
            reference: self.base.reference.clone(),
            instance_id: instance_id(&self.base.manifest, &key.id()),
            key,
        };
        let staging = templates.staging(&made.key)?;
        let runtime = run.paths.runtime.join(format!("t{}", &made.key.id()[..8]));
        let result = match agent_in(self.base) {
            Err(e) => Err(e),
            Ok(false) => Ok(Err("its image has no guest agent (`qemu-guest-agent`)".to_owned())),
            Ok(true) => {
                let start = Instant::now();
                events.phase(format!(
                    "Making a template of {}: the next machines start from it in seconds",
                    self.base.reference
                ));
                let result = self.make(&staging, &runtime, &made, run, events).await;
                if let Ok(Ok(_)) = result {
                    events.done("the template is saved", start.elapsed());
                }
                result
            }
        };
        let _ = fs::remove_dir_all(&runtime);
        let way = match result {
            Ok(Ok(account)) => Ok(Way::Warm(Box::new(templates.publish(&staging, made, account)?))),
            Ok(Err(reason)) => {
                templates.refuse(&staging, made, &reason)?;
                Ok(Way::Cold(format!("there is no template of this box: {reason}")))
            }
            Err(e) => Err(e),
        };
        if staging.exists() {
            let _ = fs::remove_dir_all(&staging);
        }
        way
    }

    /// Boots the box in `dir`, waits until it is ready and saves it there; gives its account.
    /// The inner error says that this box cannot be a template, whenever it is tried.
    async fn make(
        &self,
        dir: &std::path::Path,
        runtime: &std::path::Path,
        made: &Made,
        run: Run<'_>,
        events: &Events,
    ) -> Result<std::result::Result<Account, String>> {
        let parts = Parts::new(dir);
        let seed = dir.join("seed.iso");
        new_layer(&self.base.disk, &parts.disk, self.disk)?;
        let host_key = KeyPair::generate("template host key")?;
        template::seed(self.user, &made.instance_id, Some(&host_key)).write(&seed)?;
        let config = Config {
            name: "template".to_owned(),
            uuid: crate::host::new_uuid()?,
            disks: vec![hardware::root(parts.disk.clone())],
            seed: Some(seed),
            lifetime: Lifetime::WithParent,
            memory_file: Some(MemoryFile { path: parts.memory.clone(), written: true }),
            ..self.shape.clone()
        };
        let mut machine = Machine::launch(config, dir, runtime, events, run.cancel).await?;
        let socket = machine.files().agent_socket();
        let probes = [ready::serial_probe(), ready::agent_probe(&socket)];
        let end = Instant::now() + self.timeout;
        let settled = async {
            if let Err(e) = machine.wait_ready(&probes, self.timeout, run.cancel).await {
                // A guest that runs and has no agent in all that time will not have one next time.
                return match e.kind() {
                    Kind::Interrupted => Err(e),
                    _ if machine.process().alive() => Ok(Err(reason(&e))),
                    _ => Err(e),
                };
            }
            let mut agent = Agent::connect(&socket, AGENT_WAIT).await?;
            if !agent.allows(agent::RUN, AGENT_WAIT).await? {
                return Ok(Err(format!("its guest agent does not allow `{}`", agent::RUN)));
            }
            let left = end.saturating_duration_since(Instant::now());
            let settle = async {
                let ran = agent.run("/bin/sh", &["-s"], SETTLED.as_bytes(), left).await?;
                if ran.code != 0 {
                    let last = last_lines(&ran.err, 1).pop().unwrap_or_default();
                    let code = ran.code;
                    return Err(Error::failed(format!("its guest is not ready ({code}): {last}")));
                }
                let account = identity::prepare(&mut agent, self.user).await?;
                identity::sync(&mut agent).await?;
                Ok(account)
            };
            tokio::select! {
                settled = settle => match settled {
                    Ok(account) => Ok(Ok(account)),
                    Err(e) => {
                        // A QEMU that was killed closes the agent's port first.
                        tokio::time::sleep(PAUSE).await;
                        // What a guest that runs cannot do now, it will not be able to the next time.
                        if machine.process().alive() { Ok(Err(reason(&e))) } else { Err(e) }
                    }
                },
                () = machine.process().ended() => {
                    Err(Error::failed("QEMU ended while a template was made"))
                }
                () = run.cancel.cancelled() => {
                    Err(Error::interrupted("interrupted while a template was made"))
                }
            }
        };
        match settled.await {
            Ok(Ok(account)) => match machine.save(&parts.state).await {
                Ok(()) => Ok(Ok(account)),
                Err(e) => Ok(Err(reason(&e))),
            },
            other => {
                machine.kill().await?;
                other
            }
        }
    }
}

/// What there is already; says when a template is not whole.
fn found(templates: &Templates, key: &Key, events: &Events) -> Option<Way> {
    match templates.find(key) {
        Found::Template(template) => Some(Way::Warm(template)),
        Found::Impossible(reason) => {
            Some(Way::Cold(format!("there is no template of this box: {reason}")))
        }
        Found::Missing(None) => None,
        Found::Missing(Some(damage)) => {
            events
                .warn(format!("the template of this box is not used: {damage}; making a new one"));
            None
        }
    }
}

/// Whether the image has a guest agent, by its files.
pub(super) fn agent_in(base: &BaseImage) -> Result<bool> {
    let disk = Disk::open(&base.disk, &Options::default())?;
    for at in disk.filesystems() {
        let tree = at.filesystem.tree()?;
        if agent::PROGRAMS.iter().any(|path| tree.resolve(path.as_bytes()).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A failure as one line.
pub(super) fn reason(e: &Error) -> String {
    match e.causes().last() {
        Some(cause) => format!("{} ({cause})", e.what()),
        None => e.what().to_owned(),
    }
}
