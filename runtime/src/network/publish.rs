//! `-p`: ports of this machine that lead to a container's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::namespace::high;
use crate::error::{Attempt, Error, Result};

/// The most ports one range may have.
const RANGE_LIMIT: usize = 4096;

/// What goes through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of this machine that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The container's port.
    pub port: u16,
    /// What goes through it.
    pub protocol: Protocol,
    /// Which of this machine's addresses, else all.
    pub host: Option<IpAddr>,
    /// The port of this machine, 0 for any that is free.
    pub host_port: u16,
}

impl Published {
    /// Reads `[[ADDRESS:]PORT[-PORT]:]PORT[-PORT][/PROTOCOL]`, as docker has it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the rule it breaks.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let invalid = |why: &str| Error::invalid(format!("published port {text:?}"), why);
        let (ports, protocol) = parse_protocol(text).map_err(invalid)?;
        let (rest, inner) = ports.rsplit_once(':').map_or((None, ports), |(rest, inner)| (Some(rest), inner));
        let inner = range(inner).map_err(invalid)?;
        let (host, outer) = match rest {
            None => (None, ""),
            Some(rest) => match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((address, rest)) => {
                    (Some(address), rest.strip_prefix(':').ok_or_else(|| invalid("a : is missing behind ]"))?)
                }
                None => rest.rsplit_once(':').map_or((None, rest), |(address, port)| (Some(address), port)),
            },
        };
        let host: Option<IpAddr> = match host {
            None | Some("") => None,
            Some(address) => {
                let bracketed = rest.is_some_and(|rest| rest.starts_with('['));
                let parsed = address.parse().ok().filter(|address: &IpAddr| address.is_ipv6() == bracketed);
                Some(parsed.ok_or_else(|| invalid("its address is none; an IPv6 one stands in brackets"))?)
            }
        };
        let outer: Box<dyn Iterator<Item = u16>> = if outer.is_empty() {
            Box::new(std::iter::repeat_n(0, inner.len()))
        } else {
            let outer = range(outer).map_err(invalid)?;
            if outer.len() != inner.len() {
                return Err(invalid("both ranges must have as many ports"));
            }
            Box::new(outer)
        };
        let host = host.filter(|host| !host.is_unspecified());
        Ok(inner.zip(outer).map(|(port, host_port)| Self { port, protocol, host, host_port }).collect())
    }

    /// `PORT[/PROTOCOL]`, as an image names one, or a user who asks for one.
    pub fn parse_port(text: &str) -> Result<(u16, Protocol)> {
        Self::parse_ports(text).map(|(ports, protocol)| (*ports.start(), protocol))
    }

    /// The same where there may be several, `7000-7010/udp`.
    pub fn parse_ports(text: &str) -> Result<(RangeInclusive<u16>, Protocol)> {
        let invalid = |why: &str| Error::invalid(format!("port {text:?}"), why);
        let (ports, protocol) = parse_protocol(text).map_err(invalid)?;
        Ok((range(ports).map_err(invalid)?, protocol))
    }

    /// Takes the ports for as long as the descriptors live, and says which they are: nobody else can have them
    /// then, whether a container or a program of this machine. With `v6` those of all IPv6 addresses, too.
    pub(super) fn take(list: &[Self], v6: bool) -> Result<(Vec<Self>, Vec<OwnedFd>)> {
        let (mut taken, mut sockets) = (Vec::new(), Vec::new());
        for published in list {
            let host = published.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let (socket, host_port) = published.bind(SocketAddr::new(host, published.host_port))?;
            sockets.push(socket);
            if v6 && published.host.is_none() {
                sockets.push(published.bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), host_port))?.0);
            }
            taken.push(Self { host_port, ..*published });
        }
        Ok((taken, sockets))
    }

    fn bind(&self, address: SocketAddr) -> Result<(OwnedFd, u16)> {
        let attempted = || format!("take port {address}/{} of this machine", self.protocol);
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let kind = if self.protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let open = || {
            let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
            if address.is_ipv6() {
                rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
            }
            Ok::<_, Errno>(socket)
        };
        let mut socket = open().attempt(attempted)?;
        let mut bound = rustix::net::bind(&socket, &address);
        if bound == Err(Errno::ADDRINUSE) && self.protocol == Protocol::Tcp {
            // What is left of connections of who had it before is no reason, if nobody listens. Who is told so must
            // listen, or another is told the same.
            socket = open().attempt(attempted)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true).attempt(attempted)?;
            bound = rustix::net::bind(&socket, &address).and_then(|()| rustix::net::listen(&socket, 0));
        }
        match bound {
            Err(Errno::ADDRINUSE) => {
                let why = "another container or a program of this machine has it; choose another".into();
                return Err(Error::Busy { what: format!("port {address}/{}", self.protocol), why });
            }
            Err(Errno::ACCESS) => {
                let advice = "ports below 1024 are root's (sysctl net.ipv4.ip_unprivileged_port_start); choose a higher one";
                return Err(Error::io(format!("{}: {advice}", attempted()), Errno::ACCESS));
            }
            other => other.attempt(attempted)?,
        }
        let bound = rustix::net::getsockname(&socket).attempt(attempted)?;
        let port = SocketAddr::try_from(bound).attempt(attempted)?.port();
        Ok((high(&socket)?, port))
    }
}

