//! Forwards from ports of the host into the guest, bound by QEMU itself.
//!
//! To look whether a port is free and then to use it is a race. So QEMU is asked to bind it, and
//! when it cannot, the next port is tried.

use std::net::Ipv4Addr;

use super::config::{Forward, Protocol};
use super::listener;
use super::qmp::Qmp;
use crate::error::{Error, Result};
use crate::event::Events;

/// How many ports above the wished one are tried before any free port is taken.
const NEIGHBOURS: u16 = 50;

/// A forward as it really is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BoundForward {
    /// Port in the guest.
    pub guest: u16,
    /// Port on the host.
    pub host: u16,
    /// The port that was wished for, where one was.
    pub wished: Option<u16>,
    /// Address on the host.
    pub host_ip: Ipv4Addr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Binds all forwards. A corrected one is reported as a warning.
///
/// # Errors
/// A port is taken and may not be corrected: names the port and, where the host shows it, the owner.
pub async fn bind(qmp: &Qmp, forwards: &[Forward], events: &Events) -> Result<Vec<BoundForward>> {
    let mut bound = Vec::new();
    for forward in forwards {
        let host = bind_one(qmp, forward).await?;
        if let Some(wished) = forward.host.filter(|wished| *wished != host) {
            let owner = listener::owner(forward.protocol, wished)
                .map_or(String::new(), |owner| format!(" (used by {owner})"));
            events.warn(format!(
                "port {wished}{owner} is in use; guest port {} is at {}:{host} instead",
                forward.guest, forward.host_ip
            ));
        }
        bound.push(BoundForward {
            guest: forward.guest,
            host,
            wished: forward.host,
            host_ip: forward.host_ip,
            protocol: forward.protocol,
        });
    }
    Ok(bound)
}

/// Binds one more forward of a machine that runs, at exactly its port.
///
/// # Errors
/// The port is taken, or QEMU does not answer.
pub async fn add(qmp: &Qmp, forward: &BoundForward) -> Result<()> {
    let wish = Forward {
        guest: forward.guest,
        host: Some(forward.host),
        host_ip: forward.host_ip,
        protocol: forward.protocol,
        auto_correct: false,
    };
    match try_bind(qmp, &wish, forward.host).await? {
        None => Ok(()),
        Some(refusal) => {
            Err(taken(&wish, forward.host, &refusal).hint("Choose another port, or end its user."))
        }
    }
}

/// Takes a forward from a machine that runs; connections through it go on. False if QEMU had none
/// at this port.
///
/// # Errors
/// QEMU does not answer, or answers something else.
pub async fn remove(qmp: &Qmp, forward: &BoundForward) -> Result<bool> {
    let (protocol, ip, host) = (forward.protocol.as_str(), forward.host_ip, forward.host);
    let what = || format!("cannot remove the forward of port {host} of {ip}");
    let answer = qmp.human(&format!("hostfwd_remove net0 {protocol}:{ip}:{host}")).await;
    let answer = answer.map_err(|e| e.of(what()))?;
    match answer.trim() {
        text if text.ends_with("removed") => Ok(true),
        text if text.ends_with("not found") => Ok(false),
        text => Err(Error::failed(what()).cause(text)),
    }
}

async fn bind_one(qmp: &Qmp, forward: &Forward) -> Result<u16> {
    let Some(wished) = forward.host else { return bind_any(qmp, forward).await };
    let refusal = match try_bind(qmp, forward, wished).await? {
        None => return Ok(wished),
        Some(refusal) => refusal,
    };
    if !forward.auto_correct {
        return Err(taken(forward, wished, &refusal).hint(
            "Choose another `host` port in `[[machine.ports]]`, set `auto_correct = true` there, or end its user.",
        ));
    }
    for host in (wished..=wished.saturating_add(NEIGHBOURS)).skip(1) {
        if try_bind(qmp, forward, host).await?.is_none() {
            return Ok(host);
        }
    }
    bind_any(qmp, forward).await
}

/// The kernel chooses: port 0, then QEMU is asked which one it became.
async fn bind_any(qmp: &Qmp, forward: &Forward) -> Result<u16> {
    let before = bound_ports(qmp, forward).await?;
    if let Some(refusal) = try_bind(qmp, forward, 0).await? {
        return Err(Error::failed(format!(
            "cannot forward a port of {} to the guest's port {}",
            forward.host_ip, forward.guest
        ))
        .cause(refusal));
    }
    let after = bound_ports(qmp, forward).await?;
    after.into_iter().find(|port| !before.contains(port)).ok_or_else(|| {
        Error::failed(format!("QEMU does not show its forward to port {}", forward.guest))
    })
}

/// `None` when it is bound, else QEMU's words: the command succeeds either way.
async fn try_bind(qmp: &Qmp, forward: &Forward, host: u16) -> Result<Option<String>> {
    let (protocol, ip, guest) = (forward.protocol.as_str(), forward.host_ip, forward.guest);
    let answer = qmp
        .human(&format!("hostfwd_add net0 {protocol}:{ip}:{host}-:{guest}"))
        .await
        .map_err(|e| e.of(format!("cannot forward port {host}")))?;
    let answer = answer.trim();
    Ok((!answer.is_empty()).then(|| answer.to_owned()))
}

async fn bound_ports(qmp: &Qmp, forward: &Forward) -> Result<Vec<u16>> {
    let table = qmp.human("info usernet").await.map_err(|e| e.of("cannot read QEMU's forwards"))?;
    Ok(parse_usernet(&table, forward))
}

/// Lines such as `TCP[HOST_FORWARD]  12  127.0.0.1 40123  10.0.2.15  22  0  0`.
fn parse_usernet(table: &str, forward: &Forward) -> Vec<u16> {
    let kind = match forward.protocol {
        Protocol::Tcp => "TCP[HOST_FORWARD]",
        Protocol::Udp => "UDP[HOST_FORWARD]",
    };
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [first, _, ip, host, _, guest, ..] = words[..] else { return None };
        let ours = first == kind
            && ip == forward.host_ip.to_string()
            && guest.parse() == Ok(forward.guest);
        ours.then(|| host.parse::<u16>().ok()).flatten()
    };
    table.lines().filter_map(of_line).collect()
}

fn taken(forward: &Forward, port: u16, refusal: &str) -> Error {
    let mut error =
        Error::failed(format!("port {port} of {} is in use", forward.host_ip)).cause(refusal);
    match listener::owner(forward.protocol, port) {
        Some(owner) => error = error.detail(format!("used by {owner}")),
        None if port < 1024 => {
            error = error
                .hint("Ports below 1024 need rights that you may not have; choose a higher one.");
        }
        None => {}
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_forward_that_is_asked_for_is_read_from_the_table() {
        let table = "Hub -1 (net0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
            TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0\n  \
            TCP[HOST_FORWARD]  13       127.0.0.1 8080       10.0.2.15    80     0     0\n  \
            UDP[HOST_FORWARD]  14       127.0.0.1 5353       10.0.2.15    22     0     0\n  \
            TCP[ESTABLISHED]   15       127.0.0.1 40124       10.0.2.15    22     0     0\n";
        let forward = Forward {
            guest: 22,
            host: None,
            host_ip: Ipv4Addr::LOCALHOST,
            protocol: Protocol::Tcp,
            auto_correct: true,
        };
        assert_eq!(parse_usernet(table, &forward), [40123]);
    }
}
