//! A network's range of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;

/// `10.1.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// The smallest range that has several hosts, and the largest that is private.
    pub const PREFIXES: (u8, u8) = (8, 29);

    /// Where each machine has its way out: QEMU's own network, which every guest has to itself.
    #[must_use]
    pub fn nat() -> Self {
        Self::around(Ipv4Addr::new(10, 0, 2, 0), 24)
    }

    /// The range of `prefix` leading bits (at most 32) that `address` lies in.
    #[must_use]
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Subnet { network: u32::from(address) & mask(prefix), prefix }
    }

    /// `text` as a range; `None` if it is none, or has bits behind its prefix.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let subnet = Self::around(address, prefix);
        (prefix <= 32 && subnet.network == u32::from(address)).then_some(subnet)
    }

    /// Its leading bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address.
    #[must_use]
    pub fn start(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network)
    }

    /// How many hosts can have an address in it: all but the first and the last.
    #[must_use]
    pub fn hosts(self) -> u32 {
        (!mask(self.prefix)).saturating_sub(1)
    }

    /// The address of host `n`, counted from 0, of [`Subnet::hosts`].
    #[must_use]
    pub fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1 + n % self.hosts().max(1))
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(self, other: Subnet) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.network & mask(prefix) == other.network & mask(prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Subnet {
        Subnet::parse(text).expect(text)
    }

    #[test]
    fn a_range_has_no_bits_behind_its_prefix() {
        for text in ["10.1.2.0/24", "0.0.0.0/0", "192.168.0.0/16", "10.0.0.8/29", "1.2.3.4/32"] {
            assert_eq!(of(text).to_string(), text);
        }
        for text in ["10.1.2.1/24", "10.1.2.0", "10.1.2.0/33", "x/8", "10.0.0.0/-1", ""] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_are_all_but_the_first_and_the_last() {
        let small = of("10.0.0.8/29");
        assert_eq!(small.hosts(), 6);
        let all: Vec<String> = (0..6).map(|n| small.host(n).to_string()).collect();
        assert_eq!((all[0].as_str(), all[5].as_str()), ("10.0.0.9", "10.0.0.14"));
        assert!(small.contains(small.host(5)) && !small.contains("10.0.0.16".parse().expect("ip")));
    }

    #[test]
    fn ranges_overlap_where_one_lies_in_the_other() {
        assert!(of("10.0.0.0/8").overlaps(of("10.9.8.0/24")));
        assert!(of("10.9.8.0/24").overlaps(of("0.0.0.0/0")));
        assert!(!of("10.9.8.0/24").overlaps(of("10.9.9.0/24")));
    }
}