fn parse_protocol(text: &str) -> std::result::Result<(&str, Protocol), &'static str> {
    match text.split_once('/') {
        None | Some((_, "tcp")) => Ok((text.split('/').next().unwrap_or(text), Protocol::Tcp)),
        Some((ports, "udp")) => Ok((ports, Protocol::Udp)),
        Some(_) => Err("the protocols are tcp and udp"),
    }
}

fn range(text: &str) -> std::result::Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535, a range two of them with - between")
    };
    let range = port(first)?..=port(last)?;
    match range.len() {
        0 => Err("a range begins with its lower port"),
        1..=RANGE_LIMIT => Ok(range),
        _ => Err("a range has at most 4096 ports"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_are_parsed_as_docker_writes_them() {
        let one = |host: Option<&str>, host_port, port, protocol| Published {
            port,
            protocol,
            host: host.map(|host| host.parse().unwrap()),
            host_port,
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for (text, expected) in [
            ("80", one(None, 0, 80, tcp)),
            ("8080:80", one(None, 8080, 80, tcp)),
            ("8080:80/udp", one(None, 8080, 80, udp)),
            ("127.0.0.1:8080:80/tcp", one(Some("127.0.0.1"), 8080, 80, tcp)),
            ("127.0.0.1::80", one(Some("127.0.0.1"), 0, 80, tcp)),
            ("0.0.0.0:1:2", one(None, 1, 2, tcp)),
            ("[::1]:8080:80", one(Some("::1"), 8080, 80, tcp)),
        ] {
            assert_eq!(Published::parse(text).unwrap(), [expected], "{text}");
        }
        let range = Published::parse("8000-8010:80-90").unwrap();
        assert_eq!((range.len(), range[10]), (11, one(None, 8010, 90, tcp)));
        for bad in [
            "",
            "0",
            "80:",
            "65536",
            "80/sctp",
            "8000-8001:80",
            "9-8",
            "x:80",
            "1.2.3:80:80",
            "::1:80:80",
            "+80",
            "1-60000",
            "[::1]80:80",
        ] {
            assert!(Published::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_is_taken_once() {
        let any = Published::parse("80").unwrap();
        let (taken, sockets) = Published::take(&any, false).unwrap();
        assert_ne!(taken[0].host_port, 0);
        let said = Published::take(&taken, false).unwrap_err().to_string();
        assert!(said.contains("in use") && said.contains(&taken[0].host_port.to_string()), "{said}");
        drop(sockets);
        Published::take(&taken, false).unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_ports_or_an_error(text in "[0-9:\\[\\]./a-z-]{0,30}") {
            let _ = Published::parse(&text);
        }
    }
}
