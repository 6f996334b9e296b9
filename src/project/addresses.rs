//! Which addresses the machines of a project have in their private network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::digest::sha256;
use crate::machine::record::Address;
use crate::spec::subnet::Subnet;

/// Room for 254 machines.
const PREFIX: u8 = 24;
/// Where a range is looked for, in this order (RFC 1918).
const RANGES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];
/// In each range, so many are tried.
const TRIES: u32 = 32;

/// Each machine keeps the address that it has; the others get one by their name, the next one where that
/// is taken.
pub(super) fn addresses<'a>(
    subnet: Subnet,
    names: &[&'a str],
    had: &BTreeMap<&str, Address>,
) -> BTreeMap<&'a str, Ipv4Addr> {
    let mut all: BTreeMap<&str, Ipv4Addr> = BTreeMap::new();
    for name in names {
        if let Some(address) = had.get(name)
            && address.prefix == subnet.prefix()
            && subnet.contains(address.ip)
            && all.values().all(|ip| *ip != address.ip)
        {
            all.insert(name, address.ip);
        }
    }
    let mut others: Vec<&str> = names.iter().filter(|n| !all.contains_key(*n)).copied().collect();
    // The order of the file may change.
    others.sort_unstable();
    for name in others {
        let at = number(name.as_bytes());
        let hosts = (0..subnet.hosts()).map(|n| subnet.host(at.wrapping_add(n)));
        if let Some(free) = hosts.into_iter().find(|ip| all.values().all(|taken| taken != ip)) {
            all.insert(name, free);
        }
    }
    all
}

/// A range that overlaps none of `used`, the same for the same seed.
pub(super) fn free(seed: &[u8], used: &[Subnet]) -> Subnet {
    let at = number(seed);
    let candidate = |range: Subnet, n: u32| {
        let count = 1u32 << (PREFIX - range.prefix());
        let n = at.wrapping_add(n.wrapping_mul(0x9e37_79b1)) % count;
        Subnet::around(Ipv4Addr::from(u32::from(range.start()) + (n << (32 - PREFIX))), PREFIX)
    };
    let ranges = RANGES.iter().map(|(ip, prefix)| Subnet::around(*ip, *prefix));
    let mut all = ranges.flat_map(|range| (0..TRIES).map(move |n| candidate(range, n)));
    let fits = |subnet: &Subnet| {
        !subnet.overlaps(Subnet::nat()) && used.iter().all(|used| !used.overlaps(*subnet))
    };
    // A host that uses all of them has to be told one.
    let first = all.clone().next();
    all.find(fits).or(first).unwrap_or_else(|| Subnet::around(RANGES[0].0, PREFIX))
}

/// What the host has routes to: addresses there must stay reachable from guests. Its default route leads
/// everywhere and counts nothing. (proc(5), `/proc/net/route`: columns `Destination` and `Mask`.)
pub(super) fn host_routes() -> Vec<Subnet> {
    routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn routes(table: &str) -> Vec<Subnet> {
    // In the order of the network, read as a number of this host.
    let number = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::to_be);
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (to, mask) = (number(words.get(1)?)?, number(words.get(7)?)?);
        let prefix = u8::try_from(mask.count_ones()).ok().filter(|prefix| *prefix > 0)?;
        Some(Subnet::around(Ipv4Addr::from(to), prefix))
    };
    table.lines().skip(1).filter_map(line).collect()
}

fn number(bytes: &[u8]) -> u32 {
    let hash = sha256(bytes);
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).expect(text)
    }

    #[test]
    fn a_machine_keeps_its_address_whatever_else_the_spec_says() {
        let net = subnet("10.77.0.0/24");
        let first = addresses(net, &["web", "db"], &BTreeMap::new());
        assert_ne!(first["web"], first["db"]);
        assert!(net.contains(first["web"]) && net.contains(first["db"]));
        assert_eq!(first, addresses(net, &["db", "web"], &BTreeMap::new()));
        // Somebody else has by now what `db` would get by its name.
        let had = BTreeMap::from([("cache", Address { ip: first["db"], prefix: 24 })]);
        let later = addresses(net, &["cache", "web", "db"], &had);
        assert_eq!(later["cache"], first["db"]);
        assert_eq!(later["web"], first["web"]);
        assert_ne!(later["db"], first["db"]);
    }

    #[test]
    fn a_full_range_gives_each_machine_one() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let all = addresses(subnet("10.0.9.8/29"), &names, &BTreeMap::new());
        let different: std::collections::BTreeSet<&Ipv4Addr> = all.values().collect();
        assert_eq!(different.len(), 6);
    }

    #[test]
    fn an_address_of_another_range_is_given_up() {
        let ip = Ipv4Addr::new(10, 1, 1, 7);
        let had = BTreeMap::from([("web", Address { ip, prefix: 24 })]);
        assert_ne!(addresses(subnet("10.77.0.0/24"), &["web"], &had)["web"], ip);
    }

    #[test]
    fn a_range_that_the_host_uses_is_not_taken() {
        let wish = free(b"/home/me/shop", &[]);
        assert_eq!(wish, free(b"/home/me/shop", &[]));
        assert_ne!(free(b"/home/me/shop", &[wish]), wish);
        let vpn = subnet("10.0.0.0/8");
        let other = free(b"/home/me/shop", &[vpn]);
        assert!(!vpn.overlaps(other) && subnet("172.16.0.0/12").overlaps(other), "{other}");
    }

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            tun0\t00004D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            broken\n";
        let expected: Vec<Subnet> =
            if cfg!(target_endian = "little") { vec![subnet("10.77.0.0/16")] } else { vec![] };
        assert_eq!(routes(table), expected);
    }
}
