//! Seal: removes what is unique to one boot, at the source rather than by ignoring it later.
//!
//! After the last service stopped, the image's own kernel and initrd are started directly with a
//! shell as the only process, which runs the seal's script from a second disk. Nothing can be
//! written behind it. Kernel, initrd and command line are those of the default boot entry, read in
//! this process. Then the filesystems' [`journals`] are emptied. Afterwards [`check`] reads the
//! result with devbox's own readers: what the guest said about itself decides nothing.

pub mod check;
pub(in crate::build) mod journals;
mod kernel;
pub(in crate::build) mod planted;
mod report;
mod script;
pub(in crate::build) mod search;
#[cfg(test)]
mod steps_tests;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

pub use kernel::Bootable;
pub use report::{Change, Report};
pub use script::Values;

use crate::build::hardware;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::machine::Machine;
use crate::machine::config::{
    Accelerator, Config, DirectKernel, Disk, DiskFormat, Firmware, Lifetime, Network,
};
use crate::spec::Arch;

/// The version of the rules; a new rule set gets a new name.
pub const VERSION: &str = "seal/1";
/// The serial number by which the shell finds the script's disk.
const SERIAL: &str = "devbox-seal";
/// From power-on to power-off: 15 s on an idle host under emulation, and the trim of a big disk.
const DEADLINE: Duration = Duration::from_secs(600);
/// Enough for a kernel, its initrd unpacked, and a shell.
const MEMORY: u64 = 1 << 30;
/// The longest kernel command line on x86 and arm64 (`COMMAND_LINE_SIZE`, arch/*/include/asm/setup.h).
const MAX_CMDLINE: usize = 2048;

/// What the shell that the kernel starts is told: find the script's disk and run it. No double
/// quotes, since it stands between two of them on the kernel's command line.
const FIND: &str = "mount -t proc proc /proc; mount -t sysfs sysfs /sys; \
     for d in /sys/block/*; do s=; { read s < $d/serial; } 2>/dev/null; \
     [ x$s = xdevbox-seal ] && sh /dev/${d##*/}; done";

/// One sealing.
#[derive(Debug)]
pub struct Seal<'a> {
    /// The overlay that the build wrote; it is changed in place.
    pub overlay: &'a Path,
    /// What its default boot entry starts.
    pub bootable: &'a Bootable,
    /// What the script needs to know.
    pub values: &'a Values,
    /// A folder of this seal alone; its serial log stays after a failure.
    pub dir: &'a Path,
    /// Where sockets go.
    pub runtime: &'a Path,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Virtual processors.
    pub cpus: u32,
    /// The image's architecture.
    pub arch: Arch,
}

