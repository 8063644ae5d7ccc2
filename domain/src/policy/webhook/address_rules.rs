//! Where a webhook may lead. The URL of a webhook is chosen by a client, so that deliveries to private networks, to this machine, or to the
//! metadata service of a cloud would let the client reach what only the server can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Network, WebhookHost, WebhookUrl};

/// Which URLs and addresses webhooks may have. The default allows `https` to public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Networks that are allowed although they are not public.
    pub allowed: Vec<Network>,
    /// Whether `http` is allowed on the loopback interface.
    pub allows_http_on_loopback: bool,
}

/// Nothing is delivered to this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is refused: it is {kind}")]
pub struct ForbiddenAddress {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is.
    pub kind: &'static str,
}

/// A webhook may not have this URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableUrl {
    /// It is not encrypted.
    #[error("url must begin with https://")]
    NotHttps,
    /// Its host has an address to which nothing is delivered.
    #[error("url leads to a forbidden address: {0}")]
    Forbidden(#[from] ForbiddenAddress),
    /// The name of its host cannot be resolved.
    #[error("the host of url cannot be resolved: {0}")]
    Unresolved(String),
}

impl AddressRules {
    /// The loopback networks.
    pub fn loopback() -> [Network; 2] {
        let network = |address: IpAddr, prefix| {
            Network::new(address, prefix).expect("the address has no bits behind the prefix")
        };
        [
            network(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            network(Ipv6Addr::LOCALHOST.into(), 128),
        ]
    }

    /// Checks what can be checked without resolving a name: the scheme, and a host that is an address.
    ///
    /// # Errors
    /// See [`UnusableUrl`].
    pub fn check_url(&self, url: &WebhookUrl) -> Result<(), UnusableUrl> {
        let may_be_plain = self.allows_http_on_loopback && url.host().is_loopback();
        if !url.is_https() && !may_be_plain {
            return Err(UnusableUrl::NotHttps);
        }
        match url.host() {
            WebhookHost::Address(address) => Ok(self.check(*address)?),
            WebhookHost::Name(_) => Ok(()),
        }
    }

    /// Checks an address to which a delivery is about to connect.
    ///
    /// # Errors
    /// It is not public, and no allowed network has it.
    pub fn check(&self, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let embedded = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded_v4(address).map(IpAddr::V4),
        };
        let is_allowed = |a: IpAddr| self.allowed.iter().any(|network| network.contains(a));
        if is_allowed(address) || embedded.is_some_and(is_allowed) {
            return Ok(());
        }
        let kind = match embedded.unwrap_or(address) {
            IpAddr::V4(address) => kind_of_v4(address),
            IpAddr::V6(address) => kind_of_v6(address),
        };
        match kind {
            None => Ok(()),
            Some(kind) => Err(ForbiddenAddress { address, kind }),
        }
    }
}

/// What an IPv4 address is, if it is not public (IANA IPv4 Special-Purpose Address Registry).
fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [169, 254, ..] => Some("link-local"),
        // Carriers, and the metadata service of Alibaba Cloud.
        [100, 64..=127, ..] => Some("shared by a carrier"),
        // The agent of Azure, on an address that is public otherwise.
        [168, 63, 129, 16] => Some("the metadata service of a cloud"),
        [192, 0, 0, _] | [192, 88, 99, _] => Some("reserved for protocols"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("for documentation"),
        [198, 18..=19, ..] => Some("for benchmarks"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

/// What an IPv6 address is, if it is not public (IANA IPv6 Special-Purpose Address Registry). Only 2000::/3 is public.
fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("for documentation"),
        // Teredo, benchmarks, ORCHID.
        [0x2001, 0..=0x1ff, ..] => Some("reserved for protocols"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

/// The IPv4 address that an IPv6 address stands for: IPv4-mapped and IPv4-compatible addresses (RFC 4291), NAT64 (RFC 6052), and 6to4
/// (RFC 3056). A gateway could forward to it.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return None,
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}
