//! Networks of IP addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::model::InvalidValue;

/// A network in the notation of RFC 4632, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of the addresses that share the first `prefix` bits of `address`.
    ///
    /// # Errors
    /// The prefix is longer than an address, or the address has further bits.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, InvalidValue> {
        let network = Self { address, prefix };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let is_valid = prefix <= bits && numeric(address) & !mask(address, prefix) == 0;
        is_valid.then_some(network).ok_or(InvalidValue {
            what: "network",
            rule: "must be an address and a prefix length, such as 10.0.0.0/8",
        })
    }

    /// Whether the address belongs to this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && numeric(address) & mask(address, self.prefix) == numeric(self.address)
    }
}

/// The address as a number. IPv4 addresses are in the upper 32 bits, so that prefixes of both kinds begin at the same end.
fn numeric(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(address: IpAddr, prefix: u8) -> u128 {
    let all = match address {
        IpAddr::V4(_) => u128::from(u32::MAX) << 96,
        IpAddr::V6(_) => u128::MAX,
    };
    let rest = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    all & !rest
}

impl FromStr for Network {
    type Err = InvalidValue;

    /// An address without a prefix is a network of one address.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = InvalidValue {
            what: "network",
            rule: "must be an address and a prefix length, such as 10.0.0.0/8",
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| invalid)?,
            None => whole,
        };
        Self::new(address, prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
