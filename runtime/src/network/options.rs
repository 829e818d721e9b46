//! What a user asks of a container's network.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::link::Mac;
use super::publish::Published;
use crate::error::{Error, Result};

/// What the flags of `rrun` say of the network, beside which one it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkOptions {
    /// The networks it is connected to, the first one as `eth0` and with the default route.
    pub attachments: Vec<Attachment>,
    /// Ports of this machine that lead to ports of the container.
    pub published: Vec<Published>,
    /// Each port the image names gets a free one of this machine.
    pub publish_all: bool,
    /// In place of this machine's name servers.
    pub dns: Vec<IpAddr>,
    /// In place of this machine's search domains.
    pub dns_search: Vec<String>,
    /// Options of `resolv.conf`.
    pub dns_options: Vec<String>,
    /// Further lines of `/etc/hosts`.
    pub added_hosts: Vec<AddedHost>,
}

/// A connection to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// Further names by which the network's containers find this one.
    pub aliases: Vec<String>,
    /// Its address, else the first that is free.
    pub address: Option<Ipv4Addr>,
    /// Its hardware address, `02:42:ac:11:00:02`; else one made of its address.
    pub mac: Option<String>,
}

/// `NAME:ADDRESS`, a name the container knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedHost {
    /// The name.
    pub name: String,
    /// Its address; none for this machine's.
    pub address: Option<IpAddr>,
}

impl FromStr for AddedHost {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why| Error::invalid(format!("host {text:?}"), why);
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = split.ok_or_else(|| invalid("it must be NAME:ADDRESS"))?;
        check_host_name(name).map_err(invalid)?;
        let address = match address {
            "host-gateway" => None,
            // An IPv6 address may stand in brackets.
            text => {
                let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
                Some(inner.parse().map_err(|_| invalid("its address is neither an IP address nor host-gateway"))?)
            }
        };
        Ok(Self { name: name.to_owned(), address })
    }
}

/// Whether `name` can stand in `/etc/hosts` and be asked for.
pub(super) fn check_host_name(name: &str) -> std::result::Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let good = !name.is_empty() && name.len() <= 253 && name.chars().all(allowed);
    if good { Ok(()) } else { Err("a name has letters, digits, - . _ and at most 253 of them") }
}

/// Six numbers of two hexadecimal digits.
pub(super) fn parse_mac(text: &str) -> Result<Mac> {
    // Not a sign, which a number may have before it.
    let byte = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
    let mac = bytes.and_then(|bytes| Mac::try_from(bytes).ok());
    // The lowest bit of the first says that it is for several.
    mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
        .ok_or_else(|| Error::invalid(format!("MAC address {text:?}"), "it must be one interface's, as 02:42:ac:11:00:02"))
}

impl NetworkOptions {
    /// What is wrong is wrong now, not when the container is started.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with what cannot be.
    pub fn check(&self) -> Result<()> {
        for attachment in &self.attachments {
            attachment.mac.as_deref().map(parse_mac).transpose()?;
            for alias in &attachment.aliases {
                check_host_name(alias).map_err(|why| Error::invalid(format!("alias {alias:?}"), why))?;
            }
        }
        // They become lines and words of a file.
        let words = self.dns_search.iter().chain(&self.dns_options);
        match words.into_iter().find(|word| word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control())) {
            Some(word) => Err(Error::invalid(format!("{word:?}"), "a search domain or option of DNS is one word")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_hardware_addresses_are_parsed() {
        let host: AddedHost = "db:10.0.0.1".parse().unwrap();
        assert_eq!(host, AddedHost { name: "db".into(), address: Some([10, 0, 0, 1].into()) });
        assert!("six:fd00::1".parse::<AddedHost>().unwrap().address.unwrap().is_ipv6());
        assert!("six=[fd00::1]".parse::<AddedHost>().unwrap().address.unwrap().is_ipv6());
        assert_eq!("me:host-gateway".parse::<AddedHost>().unwrap().address, None);
        for bad in ["", "db", ":1.2.3.4", "a b:1.2.3.4", "db:x", "db:1.2.3.4\n"] {
            assert!(bad.parse::<AddedHost>().is_err(), "{bad:?}");
        }
        assert_eq!(parse_mac("02:42:aC:11-00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
        for bad in ["", "02:42:ac:11:00", "03:42:ac:11:00:02", "00:00:00:00:00:00", "2:42:ac:11:00:02", "02:42:ac:11:00:+2"] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }
}
