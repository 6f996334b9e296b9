//! Frames become destinations: connections that the guest opens, by the best name that is known of the other side.

mod names;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

pub(crate) use names::Names;

use super::hello::{self, Said};
use super::packet::{Kind, Packet, packet};

/// Connections whose beginning is looked at; the oldest is then told by its address.
const MOST_OPEN: usize = 4096;
/// Destinations that are told apart.
const MOST_REACHED: usize = 10_000;

/// How the name of a destination is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    Dns,
    Tls,
    Http,
    Address,
}

impl By {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            By::Dns => "its name by DNS",
            By::Tls => "its name by TLS (SNI)",
            By::Http => "its name by HTTP",
            By::Address => "its address alone, no name was asked for",
        }
    }
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reached {
    /// A name, or an address; `host` for the host that builds.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) udp: bool,
    pub(crate) by: By,
    pub(crate) address: IpAddr,
}

/// The names that are roles: a mirror is called `mirror`, whichever host serves it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roles {
    /// Host and port of each mirror.
    pub(crate) mirrors: BTreeSet<(String, u16)>,
}

impl Roles {
    pub(crate) fn add(&mut self, url: &str) {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let authority = rest.split('/').next().unwrap_or(rest);
        let usual = if scheme == "https" { 443 } else { 80 };
        // An IPv6 address stands in brackets (RFC 3986, section 3.2.2).
        let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p))),
        };
        let port = port.and_then(|port| port.parse().ok()).unwrap_or(usual);
        let host = host.to_ascii_lowercase();
        self.mirrors.insert((host, port));
    }

    pub(crate) fn is_mirror(&self, reached: &Reached) -> bool {
        let is = |host: &str| self.mirrors.contains(&(host.to_owned(), reached.port));
        is(&reached.host) || is(&reached.address.to_string())
    }
}

/// A connection whose client has not said yet whom it wants.
#[derive(Debug)]
struct Open {
    next: u32,
    data: Vec<u8>,
}

type Key = (u16, IpAddr, u16);

/// What is known of the guest's network.
#[derive(Debug)]
pub(crate) struct Flows {
    /// The guest's hardware address.
    mac: [u8; 6],
    names: Names,
    open: HashMap<Key, Open>,
    opened: VecDeque<Key>,
    reached: BTreeSet<Reached>,
    /// Frames since the last answer, and whether some were too many to be told.
    frames: u64,
    lost: bool,
}

/// What [`Flows::take`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) reached: BTreeSet<Reached>,
    /// Frames of any kind; none means that nothing was recorded.
    pub(crate) frames: u64,
    /// Whether there were more destinations than are told apart.
    pub(crate) lost: bool,
}

impl Flows {
    /// `names` are those that the guest knows already.
    pub(crate) fn new(mac: [u8; 6], names: Names) -> Self {
        Flows {
            mac,
            names,
            open: HashMap::new(),
            opened: VecDeque::new(),
            reached: BTreeSet::new(),
            frames: 0,
            lost: false,
        }
    }

    /// Takes in one frame.
    pub(crate) fn frame(&mut self, frame: &[u8]) {
        self.frames += 1;
        let Some(packet) = packet(frame) else { return };
        if packet.mac != self.mac {
            if packet.kind == Kind::Udp && packet.from.1 == 53 {
                self.names.learn(packet.data);
            }
            return;
        }
        if !leaves(&packet) {
            return;
        }
        let key = (packet.from.1, packet.to.0, packet.to.1);
        match packet.kind {
            Kind::Udp => self.reach(packet.to, true, Said::Nothing),
            Kind::Tcp { sequence, opens: true, .. } => self.begin(key, sequence),
            Kind::Tcp { sequence, ends, .. } => self.goes_on(key, sequence, packet.data, ends),
        }
    }

