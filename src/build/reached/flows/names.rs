//! What name servers answered: by which names the guest knows an address.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::dns;

/// Addresses whose names are kept; the oldest goes first.
pub(super) const MOST_ADDRESSES: usize = 8192;
/// Names of one address.
const MOST_NAMES: usize = 32;

/// Names and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    names: HashMap<IpAddr, Vec<String>>,
    order: VecDeque<IpAddr>,
    /// Hosts that serve a name (SRV).
    serves: BTreeMap<String, String>,
}

impl Names {
    /// The names of an address, the one that was told last at the end.
    pub(super) fn of(&self, address: IpAddr) -> &[String] {
        self.names.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many addresses have names.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> usize {
        self.names.len()
    }

    /// Takes in what a name server answers.
    pub(super) fn learn(&mut self, message: &[u8]) {
        let Some(answer) = dns::answer(message) else { return };
        for host in answer.hosts {
            // `_http._tcp.deb.debian.org`: the service's own labels come first.
            let name = answer.name.split('.').skip_while(|label| label.starts_with('_'));
            let name = name.collect::<Vec<_>>().join(".");
            if self.serves.len() < MOST_ADDRESSES && !name.is_empty() {
                self.serves.insert(host, name);
            }
        }
        let name = self.serves.get(&answer.name).cloned().unwrap_or(answer.name);
        for address in answer.addresses {
            if !self.names.contains_key(&address) {
                self.order.push_back(address);
                if self.order.len() > MOST_ADDRESSES
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.names.remove(&oldest);
                }
            }
            let names = self.names.entry(address).or_default();
            names.retain(|known| *known != name);
            if names.len() >= MOST_NAMES {
                names.remove(0);
            }
            names.push(name.clone());
        }
    }
}
