//! A box of Vagrant's provider libvirt: `metadata.json`, a Vagrantfile, the disk, and a second disk
//! with the seed by which cloud-init makes the account that Vagrant enters.
//!
//! The sealed disk has neither that account nor host keys, and gets no more of them than in any other
//! output. (vagrant-libvirt's documentation, "Box Format", versions 1 and 2; Vagrant's documentation,
//! "Creating a Base Box".)

use std::io::Write as _;
use std::path::Path;

use fs_err as fs;
use serde_json::json;

use super::archive::{Archive, Form};
use super::convert::{self, Target};
use super::partial::Partial;
use super::{Work, stream};
use crate::error::Result;
use crate::guest::seed::Seed;
use crate::image::container::Format;
use crate::image::container::source::Source;

/// Vagrant's account, and the public half of the key that everybody has: Vagrant puts another one in
/// its place when a machine has come up (Vagrant's repository, `keys/vagrant.pub`).
const USER: &str = "vagrant";
const KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key";

const VAGRANTFILE: &str = r#"# Written by devbox. The second disk holds the cloud-init seed that makes the account `vagrant`.
Vagrant.configure("2") do |config|
  # The image has what its spec names; NFS and rsync may not be in it.
  config.vm.synced_folder ".", "/vagrant", disabled: true
end
"#;

/// The seed as a disk, in a file that goes when this is dropped.
pub(super) async fn seed(work: &Work, name: &str) -> Result<Partial> {
    let config = work.image.config();
    let iso = Partial::beside(&work.dir, &format!("{name}.seed.iso"));
    let seed = Seed {
        instance_id: format!("i-{}", &config.box1.hex()[..16]),
        hostname: &config.name,
        user: USER,
        authorized_key: Some(KEY),
        host_key: None,
        mac: None,
    };
    seed.write(iso.path())?;
    let size = fs::metadata(iso.path())?.len();
    let disk = Partial::beside(&work.dir, &format!("{name}.seed.img"));
    let (from, to) = ((iso.path(), Format::Raw), (disk.path(), Target::Qcow2));
    convert::run(from, to, size, &work.identity(), work.policy, &work.cancel).await?;
    Ok(disk)
}

/// Writes the box with this seed to `out`.
pub(super) fn write(work: &Work, seed: &Path, out: &Path) -> Result<()> {
    let config = work.image.config();
    let metadata = json!({
        "provider": "libvirt",
        "architecture": config.arch,
        // For readers of version 1, which know one disk; in GiB.
        "format": "qcow2",
        "virtual_size": config.disk_size.div_ceil(1 << 30),
        "disks": [{"path": "box.img"}, {"path": "seed.img", "name": "seed"}],
    });
    let to = stream::gzip(stream::create(out)?);
    let mut archive = Archive::new(to, Form::Gnu, config.epoch);
    archive.bytes("metadata.json", format!("{metadata:#}\n").as_bytes())?;
    archive.bytes("Vagrantfile", VAGRANTFILE.as_bytes())?;
    archive.file("box.img", &Source::open(work.image.disk_path())?, &work.cancel)?;
    archive.bytes("seed.img", &fs::read(seed)?)?;
    archive.finish()?.finish()?.flush()?;
    Ok(())
}