    /// What was reached since the last time. Connections that are open and have said nothing count by their address.
    pub(crate) fn take(&mut self) -> Taken {
        for key in std::mem::take(&mut self.opened) {
            if self.open.remove(&key).is_some() {
                self.reach((key.1, key.2), false, Said::Nothing);
            }
        }
        Taken {
            reached: std::mem::take(&mut self.reached),
            frames: std::mem::take(&mut self.frames),
            lost: std::mem::take(&mut self.lost),
        }
    }

    /// What is known of names by now.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    fn begin(&mut self, key: Key, sequence: u32) {
        if self.open.len() >= MOST_OPEN
            && let Some(oldest) = self.opened.pop_front()
            && self.open.remove(&oldest).is_some()
        {
            self.reach((oldest.1, oldest.2), false, Said::Nothing);
        }
        let open = Open { next: sequence.wrapping_add(1), data: vec![] };
        if self.open.insert(key, open).is_none() {
            self.opened.push_back(key);
        }
    }

    fn goes_on(&mut self, key: Key, sequence: u32, data: &[u8], ends: bool) {
        let Some(open) = self.open.get_mut(&key) else { return };
        // What was sent again or out of its order is left out; the next one in order is waited for.
        if sequence == open.next {
            open.next = open.next.wrapping_add(u32::try_from(data.len()).unwrap_or(0));
            let room = hello::MOST.saturating_sub(open.data.len());
            open.data.extend(data.iter().take(room));
        }
        let said = if open.data.is_empty() { Said::More } else { hello::said(&open.data) };
        if said == Said::More && !ends {
            return;
        }
        self.open.remove(&key);
        self.opened.retain(|other| *other != key);
        self.reach((key.1, key.2), false, said);
    }

    /// Notes a destination by the best name: what the client said if a name server gave this address for it, or gave
    /// none; else what the name server said last.
    fn reach(&mut self, (address, port): (IpAddr, u16), udp: bool, said: Said) {
        let names = self.names.of(address);
        let said = match said {
            Said::Tls(name) => Some((name, By::Tls)),
            Said::Http(name) => Some((name, By::Http)),
            Said::Nothing | Said::More => None,
        };
        let (host, by) = if is_host(address) {
            ("host".to_owned(), By::Address)
        } else {
            match (said, names.last()) {
                (Some((name, _)), Some(_)) if names.contains(&name) => (name, By::Dns),
                (Some((name, by)), None) => (name, by),
                (_, Some(name)) => (name.clone(), By::Dns),
                (None, None) => (address.to_string(), By::Address),
            }
        };
        if self.reached.len() >= MOST_REACHED {
            self.lost = true;
        } else {
            self.reached.insert(Reached { host, port, udp, by, address });
        }
    }
}

/// The host that builds, as the guest sees it (QEMU's documentation, "Using the user mode network stack").
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets() == [10, 0, 2, 2],
        IpAddr::V6(v6) => v6.segments() == [0xfec0, 0, 0, 0, 0, 0, 0, 2],
    }
}

/// Whether it goes anywhere: not to QEMU's own servers of names and addresses, nor to a group of neighbours. The time is
/// left out too: a guest's clock asks for it when it likes, and no content comes by it.
fn leaves(packet: &Packet<'_>) -> bool {
    let (address, port) = packet.to;
    let own = match address {
        IpAddr::V4(v4) => {
            let octets = v4.octets();
            v4.is_multicast()
                || v4.is_broadcast()
                || octets == [10, 0, 2, 255]
                || (octets == [10, 0, 2, 3] && port == 53)
        }
        IpAddr::V6(v6) => {
            v6.is_multicast()
                || v6.segments()[0] & 0xffc0 == 0xfe80
                || (v6.segments() == [0xfec0, 0, 0, 0, 0, 0, 0, 3] && port == 53)
        }
    };
    let clerks = packet.kind == Kind::Udp && [67, 123, 547].contains(&port);
    !own && !clerks
}

#[cfg(test)]
mod tests;
