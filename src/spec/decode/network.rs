//! `[network]`: the network between the machines.

use crate::spec::keys;
use crate::spec::reader::{Collector, Reader};
use crate::spec::subnet::Subnet;
use crate::spec::types::{Machine, Network};

/// Addresses that nobody has on the internet (RFC 1918).
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

pub(super) fn network(top: &Reader<'_, '_>, machines: &[Machine], c: &mut Collector) -> Network {
    let all = Network { private: true, subnet: None };
    let Some(table) = top.has(&keys::NETWORK).then(|| top.table(&keys::NETWORK, c)).flatten()
    else {
        return all;
    };
    let private = table.boolean(&keys::NETWORK_PRIVATE, c).unwrap_or(true);
    let mut subnet = None;
    if let Some(at) = table.text(&keys::NETWORK_SUBNET, c) {
        match check(&at.value, machines.len()) {
            Ok(range) => subnet = Some(range),
            Err((what, hint)) => {
                c.report(&at.path, at.span.clone(), what).hint = Some(hint);
            }
        }
    }
    Network { private, subnet }
}

/// The range, or what is wrong with it and what to do.
fn check(text: &str, machines: usize) -> Result<Subnet, (String, String)> {
    let (address, prefix) = text.split_once('/').unwrap_or_default();
    let prefix: u8 = prefix.parse().unwrap_or_default();
    let (from, to) = Subnet::PREFIXES;
    if !(from..=to).contains(&prefix) {
        let what = format!("a prefix of {prefix} bits");
        return Err((what, format!("Use one from {from} to {to}; 24 has room for 254 machines.")));
    }
    let Some(subnet) = Subnet::parse(text) else {
        let address = address.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
        let meant = Subnet::around(address, prefix);
        let what = format!("`{text}` is an address in a range, not a range");
        return Err((what, format!("Did you mean \"{meant}\"?")));
    };
    let ranges = PRIVATE.iter().filter_map(|text| Subnet::parse(text));
    if !ranges.clone().any(|range| range.contains(subnet.host(0)) && prefix >= range.prefix()) {
        return Err((
            format!("{subnet} is not a private range"),
            format!("Choose one within {}.", PRIVATE.join(", ")),
        ));
    }
    let nat = Subnet::nat();
    if nat.overlaps(subnet) {
        return Err((
            format!("{subnet} has addresses of {nat}, each machine's way out"),
            "Choose another range, or leave it out to get a free one.".to_owned(),
        ));
    }
    if machines > usize::try_from(subnet.hosts()).unwrap_or(usize::MAX) {
        return Err((
            format!("{subnet} has {} addresses for {machines} machines", subnet.hosts()),
            "Make its prefix smaller.".to_owned(),
        ));
    }
    Ok(subnet)
}
