//! Subnets: parsed, compared, counted through, chosen where nothing else is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, Result};

/// A network's addresses, `10.87.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The first address.
    first: IpAddr,
    prefix: u8,
}

impl Subnet {
    pub(super) const fn v4(first: Ipv4Addr, prefix: u8) -> Self {
        Self { first: IpAddr::V4(first), prefix }
    }

    /// The one an address is in.
    pub(super) fn around(address: IpAddr, prefix: u8) -> Self {
        let subnet = Self { first: address, prefix };
        Self { first: from_bits(bits(address) & !subnet.host_mask(), address.is_ipv6()), prefix }
    }

    /// How many bits of an address say which network it is in.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether its addresses are those of IPv6.
    pub fn is_v6(self) -> bool {
        self.first.is_ipv6()
    }

    fn host_mask(self) -> u128 {
        let host_bits = if self.is_v6() { 128 } else { 32 } - u32::from(self.prefix);
        if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 }
    }

    /// The number of the last address, counted from the first as 0.
    pub(super) fn last(self) -> u128 {
        self.host_mask()
    }

    /// The address with that number.
    pub(super) fn nth(self, number: u128) -> IpAddr {
        from_bits(bits(self.first) | number & self.host_mask(), self.is_v6())
    }

    /// The number of an address.
    pub(super) fn number(self, address: IpAddr) -> u128 {
        bits(address) & self.host_mask()
    }

    /// Whether an address is one of its own.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_v6() && (bits(address) ^ bits(self.first)) & !self.host_mask() == 0
    }

    /// Whether the two have an address in common.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn from_bits(bits: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(bits as u32).into() }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("subnet {text:?}"), why);
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid("it must be ADDRESS/BITS, as 10.5.0.0/24"))?;
        let address: IpAddr = address.parse().map_err(|_| invalid("its address is none"))?;
        let most = if address.is_ipv6() { 128 } else { 32 };
        let prefix = prefix.parse().ok().filter(|bits| *bits <= most);
        let prefix: u8 = prefix.ok_or_else(|| invalid(&format!("the number behind / must be from 0 to {most}")))?;
        let subnet = Self::around(address, prefix);
        if subnet.first != address {
            return Err(invalid(&format!("an address in it is not its first; {subnet} is meant, perhaps")));
        }
        // The network's own address, the gateway's, a container's, and what means all of them.
        if most - prefix < 2 {
            return Err(invalid("it has no room for a gateway and a container"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl serde::Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the default network goes, the first that is free. Not where podman and docker put theirs, which need not be
/// there yet: podman has 10.88.0.0/16 and goes up from 10.89.0.0, docker has 172.17.0.0/16 and goes up from there.
fn default_pool() -> impl Iterator<Item = Subnet> {
    (80..=87).rev().chain(128..=255).map(|second| Subnet::v4(Ipv4Addr::new(10, second, 0, 0), 16))
}

/// Where networks go that say nothing themselves.
fn pool() -> impl Iterator<Item = Subnet> {
    (64..=79).flat_map(|second| (0..=255).map(move |third| Subnet::v4(Ipv4Addr::new(10, second, third, 0), 24)))
}

/// The first subnet of the pool in which there is nothing of `taken`.
pub(super) fn choose(default: bool, taken: &[Subnet]) -> Result<Subnet> {
    let free = |subnet: &Subnet| !taken.iter().any(|other| other.overlaps(*subnet));
    let found = if default { default_pool().find(free) } else { pool().find(free) };
    found.ok_or_else(|| {
        Error::invalid("the pool of subnets", "each overlaps a route of this machine or another network; give one with --subnet")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subnet_is_read_as_it_is_written_and_bad_ones_are_refused() {
        for text in ["10.0.0.0/8", "192.168.4.0/30", "fd00::/64", "0.0.0.0/0", "::/0"] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
        }
        for bad in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/31", "fd00::/127", "10.0.0.0/-1", "x/8", "fd00::/129"]
        {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_taken_is_not_chosen() {
        let taken: Vec<Subnet> = ["10.80.0.0/13", "10.64.0.0/23", "10.128.0.0/9"].iter().map(|t| t.parse().unwrap()).collect();
        assert!(choose(true, &taken).is_err());
        assert_eq!(choose(true, &taken[..2]).unwrap().to_string(), "10.128.0.0/16");
        assert_eq!(choose(true, &[]).unwrap().to_string(), "10.87.0.0/16");
        assert_eq!(choose(false, &taken).unwrap().to_string(), "10.64.2.0/24");
        let podmans: Subnet = "10.88.0.0/13".parse().unwrap();
        assert!(default_pool().take(8).chain(pool()).all(|subnet| !subnet.overlaps(podmans)));
        assert!(choose(false, &["10.0.0.0/8".parse().unwrap()]).is_err());
    }

    proptest! {
        #[test]
        fn addresses_are_counted(first in any::<u32>(), prefix in 0_u8..=30, number in any::<u32>()) {
            let subnet = Subnet::around(Ipv4Addr::from(first).into(), prefix);
            let address = subnet.nth(number.into());
            prop_assert!(subnet.contains(address) && subnet.contains(Ipv4Addr::from(first).into()));
            prop_assert_eq!(subnet.nth(subnet.number(address)), address);
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
        }

        #[test]
        fn any_text_is_a_subnet_or_an_error(text in ".{0,20}") {
            let _ = text.parse::<Subnet>();
        }
    }
}
