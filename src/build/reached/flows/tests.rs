use super::*;
use crate::build::reached::pcap::{self, Record};

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const OTHER: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// An Ethernet frame with an IPv4 packet.
fn frame(mac: [u8; 6], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 6];
    out.extend(mac);
    out.extend([8, 0, 0x45, 0]);
    out.extend(u16::try_from(payload.len() + 20).expect("short").to_be_bytes());
    out.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15]);
    out.extend(to);
    out.extend(payload);
    out
}

fn tcp(to: ([u8; 4], u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x90, 1];
    segment.extend(to.1.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    segment.extend(data);
    frame(GUEST, to.0, 6, &segment)
}

fn udp(mac: [u8; 6], from: u16, to: ([u8; 4], u16), data: &[u8]) -> Vec<u8> {
    let mut datagram = from.to_be_bytes().to_vec();
    datagram.extend(to.1.to_be_bytes());
    datagram.extend(u16::try_from(data.len() + 8).expect("short").to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    frame(mac, to.0, 17, &datagram)
}

/// The name server's answer that this name has this address.
fn named(name: &str, address: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("short"));
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
    message.extend(address);
    udp(OTHER, 53, ([10, 0, 2, 15], 5000), &message)
}

fn flows(frames: &[Vec<u8>]) -> Vec<(String, u16, By)> {
    let mut flows = Flows::new(GUEST, Names::default());
    frames.iter().for_each(|frame| flows.frame(frame));
    let taken = flows.take();
    assert_eq!(taken.frames, frames.len() as u64);
    assert_eq!(flows.take(), Taken::default(), "told once");
    taken.reached.into_iter().map(|r| (r.host, r.port, r.by)).collect()
}

const A: [u8; 4] = [192, 0, 2, 1];
const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn a_connection_is_called_by_the_name_that_was_asked_for() {
    let get = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let one = [named("a.example", A), tcp((A, 443), 9, SYN, b"")];
    assert_eq!(flows(&one), [("a.example".to_owned(), 443, By::Dns)]);
    // Of several names of one address, the one that the client says.
    let two = [
        named("b.example", A),
        named("a.example", A),
        tcp((A, 80), 9, SYN, b""),
        tcp((A, 80), 10, ACK, &get[..20]),
        tcp((A, 80), 10, ACK, &get[..20]),
        tcp((A, 80), 30, ACK, &get[20..]),
    ];
    assert_eq!(flows(&two), [("b.example".to_owned(), 80, By::Dns)]);
    // A client cannot give a name to an address that the name server gave another one.
    let lie = [named("c.example", A), two[2].clone(), tcp((A, 80), 10, ACK, get)];
    assert_eq!(flows(&lie), [("c.example".to_owned(), 80, By::Dns)]);
    let unasked = [two[2].clone(), tcp((A, 80), 10, ACK, get)];
    assert_eq!(flows(&unasked), [("b.example".to_owned(), 80, By::Http)]);
    assert_eq!(flows(&two[2..3]), [("192.0.2.1".to_owned(), 80, By::Address)]);
}

#[test]
fn what_a_real_guest_sends_is_read() {
    let mut flows = Flows::new(GUEST, Names::default());
    // See tests/fixtures/network/README.md.
    let file = &include_bytes!("../../../../tests/fixtures/network/guest.pcap")[..];
    let read = pcap::read(file, |record| {
        if let Record::Frame(frame) = record {
            flows.frame(frame);
        }
        true
    });
    read.expect("a capture");
    let reached: Vec<_> =
        flows.take().reached.into_iter().map(|r| (r.host, r.port, r.by)).collect();
    let expected =
        [("192.0.2.1".to_owned(), 81, By::Address), ("deb.debian.org".to_owned(), 80, By::Dns)];
    assert_eq!(reached, expected);
}

#[test]
fn what_does_not_leave_and_what_others_open_is_no_destination() {
    let answer = [frame(OTHER, [10, 0, 2, 15], 6, &tcp((A, 22), 1, SYN, b"")[34..])];
    assert_eq!(flows(&answer), []);
    let own = [
        udp(GUEST, 5000, ([10, 0, 2, 3], 53), b"?"),
        udp(GUEST, 68, ([255; 4], 67), b"?"),
        udp(GUEST, 5353, ([224, 0, 0, 251], 5353), b"?"),
        udp(GUEST, 5000, (A, 123), b"?"),
        tcp((A, 80), 1, SYN | ACK, b""),
        vec![],
        vec![0; 60],
    ];
    assert_eq!(flows(&own), []);
    let host = [tcp(([10, 0, 2, 2], 8080), 1, SYN, b""), udp(GUEST, 5000, (A, 53), b"?")];
    let expected =
        [("192.0.2.1".to_owned(), 53, By::Address), ("host".to_owned(), 8080, By::Address)];
    assert_eq!(flows(&host), expected);
}

#[test]
fn a_mirror_is_known_by_its_role_with_its_port() {
    let mut roles = Roles::default();
    for url in
        ["http://mirror.example:3142/debian", "https://m2.example/x", "http://192.0.2.1/debian"]
    {
        roles.add(url);
    }
    let reached = |host: &str, port| Reached {
        host: host.to_owned(),
        port,
        udp: false,
        by: By::Dns,
        address: "192.0.2.9".parse().expect("one"),
    };
    assert!(roles.is_mirror(&reached("mirror.example", 3142)));
    assert!(roles.is_mirror(&reached("m2.example", 443)));
    assert!(!roles.is_mirror(&reached("mirror.example", 22)));
    assert!(!roles.is_mirror(&reached("m2.example", 80)));
    roles.add("http://[2001:db8:0:1:2:3:4:5]/debian");
    roles.add("http://[2001:db8::1]:8080/debian");
    for (address, port) in [("2001:db8:0:1:2:3:4:5", 80), ("2001:db8::1", 8080)] {
        let six = Reached { address: address.parse().expect("one"), ..reached(address, port) };
        assert!(roles.is_mirror(&six), "{address}");
    }
    let address =
        Reached { address: "192.0.2.1".parse().expect("one"), ..reached("192.0.2.1", 80) };
    assert!(roles.is_mirror(&address));
}

#[test]
fn hosts_that_serve_a_name_are_called_by_that_name() {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(b"\x05_http\x04_tcp\x03deb\x07example\0\0\x21\0\x01");
    message.extend(b"\xc0\x0c\0\x21\0\x01\0\0\0\x09\0\x11\0\0\0\0\0\x50\x01x\x07example\0");
    let frames = [
        udp(OTHER, 53, ([10, 0, 2, 15], 5000), &message),
        named("x.example", A),
        tcp((A, 80), 1, SYN, b""),
    ];
    assert_eq!(flows(&frames), [("deb.example".to_owned(), 80, By::Dns)]);
}

#[test]
fn any_guest_is_bounded() {
    let mut flows = Flows::new(GUEST, Names::default());
    for n in 0..20_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        flows.frame(&named("a.example", [198, a, b, c]));
        let mut segment = tcp((A, 80), 1, SYN, b"");
        segment[34..36].copy_from_slice(&[b, c]);
        flows.frame(&segment);
        flows.frame(&udp(GUEST, 1, ([198, 51, b, c], 9), b""));
    }
    assert!(flows.names.addresses() <= names::MOST_ADDRESSES && flows.open.len() <= MOST_OPEN);
    assert!(flows.take().lost, "and it says so");
}

#[test]
fn a_record_that_is_damaged_anywhere_is_read_without_a_panic() {
    let whole = include_bytes!("../../../../tests/fixtures/network/guest.pcap");
    // A fixed sequence (Knuth, "MMIX"), so that a failure can be seen again.
    let mut state = 1u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    for _ in 0..5000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=next(8) {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap_or(0);
        }
        bytes.truncate(next(bytes.len()) + 1);
        let mut flows = Flows::new(GUEST, Names::default());
        let _ = pcap::read(&bytes[..], |record| {
            if let Record::Frame(frame) = record {
                flows.frame(frame);
            }
            true
        });
        for reached in flows.take().reached {
            assert!(!reached.host.is_empty() && reached.host.is_ascii(), "{reached:?}");
        }
    }
}
