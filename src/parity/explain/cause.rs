//! The causes that differences are grouped by, in the order of their weight.

use serde::Serialize;

/// How much a group weighs for somebody who has to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What starts, what may become root, who may come in.
    Error,
    /// What is installed and how it is set up.
    Warning,
    /// What seldom matters.
    Note,
}

/// Why things differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Architecture or firmware.
    Platform,
    /// The kernel, its modules, and what is made from it.
    Kernel,
    /// A boot entry's kernel command line, and the settings it is made from.
    CommandLine,
    /// Boot code, the ESP, a boot loader's files.
    BootLoader,
    /// The initial RAM disk.
    Initramfs,
    /// Setuid and setgid bits.
    Setuid,
    /// File capabilities.
    Capabilities,
    /// Libraries that every program loads first.
    Preload,
    /// Files that everybody may write to.
    WorldWritable,
    /// Owner and group of a file.
    Ownership,
    /// A declared difference that does not hold.
    Policy,
    /// The same SSH host keys on both sides.
    SharedHostKeys,
    /// Users and groups.
    Accounts,
    /// Who may become somebody else.
    Sudo,
    /// The SSH server, and keys that may log in.
    Ssh,
    /// PAM, polkit, name services.
    Authentication,
    /// Certificate authorities.
    Certificates,
    /// Packages, and what comes from their change.
    Packages,
    /// Where packages come from, and whose signature counts.
    PackageSources,
    /// A file that is not as its unchanged package brought it.
    PackageModified,
    /// What starts at boot.
    ServicesEnabled,
    /// Units and jobs themselves.
    ServiceUnits,
    /// Settings of the kernel and its modules.
    KernelSettings,
    /// Packet filters.
    Firewall,
    /// Anything else below `/etc`.
    Configuration,
    /// Programs and libraries of no package.
    Programs,
    /// Access control lists.
    AccessLists,
    /// Modes, attributes and flags alone.
    Metadata,
    /// What every running system writes.
    State,
    /// Caches and indexes that are made from other files.
    Derived,
    /// Anything else.
    Data,
    /// Modification times alone.
    Times,
    /// Which names are one file.
    HardLinks,
    /// Partitions, volumes, filesystem identities.
    Layout,
    /// Bytes of which no more is known.
    Bytes,
    /// What the policy declares.
    Declared,
}

/// What reports say of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The stable id of the group.
    pub id: &'static str,
    /// 1 (most important) to 11.
    pub rank: u8,
    /// One or two words for a line's head.
    pub title: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
}

/// Every cause, by rank.
pub const ALL: [Cause; 36] = [
    Cause::Platform,
    Cause::Kernel,
    Cause::CommandLine,
    Cause::BootLoader,
    Cause::Initramfs,
    Cause::Setuid,
    Cause::Capabilities,
    Cause::Preload,
    Cause::WorldWritable,
    Cause::Ownership,
    Cause::Policy,
    Cause::SharedHostKeys,
    Cause::Accounts,
    Cause::Sudo,
    Cause::Ssh,
    Cause::Authentication,
    Cause::Certificates,
    Cause::Packages,
    Cause::PackageSources,
    Cause::PackageModified,
    Cause::ServicesEnabled,
    Cause::ServiceUnits,
    Cause::KernelSettings,
    Cause::Firewall,
    Cause::Configuration,
    Cause::Programs,
    Cause::AccessLists,
    Cause::Metadata,
    Cause::State,
    Cause::Derived,
    Cause::Data,
    Cause::Times,
    Cause::HardLinks,
    Cause::Layout,
    Cause::Bytes,
    Cause::Declared,
];

