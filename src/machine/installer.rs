//! What only a machine has in which an installer runs: media, a keyboard, a screen for a person.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::board::Board;
use crate::host::Arch;

/// Most CDs: as many as the disk controller of a PC board has ports.
pub const MOST_CDS: usize = 6;

/// The parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installer {
    /// Images of CDs; the machine boots from the first one. At most [`MOST_CDS`].
    pub cds: Vec<PathBuf>,
    /// The image of a floppy disk; boards of PCs alone have a drive for it.
    pub floppy: Option<PathBuf>,
    /// Entries of the firmware configuration device, each with the file that has its content.
    pub fw_cfg: Vec<(String, PathBuf)>,
    /// Shows the screen by VNC on a free port of 127.0.0.1.
    pub vnc: bool,
}

/// The node of a CD.
#[must_use]
pub fn cd_node(n: usize) -> String {
    format!("cd{n}")
}

/// The node of the floppy disk.
pub const FLOPPY_NODE: &str = "floppy";

impl Installer {
    /// The block nodes, and then the devices.
    pub(super) fn devices(&self, arch: Arch, boots: bool) -> (Vec<Value>, Vec<Value>) {
        let raw = |node: &str, path: &PathBuf| {
            json!({
                "driver": "raw", "node-name": node, "read-only": true,
                "file": {"driver": "file", "filename": path.to_string_lossy()},
            })
        };
        let (mut nodes, mut devices) = (vec![], vec![]);
        let board = Board::of(arch);
        if !board.ide && !self.cds.is_empty() {
            devices.push(json!({"driver": "virtio-scsi-pci", "id": "scsi0"}));
        }
        for (n, path) in self.cds.iter().enumerate() {
            let node = cd_node(n);
            nodes.push(raw(&node, path));
            let (driver, bus) = match board.ide {
                true => ("ide-cd", format!("ide.{n}")),
                false => ("scsi-cd", "scsi0.0".to_owned()),
            };
            let id = format!("{node}-dev");
            let mut device = json!({"driver": driver, "id": id, "drive": node, "bus": bus});
            if boots && n == 0 {
                device["bootindex"] = json!(0);
            }
            devices.push(device);
        }
        if let Some(path) = &self.floppy {
            nodes.push(raw(FLOPPY_NODE, path));
            devices.push(json!({"driver": "isa-fdc", "id": "fdc0"}));
            devices.push(json!({
                "driver": "floppy", "id": "floppy-dev", "drive": FLOPPY_NODE, "bus": "fdc0.0", "unit": 0,
            }));
        }
        // A PC has a keyboard always.
        if !board.ide {
            devices.push(json!({"driver": "qemu-xhci", "id": "usb0"}));
            devices.push(json!({"driver": "usb-kbd", "id": "keyboard0", "bus": "usb0.0"}));
        }
        (nodes, devices)
    }
}
