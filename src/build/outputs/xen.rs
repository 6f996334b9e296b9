//! What Xen starts a machine of the raw disk with: `xl create FILE` (xl.cfg(5)).

use super::{Beside, Work};
use crate::spec::Firmware;

/// The configuration for the disk of this name.
pub(super) fn config(work: &Work, disk: &str) -> Beside {
    let config = work.image.config();
    let (cpus, memory) = (work.machine.cpus, work.machine.memory >> 20);
    let firmware = match work.machine.firmware {
        Firmware::Bios => "",
        Firmware::Uefi | Firmware::SecureBoot => "firmware = \"ovmf\"\n",
    };
    let text = format!(
        "# {name}:{version}. Start it in the folder of the disk: xl create THIS-FILE\n\
         # The machine writes to the disk: start a copy. Add a cloud-init seed as a second disk.\n\
         name = \"{name}\"\n\
         type = \"hvm\"\n\
         {firmware}\
         vcpus = {cpus}\n\
         memory = {memory}\n\
         disk = [ \"format=raw, vdev=xvda, access=rw, target={disk}\" ]\n\
         vif = [ \"\" ]\n\
         serial = \"pty\"\n\
         on_reboot = \"restart\"\n\
         on_crash = \"destroy\"\n",
        name = config.name,
        version = config.version,
    );
    Beside { suffix: ".xen.cfg", bytes: text.into_bytes() }
}
