//! Answers of name servers (RFC 1035; RFC 3596 for AAAA; RFC 2782 for SRV).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::half;

/// Longest name (RFC 1035, section 2.3.4), as text.
const LONGEST: usize = 253;
/// Records of one answer that are read; more do not fit into a datagram that is not cut short.
const MOST: u16 = 256;
/// Pointers of one name that are followed.
const JUMPS: usize = 16;

/// What an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The name that was asked for, in lower case.
    pub(crate) name: String,
    /// Its addresses, also those of another name that it stands for.
    pub(crate) addresses: Vec<IpAddr>,
    /// The hosts that serve it, of a question for a service.
    pub(crate) hosts: Vec<String>,
}

/// Reads a message; `None` if it is no answer to one question.
pub(crate) fn answer(message: &[u8]) -> Option<Answer> {
    // A response, and of an ordinary question.
    if half(message, 2)? & 0xf800 != 0x8000 || half(message, 4)? != 1 {
        return None;
    }
    let (name, at) = name(message, 12)?;
    // The root of all names is no host's.
    if name.is_empty() {
        return None;
    }
    let mut found = Answer { name, ..Answer::default() };
    let mut at = at.checked_add(4)?;
    for _ in 0..half(message, 6)?.min(MOST) {
        // What a datagram cut short has is read as far as it goes.
        let Some(next) = record(message, at, &mut found) else { break };
        at = next;
    }
    Some(found)
}

/// Reads one record; where the next one is.
fn record(message: &[u8], at: usize, found: &mut Answer) -> Option<usize> {
    let (_, at) = name(message, at)?;
    let length = usize::from(half(message, at + 8)?);
    let from = at + 10;
    let data = message.get(from..from.checked_add(length)?)?;
    match half(message, at)? {
        1 => found.addresses.push(IpAddr::V4(Ipv4Addr::from(*data.first_chunk::<4>()?))),
        28 => found.addresses.push(IpAddr::V6(Ipv6Addr::from(*data.first_chunk::<16>()?))),
        33 => found.hosts.push(name(message, from + 6)?.0),
        _ => {}
    }
    Some(from + length)
}

/// A name, and where what comes after it begins.
fn name(message: &[u8], at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut at, mut after, mut jumps) = (at, None, 0);
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((text, after.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
                if !label.iter().all(plain) || text.len() + label.len() >= LONGEST {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
                at += 1 + usize::from(length);
            }
            // The rest of the name stands elsewhere.
            192.. => {
                jumps += 1;
                if jumps > JUMPS {
                    return None;
                }
                after = after.or(Some(at + 2));
                at = usize::from(half(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u16, answers: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0, 1];
        out.extend(flags.to_be_bytes());
        out.extend([0, 1, 0, u8::try_from(answers.len()).expect("few"), 0, 0, 0, 0]);
        out.extend(b"\x01A\x07Example\0\0\x01\0\x01");
        answers.iter().for_each(|answer| out.extend_from_slice(answer));
        out
    }

    #[test]
    fn addresses_are_those_of_the_name_that_was_asked_for() {
        // The name stands for `b`, and that has an address.
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x03\x01b\0";
        let address = b"\xc0\x25\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x07";
        let got = answer(&message(0x8180, &[alias, address])).expect("an answer");
        assert_eq!(
            (&*got.name, got.addresses),
            ("a.example", vec!["192.0.2.7".parse().expect("one")])
        );
        let service = b"\xc0\x0c\0\x21\0\x01\0\0\0\x09\0\x0a\0\0\0\0\0\x50\x01c\xc0\x0e";
        assert_eq!(answer(&message(0x8180, &[service])).expect("an answer").hosts, ["c.example"]);
    }

    #[test]
    fn questions_and_damage_say_nothing_and_loops_end() {
        assert_eq!(answer(&message(0x0100, &[])), None);
        assert_eq!(answer(&[]), None);
        let cut = &message(0x8180, &[b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc0"]);
        assert_eq!(answer(cut).expect("an answer").addresses, Vec::<IpAddr>::new());
        let mut own = message(0x8180, &[]);
        let mut root = own.clone();
        root.truncate(12);
        root.extend(b"\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x07");
        root[7] = 1;
        assert_eq!(answer(&root), None);
        own.truncate(12);
        own.extend(b"\xc0\x0c\0\x01\0\x01");
        assert_eq!(answer(&own), None);
    }
}
