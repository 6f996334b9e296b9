//! Devices that come and go while the machine runs, each in a spare slot of its own: a PCI Express root
//! port that the command line makes (see [`super::argv`]).
//! (QEMU's documentation, "PCI EXPRESS GUIDELINES", hot-plug.)

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config::SPARE_SLOTS;
use super::qmp::{COMMAND_TIMEOUT, Failure, Qmp};
use crate::error::{Error, Result};

/// The slot of the private network's card, and of nothing else: a machine that goes on from saved memory
/// has the card in its command line, in the slot that the memory knows it in.
pub const NETWORK_SLOT: u8 = SPARE_SLOTS - 1;

/// A guest lets go of a device when its kernel has; half a second under emulation.
const UNPLUG_WAIT: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(20);

/// The bus of slot `n`, as a device's `bus` names it.
#[must_use]
pub fn bus(slot: u8) -> String {
    format!("spare{slot}")
}

/// Whether a device is in `slot`; one that the guest has not let go of yet still is.
///
/// # Errors
/// The machine has no such slot, or QEMU does not answer.
pub async fn occupied(qmp: &Qmp, slot: u8) -> Result<bool, Failure> {
    let path = format!("/machine/peripheral/{0}/{0}", bus(slot));
    let properties = qmp.raw("qom-list", json!({"path": path}), COMMAND_TIMEOUT).await?;
    let children = properties.as_array().into_iter().flatten();
    Ok(children.filter_map(|p| p["name"].as_str()).any(|name| name.starts_with("child[")))
}

/// Puts a device into the first free slot and says which it is; `device` is what `device_add` takes,
/// without its `bus`. Never takes [`NETWORK_SLOT`].
///
/// # Errors
/// All slots are taken, or QEMU refuses the device.
pub async fn plug(qmp: &Qmp, device: &Value) -> Result<u8> {
    for slot in 0..NETWORK_SLOT {
        match occupied(qmp, slot).await {
            Ok(true) => {}
            Ok(false) => match plug_into(qmp, slot, device).await {
                Ok(()) => return Ok(slot),
                // Somebody else was faster.
                Err(_) if occupied(qmp, slot).await == Ok(true) => {}
                Err(e) => return Err(refused(device, &e)),
            },
            // A machine that was started by an older devbox has fewer.
            Err(Failure::Rejected { .. }) => break,
            Err(e) => return Err(refused(device, &e)),
        }
    }
    Err(Error::failed("the machine has no free slot for another device")
        .hint("Restart it with `devbox reload`; if that does not help, give it fewer."))
}

/// Puts a device into `slot`.
///
/// # Errors
/// The slot is taken or is not there, or QEMU refuses the device.
pub async fn plug_into(qmp: &Qmp, slot: u8, device: &Value) -> Result<(), Failure> {
    let mut device = device.clone();
    device["bus"] = json!(bus(slot));
    qmp.raw("device_add", device, COMMAND_TIMEOUT).await.map(|_| ())
}

/// Takes the device with this id away, and returns when the guest has let go of it. One that is not there
/// is no fault.
///
/// # Errors
/// The guest holds it, or QEMU does not answer.
pub async fn unplug(qmp: &Qmp, id: &str) -> Result<()> {
    let what = || format!("cannot take the device `{id}` away");
    let start = Instant::now();
    loop {
        // Asked again and again: an early request is lost on a guest that has not begun to listen.
        let removed = qmp.raw("device_del", json!({"id": id}), COMMAND_TIMEOUT).await;
        match removed {
            Err(Failure::Rejected { class, .. }) if class == "DeviceNotFound" => return Ok(()),
            // "Device is already in the process of unplug".
            Ok(_) | Err(Failure::Rejected { .. }) => {}
            Err(e) => return Err(e.of(what())),
        }
        if start.elapsed() > UNPLUG_WAIT {
            return Err(Error::failed(what())
                .cause(format!("the guest holds it since {} s", UNPLUG_WAIT.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn refused(device: &Value, failure: &Failure) -> Error {
    let id = device["id"].as_str().unwrap_or("?");
    failure.of(format!("cannot give the machine the device `{id}`"))
}