impl Seal<'_> {
    /// Seals the overlay.
    ///
    /// # Errors
    /// The guest did not run the script to its end, or a step of it failed: the message has the
    /// step's words and the path of the serial log.
    pub async fn run(&self, events: &Events, cancel: &CancellationToken) -> Result<Report> {
        fs::create_dir_all(self.dir)?;
        let path = |name: &str| self.dir.join(name);
        let (kernel, initrd, script) = (path("vmlinuz"), path("initrd.img"), path("seal.raw"));
        fs::write(&kernel, &self.bootable.kernel)?;
        fs::write(&initrd, &self.bootable.initrd)?;
        let mut file = fs::File::create(&script)?;
        file.write_all(&script::disk(self.values))?;
        let config = self.config(&kernel, &initrd, &script)?;
        let mut machine = Machine::launch(config, self.dir, self.runtime, events, cancel).await?;
        let ended = machine.wait_exit(DEADLINE, cancel).await;
        machine.kill().await?;
        let report = Report::read(machine.serial_log())?;
        // What a failed step said is the cause, also of a guest that never ended.
        if let Some(reason) = report.failures.first() {
            let mut error = Error::failed("the image could not be sealed").cause(reason);
            for more in &report.failures[1..] {
                error = error.cause(more);
            }
            return Err(error.detail(format!("serial log: {}", machine.serial_log().display())));
        }
        ended.map_err(|e| e.context("the image could not be sealed"))?;
        if !report.complete {
            let mut error = Error::failed("the image could not be sealed")
                .cause(match report.steps.last() {
                    Some(step) => format!("the seal's script ended in its step `{step}`"),
                    None => "the seal's script did not start: the image's initrd did not hand over to the shell that it was told to start".to_owned(),
                });
            for line in crate::machine::serial::last_lines(machine.serial_log(), 15) {
                error = error.detail(format!("  | {line}"));
            }
            return Err(error.detail(format!("serial log: {}", machine.serial_log().display())));
        }
        for file in [kernel, initrd, script] {
            fs::remove_file(file)?;
        }
        Ok(report)
    }

    fn config(&self, kernel: &Path, initrd: &Path, script: &Path) -> Result<Config> {
        let disk = |path: &Path, format, read_only, serial: &str| Disk {
            path: path.to_owned(),
            format,
            read_only,
            below: None,
            serial: serial.to_owned(),
        };
        let append = append(&self.bootable.cmdline, self.arch.console());
        if append.len() >= MAX_CMDLINE {
            return Err(Error::failed("the image cannot be sealed")
                .cause(format!("its kernel command line has {} bytes; with the seal's words the kernel would cut it", self.bootable.cmdline.len())));
        }
        Ok(Config {
            name: "seal".to_owned(),
            uuid: crate::host::new_uuid()?,
            arch: hardware::arch(self.arch),
            cpus: self.cpus,
            memory: MEMORY,
            // The kernel of an arm64 guest learns from UEFI which hardware there is.
            firmware: match self.arch {
                Arch::Amd64 => Firmware::Bios,
                Arch::Arm64 => Firmware::Uefi,
            },
            tpm: false,
            accelerator: self.accelerator,
            disks: vec![
                disk(self.overlay, DiskFormat::Qcow2, false, "devbox-disk"),
                disk(script, DiskFormat::Raw, true, SERIAL),
            ],
            data: vec![],
            seed: None,
            installer: None,
            kernel: Some(DirectKernel {
                kernel: kernel.to_owned(),
                initrd: (!self.bootable.initrd.is_empty()).then(|| initrd.to_owned()),
                append,
            }),
            network: Network::None,
            // The real time: it must not be before the epoch.
            rtc: None,
            lifetime: Lifetime::WithParent,
            agent: false,
            spare_slots: 0,
            card: None,
            folders: vec![],
            owner: None,
            memory_file: None,
            incoming: None,
        })
    }
}

/// The kernel's command line for the seal: the entry's own, then ours, since the last word wins.
/// The last `console` is the one that the shell writes to. Without `no_timer_check` (the kernel's
/// kernel-parameters.txt) a guest that is emulated on a busy host misses its first timer interrupts
/// now and then, and panics. `overlayroot` (its initramfs script, "configs") would put the root below a
/// filesystem in memory, and all that the seal writes with it.
fn append(cmdline: &str, console: &str) -> String {
    let own: Vec<&str> = cmdline
        .split_whitespace()
        .take_while(|word| *word != "--")
        .filter(|word| !word.starts_with("init=") && !word.starts_with("rdinit="))
        .collect();
    format!(
        "{} rw overlayroot=disabled quiet no_timer_check console={console},115200 panic=-1 init=/bin/sh -- -c \"{FIND}\"",
        own.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entrys_words_come_first_and_its_init_is_left_out() {
        let line = append("root=UUID=x ro init=/sbin/other console=tty0 -- single", "ttyS0");
        assert!(line.starts_with(
            "root=UUID=x ro console=tty0 rw overlayroot=disabled quiet no_timer_check console=ttyS0,115200 "
        ));
        assert!(line.contains(" init=/bin/sh -- -c \"mount -t proc"));
        assert_eq!(line.matches('"').count(), 2, "the kernel takes quotes apart by pairs");
        assert_eq!(line.matches("init=").count(), 1);
        assert!(FIND.contains(&format!("x{SERIAL}")));
    }
}
