//! A containerDisk of KubeVirt: an OCI image whose one layer holds the disk, as a tar archive of an
//! image layout, and the manifest of a machine beside it.
//!
//! Sources: KubeVirt user guide, "containerDisk" (one file below `/disk`, owner 107:107); OCI Image
//! Format Specification 1.1, `image-layout.md`, `manifest.md`, `config.md`, `layer.md`.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use tar::EntryType;

use super::archive::{Archive, BLOCK, Form};
use super::stream::{self, Hashed};
use super::{Beside, Work};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::image::container::source::Source;
use crate::spec::Firmware;

/// The account that runs QEMU in KubeVirt's pods.
const QEMU: u64 = 107;
/// Where KubeVirt looks for the disk; the only file there.
const DISK: &str = "disk/disk.qcow2";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Writes the archive to `out`.
pub(super) fn write(work: &Work, out: &Path) -> Result<()> {
    let config = work.image.config();
    let mut archive = Archive::new(stream::create(out)?, Form::Gnu, config.epoch);
    archive.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let (layer, inside) = layer(work, &mut archive)?;
    let image = json!({
        "architecture": config.arch,
        "os": "linux",
        "created": created(config.epoch)?,
        "config": {"Labels": labels(work)},
        "rootfs": {"type": "layers", "diff_ids": [inside]},
        "history": [{"created": created(config.epoch)?, "created_by": "devbox build"}],
    });
    let image = blob(&mut archive, CONFIG, &image)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": image,
        "layers": [layer],
        "annotations": labels(work),
    });
    let mut manifest = blob(&mut archive, MANIFEST, &manifest)?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": config.version});
    manifest["platform"] = json!({"architecture": config.arch, "os": "linux"});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    archive.bytes("index.json", index.to_string().as_bytes())?;
    archive.finish()?.flush()?;
    Ok(())
}

/// Adds the layer, whose name and size are known when it is written. Returns its descriptor, and the
/// digest of what it is before compression.
fn layer(
    work: &Work,
    archive: &mut Archive<std::io::BufWriter<fs_err::File>>,
) -> Result<(Value, FileDigest)> {
    let start = archive.inner().stream_position()?;
    archive.inner().write_all(&[0; BLOCK])?;
    let zipped = stream::gzip(Hashed::new(archive.inner()));
    let mut inner =
        Archive::new(Hashed::new(zipped), Form::Gnu, work.image.config().epoch).owned_by(QEMU);
    inner.folder("disk")?;
    inner.file(DISK, &Source::open(work.image.disk_path())?, &work.cancel)?;
    let (zipped, inside, _) = inner.finish()?.finish();
    let (_, digest, size) = zipped.finish()?.finish();
    archive.pad(size)?;
    let header = archive.header(&path(&digest), EntryType::Regular, size)?;
    let to = archive.inner();
    let end = to.stream_position()?;
    to.seek(SeekFrom::Start(start))?;
    to.write_all(header.as_bytes())?;
    to.seek(SeekFrom::Start(end))?;
    Ok((json!({"mediaType": LAYER, "digest": digest, "size": size}), inside))
}

/// Adds a document, and returns its descriptor.
fn blob<W: std::io::Write>(archive: &mut Archive<W>, kind: &str, value: &Value) -> Result<Value> {
    let text = value.to_string();
    let digest = FileDigest::of(text.as_bytes());
    archive.bytes(&path(&digest), text.as_bytes())?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": text.len()}))
}

fn path(digest: &FileDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn labels(work: &Work) -> Value {
    let config = work.image.config();
    json!({
        "org.opencontainers.image.title": config.name,
        "org.opencontainers.image.version": config.version,
        "dev.devbox.box1": config.box1,
        "dev.devbox.bytes1": config.bytes1,
        "dev.devbox.spec1": config.spec1,
    })
}

/// The box's date: that of the build would make each one another image.
fn created(epoch: i64) -> Result<String> {
    jiff::Timestamp::from_second(epoch)
        .map(|time| time.to_string())
        .map_err(|e| Error::failed("the box has an impossible date").cause(e))
}

/// The manifest of a virtual machine that runs the image.
pub(super) fn machine(work: &Work, archive: &str) -> Beside {
    let config = work.image.config();
    let bootloader = match work.machine.firmware {
        Firmware::Bios => "bios: {}",
        Firmware::Uefi => "efi: {secureBoot: false}",
        Firmware::SecureBoot => "efi: {secureBoot: true}",
    };
    let features = match work.machine.firmware {
        Firmware::SecureBoot => "\n        features:\n          smm: {enabled: true}",
        _ => "",
    };
    let text = MACHINE
        .replace("@ARCHIVE@", archive)
        .replace("@NAME@", &config.name)
        .replace("@VERSION@", &config.version)
        .replace("@ARCH@", &config.arch)
        .replace("@CPUS@", &work.machine.cpus.to_string())
        .replace("@MEMORY@", &(work.machine.memory >> 20).to_string())
        .replace("@BOOTLOADER@", bootloader)
        .replace("@FEATURES@", features);
    Beside { suffix: ".kubevirt.yaml", bytes: text.into_bytes() }
}

const MACHINE: &str = "\
# Bring the image to a registry that the cluster pulls from, and name it below:
#   skopeo copy oci-archive:@ARCHIVE@:@VERSION@ docker://registry.example/@NAME@:@VERSION@
# Then: kubectl create -f THIS-FILE
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: @NAME@
  labels:
    app.kubernetes.io/name: @NAME@
    app.kubernetes.io/version: \"@VERSION@\"
spec:
  runStrategy: Always
  template:
    metadata:
      labels:
        kubevirt.io/domain: @NAME@
    spec:
      architecture: @ARCH@
      domain:
        cpu: {cores: @CPUS@}
        memory: {guest: @MEMORY@Mi}
        firmware:
          bootloader:
            @BOOTLOADER@@FEATURES@
        devices:
          rng: {}
          disks:
            - name: root
              disk: {bus: virtio}
            - name: seed
              disk: {bus: virtio}
          interfaces:
            - name: default
              masquerade: {}
      networks:
        - name: default
          pod: {}
      volumes:
        - name: root
          containerDisk:
            image: registry.example/@NAME@:@VERSION@
        # What belongs to one instance: accounts, keys.
        - name: seed
          cloudInitNoCloud:
            userData: |
              #cloud-config
              ssh_authorized_keys: []
";
