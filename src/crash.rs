//! Named places where a test can end the process as `kill -9` would.
//!
//! Compiled in only with the feature `crash-points`. A test sets `DEVBOX_CRASH=<name>`; when the
//! program passes that point it dies by SIGKILL, so no destructor and no handler runs. The names
//! are listed in `POINTS`, so that a test can go through all of them.

/// Every crash point, as `<module>.<moment>`. A test runs each; a name missing here cannot be set.
pub const POINTS: &[&str] = &[
    "store.blob-staged",
    "store.blob-published",
    "store.index-written",
    "store.index-replaced",
    "store.entry-removed",
    "store.delta-written",
    "pull.part-written",
    "pull.whole",
    "push.own-tag",
    "push.before-channel",
    "machine.before-record",
    "build.output-written",
    "layers.before-record",
    "machine.before-cont",
    "up.started",
    "template.staged",
    "up.restored",
    "up.identified",
    "network.recorded",
    "suspend.saved",
    "suspend.recorded",
    "snapshot.saved",
    "snapshot.forgotten",
    "clone.before-record",
    "compact.copied",
    "drift.frozen",
    "drift.paused",
    "reset.cleared",
    "rollback.held",
    "rollback.cleared",
    "folder.connected",
    "folder.served",
];

/// Dies here if a test asked for it. Does nothing in a normal build.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_name: &'static str) {}

/// Dies here if a test asked for it.
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    assert!(POINTS.contains(&name), "crash point `{name}` is not listed in POINTS");
    if std::env::var("DEVBOX_CRASH").as_deref() == Ok(name) {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
