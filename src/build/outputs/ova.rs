//! An OVA: a description of the machine (OVF), the digests of what is in it, and the disk as VMDK, in
//! a tar archive in this order.
//!
//! Sources: DMTF DSP0243 1.1.1 ("Open Virtualization Format Specification"), sections 5 "OVF Package"
//! and 8 "Virtual Hardware Description"; DMTF CIM schema, `CIM_ResourceAllocationSettingData`; VMware
//! "ovf" extensions as its own tools export them (`vmw:Config`).

use std::io::Write as _;
use std::path::Path;

use super::archive::{Archive, Form};
use super::{Work, stream};
use crate::error::{Error, Result};
use crate::image::container::source::Source;
use crate::spec::Firmware;

/// Bytes that a file in a ustar archive can have, and one more.
const USTAR: u64 = 8 << 30;

/// Writes the archive with the VMDK at `vmdk` to `out`.
///
/// # Errors
/// The VMDK is too large for the archive's form.
pub(super) fn write(work: &Work, vmdk: &Path, out: &Path) -> Result<()> {
    let base = work.base();
    let (digest, size) = stream::digest(vmdk, &work.cancel)?;
    if size >= USTAR {
        return Err(Error::failed(format!("an OVA cannot hold a VMDK of {} GiB", size >> 30))
            .cause("the archive's form, which is prescribed, ends at 8 GiB")
            .hint("Use the output `vmdk` in place of `ova`, or make the image smaller."));
    }
    let disk = format!("{base}-disk1.vmdk");
    let ovf = envelope(work, &disk, size);
    let manifest = format!(
        "SHA256({base}.ovf)= {}\nSHA256({disk})= {}\n",
        crate::digest::FileDigest::of(ovf.as_bytes()).hex(),
        digest.hex()
    );
    let mut archive = Archive::new(stream::create(out)?, Form::Ustar, work.image.config().epoch);
    archive.bytes(&format!("{base}.ovf"), ovf.as_bytes())?;
    archive.bytes(&format!("{base}.mf"), manifest.as_bytes())?;
    archive.file(&disk, &Source::open(vmdk)?, &work.cancel)?;
    archive.finish()?.flush()?;
    Ok(())
}

/// The description. No value in it needs escaping: names are letters, digits, `-` and `.`.
fn envelope(work: &Work, disk: &str, size: u64) -> String {
    let config = work.image.config();
    let (cpus, memory) = (work.machine.cpus, work.machine.memory >> 20);
    let firmware = match work.machine.firmware {
        Firmware::Bios => "",
        Firmware::Uefi => {
            "\n      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>"
        }
        Firmware::SecureBoot => {
            "\n      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\
             \n      <vmw:Config ovf:required=\"false\" vmw:key=\"bootOptions.efiSecureBootEnabled\" vmw:value=\"true\"/>"
        }
    };
    TEMPLATE
        .replace("@DISK@", disk)
        .replace("@SIZE@", &size.to_string())
        .replace("@CAPACITY@", &config.disk_size.to_string())
        .replace("@NAME@", &config.name)
        .replace("@VERSION@", &config.version)
        .replace("@CPUS@", &cpus.to_string())
        .replace("@MEMORY@", &memory.to_string())
        .replace("@FIRMWARE@", firmware)
}

/// Hardware of version 13 (ESXi 6.5); 101 is "Linux 64-Bit" of CIM's list of systems. Disk and card are
/// VMware's own, which kernels for clouds drive too: Debian's has no driver for AHCI or an e1000.
const TEMPLATE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
    xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href="@DISK@" ovf:size="@SIZE@"/>
  </References>
  <DiskSection>
    <Info>Disks of the machine</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="@CAPACITY@" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks of the machine</Info>
    <Network ovf:name="VM Network">
      <Description>The network that the machine is in</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="@NAME@">
    <Info>A machine of the box @NAME@:@VERSION@</Info>
    <Name>@NAME@</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest">
      <Info>The system in it</Info>
      <Description>Linux, 64 bits</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware of the machine</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>@NAME@</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:Description>Processors</rasd:Description>
        <rasd:ElementName>@CPUS@ virtual CPUs</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>@CPUS@</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory</rasd:Description>
        <rasd:ElementName>@MEMORY@ MB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>@MEMORY@</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SCSI controller</rasd:Description>
        <rasd:ElementName>SCSI controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>1</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>VM Network</rasd:Connection>
        <rasd:ElementName>Network adapter 1</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>@FIRMWARE@
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#;