impl Cause {
    /// What reports say of it.
    #[must_use]
    pub fn about(self) -> About {
        let (id, rank, title, meaning) = match self {
            Cause::Platform => {
                ("boot.platform", 1, "platform", "The architecture or the firmware differs.")
            }
            Cause::Kernel => ("boot.kernel", 1, "kernel", "Another kernel starts."),
            Cause::CommandLine => {
                ("boot.command-line", 1, "command line", "The kernel gets other words.")
            }
            Cause::BootLoader => {
                ("boot.loader", 1, "boot loader", "What starts the kernel differs.")
            }
            Cause::Initramfs => ("boot.initramfs", 1, "initramfs", "The initial RAM disk differs."),
            Cause::Setuid => (
                "privilege.setuid",
                2,
                "setuid",
                "A program runs with its owner's rights on one side.",
            ),
            Cause::Capabilities => (
                "privilege.capabilities",
                2,
                "capabilities",
                "A program has rights of root on one side.",
            ),
            Cause::Preload => {
                ("privilege.preload", 2, "preload", "Every program loads another library first.")
            }
            Cause::WorldWritable => (
                "privilege.world-writable",
                2,
                "world-writable",
                "Everybody may write to it on one side.",
            ),
            Cause::Ownership => ("privilege.owner", 2, "owner", "Files belong to others."),
            Cause::Policy => (
                "policy.broken",
                3,
                "policy",
                "A difference is declared that is not there, not as declared, or not any more.",
            ),
            Cause::SharedHostKeys => (
                "access.shared-host-keys",
                3,
                "host keys",
                "Both sides hold the same private SSH host keys: whoever has one image can pose as every machine of it.",
            ),
            Cause::Accounts => ("access.accounts", 3, "accounts", "Users or groups differ."),
            Cause::Sudo => ("access.sudo", 3, "sudo", "Others may become root."),
            Cause::Ssh => ("access.ssh", 3, "ssh", "Others may log in, or in other ways."),
            Cause::Authentication => (
                "access.authentication",
                3,
                "authentication",
                "Who is let in is decided differently.",
            ),
            Cause::Certificates => (
                "access.certificates",
                3,
                "certificates",
                "Other certificate authorities are trusted.",
            ),
            Cause::Packages => ("packages.changed", 4, "packages", "Other packages are installed."),
            Cause::PackageSources => (
                "packages.sources",
                4,
                "package sources",
                "Packages come from elsewhere, or other signatures count.",
            ),
            Cause::PackageModified => (
                "files.package-modified",
                5,
                "modified",
                "A file is not as its package brought it.",
            ),
            Cause::ServicesEnabled => {
                ("services.enabled", 6, "services", "Other services start at boot.")
            }
            Cause::ServiceUnits => {
                ("services.units", 6, "units", "Services or jobs are defined differently.")
            }
            Cause::KernelSettings => (
                "services.kernel-settings",
                6,
                "kernel settings",
                "The kernel or its modules are set up differently.",
            ),
            Cause::Firewall => {
                ("services.firewall", 6, "firewall", "Packets are filtered differently.")
            }
            Cause::Configuration => {
                ("config.etc", 7, "configuration", "Files below `/etc` differ.")
            }
            Cause::Programs => {
                ("files.programs", 8, "programs", "Programs or libraries of no package differ.")
            }
            Cause::AccessLists => {
                ("metadata.acl", 9, "access lists", "Access control lists differ.")
            }
            Cause::Metadata => {
                ("metadata.changed", 9, "metadata", "Modes, attributes or flags alone differ.")
            }
            Cause::State => (
                "state.instance",
                10,
                "instance state",
                "What a running system writes; a sealed image has none of it.",
            ),
            Cause::Derived => {
                ("data.derived", 10, "caches", "Caches and indexes that are made from other files.")
            }
            Cause::Data => ("data.other", 10, "data", "Other files differ."),
            Cause::Times => ("times.changed", 11, "times", "Modification times alone differ."),
            Cause::HardLinks => {
                ("layout.hard-links", 11, "hard links", "Other names are one file.")
            }
            Cause::Declared => {
                ("policy.declared", 11, "declared", "Differences that the policy declares.")
            }
            Cause::Layout => (
                "layout.disk",
                11,
                "layout",
                "Partitions, volumes or filesystems have other identities.",
            ),
            Cause::Bytes => {
                ("layout.bytes", 11, "bytes", "Bytes differ of which no more is known.")
            }
        };
        About { id, rank, title, meaning }
    }

    /// Ranks 1 to 3 are errors, 4 to 8 warnings, the rest notes.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self.about().rank {
            0..=3 => Severity::Error,
            4..=8 => Severity::Warning,
            _ => Severity::Note,
        }
    }

    /// The cause of an id.
    #[must_use]
    pub fn by_id(id: &str) -> Option<Self> {
        ALL.into_iter().find(|cause| cause.about().id == id)
    }
}

impl Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.about().id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_there_once_with_an_id_of_its_own_and_by_rank() {
        let mut ids: Vec<_> = ALL.iter().map(|cause| cause.about().id).collect();
        assert!(ALL.is_sorted() && ALL.is_sorted_by_key(|cause| cause.about().rank));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
        assert_eq!(Cause::by_id("boot.kernel"), Some(Cause::Kernel));
        assert_eq!(Cause::by_id("nothing"), None);
    }
}
