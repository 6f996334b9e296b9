//! One Ethernet frame: who sends what to whom (IEEE 802.3; RFC 791, 8200, 9293, 768). Bounds everything: a guest
//! chooses all of its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Extension headers before the payload of IPv6 that are followed.
const MOST_HEADERS: usize = 8;

/// A TCP segment or UDP datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// The sender's hardware address.
    pub(crate) mac: [u8; 6],
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) kind: Kind,
    /// What it carries; cut short where the frame is.
    pub(crate) data: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    Tcp {
        sequence: u32,
        /// The first one of a connection, from the side that opens it.
        opens: bool,
        /// The last one from this side, or the end of both.
        ends: bool,
    },
}

/// What a frame carries, if that is TCP or UDP and not a later fragment.
pub(crate) fn packet(frame: &[u8]) -> Option<Packet<'_>> {
    let mac = *frame.get(6..)?.first_chunk::<6>()?;
    let payload = frame.get(14..)?;
    let (protocol, from, to, payload) = match half(frame, 12)? {
        0x0800 => v4(payload)?,
        0x86dd => v6(payload)?,
        _ => return None,
    };
    let ports = (half(payload, 0)?, half(payload, 2)?);
    let (kind, data) = match protocol {
        17 => (Kind::Udp, payload.get(8..)?),
        6 => {
            let header = usize::from(payload.get(12)? >> 4) * 4;
            let flags = *payload.get(13)?;
            let sequence = u32::from_be_bytes(*payload.get(4..)?.first_chunk()?);
            let opens = flags & 0x12 == 0x02;
            let kind = Kind::Tcp { sequence, opens, ends: flags & 0x05 != 0 };
            (kind, payload.get(header.max(20)..)?)
        }
        _ => return None,
    };
    Some(Packet { mac, from: (from, ports.0), to: (to, ports.1), kind, data })
}

type Network<'a> = (u8, IpAddr, IpAddr, &'a [u8]);

fn v4(packet: &[u8]) -> Option<Network<'_>> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    let length = usize::from(half(packet, 2)?);
    // A later fragment has no ports.
    if first >> 4 != 4 || header < 20 || half(packet, 6)? & 0x1fff != 0 {
        return None;
    }
    let address = |at| Some(IpAddr::V4(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)));
    // Short frames are padded.
    let end = length.clamp(header, packet.len().max(header));
    Some((*packet.get(9)?, address(12)?, address(16)?, packet.get(header..end)?))
}

fn v6(packet: &[u8]) -> Option<Network<'_>> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let address = |at| Some(IpAddr::V6(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
    let (from, to) = (address(8)?, address(24)?);
    let length = usize::from(half(packet, 4)?);
    let rest = packet.get(40..)?;
    let mut rest = rest.get(..length.min(rest.len()))?;
    let mut next = *packet.get(6)?;
    for _ in 0..MOST_HEADERS {
        match next {
            // Hop-by-hop, routing and destination options.
            0 | 43 | 60 => {
                next = *rest.first()?;
                rest = rest.get((usize::from(*rest.get(1)?) + 1) * 8..)?;
            }
            // The first fragment has the ports.
            44 if half(rest, 2)? & 0xfff8 == 0 => {
                next = *rest.first()?;
                rest = rest.get(8..)?;
            }
            _ => return Some((next, from, to, rest)),
        }
    }
    None
}

/// Two bytes, the high one first.
pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
