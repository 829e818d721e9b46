//! Interfaces, their addresses and routes.

use std::net::IpAddr;

use rustix::io::Errno;

use super::namespace::Namespace;
use super::netlink::{CREATE, Message, Socket, attributes};
use super::subnet::Subnet;
use crate::error::{Attempt, Error, Result};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_NAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

const UP: u32 = 1;
/// The loopback interface is the first of each namespace.
const LOOPBACK: u32 = 1;

/// `IFA_F_NODAD`: an address nobody else can have needs no second to find that out.
const NO_DUPLICATE_DETECTION: u32 = 2;

/// An address of the hardware.
pub(super) type Mac = [u8; 6];

/// `struct ifinfomsg`; the interface is up, or comes up.
fn link_header(index: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&UP.to_ne_bytes());
    header[12..16].copy_from_slice(&UP.to_ne_bytes());
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }) as u8
}

fn add_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    const BROADCAST: u16 = 4;
    const FLAGS: u16 = 8;
    // struct ifaddrmsg
    let mut header = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(NEW_ADDRESS, CREATE, &header).with(LOCAL, &octets(address)).with(ADDRESS, &octets(address));
    if address.is_ipv6() {
        return message.with_number(FLAGS, NO_DUPLICATE_DETECTION);
    }
    let subnet = Subnet::around(address, prefix);
    message.with(BROADCAST, &octets(subnet.nth(subnet.last())))
}

/// The way to everywhere.
fn add_default_route(index: u32, gateway: IpAddr) -> Message {
    const MAIN_TABLE: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    const OUT: u16 = 4;
    const GATEWAY: u16 = 5;
    // struct rtmsg
    let header = [family(gateway), 0, 0, 0, MAIN_TABLE, BOOT, 0, UNICAST, 0, 0, 0, 0];
    Message::new(NEW_ROUTE, CREATE, &header).with(GATEWAY, &octets(gateway)).with_number(OUT, index)
}

/// Brings up the loopback interface of the namespace that the socket belongs to.
pub(super) fn loopback_up(socket: &Socket) -> Result<()> {
    let message = Message::new(NEW_LINK, 0, &link_header(LOOPBACK));
    socket.request(vec![message]).attempt(|| "bring the loopback interface up")
}

/// Makes a bridge with these addresses and brings it up. One that is there is left alone.
pub(super) fn make_bridge(socket: &Socket, name: &str, mac: Mac, mtu: Option<u32>, addresses: &[(IpAddr, u8)]) -> Result<()> {
    let attempted = || format!("make bridge {name}");
    // An address of its own: else it has that of one of its ports, and another when that goes.
    let mut message = Message::new(NEW_LINK, CREATE, &link_header(0)).with_name(IFLA_NAME, name).with(IFLA_ADDRESS, &mac);
    if let Some(mtu) = mtu {
        message = message.with_number(IFLA_MTU, mtu);
    }
    let message = message.with_nested(IFLA_LINKINFO, &[], |info| info.with_text(INFO_KIND, c"bridge"));
    match socket.request(vec![message]) {
        Err(errno) if errno != Errno::EXIST => return Err(errno).attempt(attempted),
        _ => {}
    }
    let index = socket.index(name).ok_or_else(|| Error::io(attempted(), Errno::NODEV))?;
    match socket.request(addresses.iter().map(|(address, prefix)| add_address(index, *address, *prefix)).collect()) {
        // By who made it at the same time.
        Err(errno) if errno != Errno::EXIST => Err(errno).attempt(attempted),
        _ => Ok(()),
    }
}

/// Takes an interface away; one that is not there is fine.
pub(super) fn remove(socket: &Socket, name: &str) -> Result<()> {
    let Some(index) = socket.index(name) else { return Ok(()) };
    match socket.request(vec![Message::new(DELETE_LINK, 0, &link_header(index))]) {
        Err(errno) if errno != Errno::NODEV => Err(errno).attempt(|| format!("remove interface {name}")),
        _ => Ok(()),
    }
}

/// What is connected to what: a container's interface and its other side.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    /// One end of a pair of which the other, of this name, is a port of a bridge.
    Veth { host: &'a str, bridge: &'a str },
    /// One more interface on the wire of another: `macvlan` or `ipvlan`.
    OnParent { kind: &'static std::ffi::CStr, parent: &'a str },
}

/// A container's interface.
#[derive(Debug)]
pub(super) struct Interface<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind<'a>,
    pub(super) mac: Mac,
    pub(super) mtu: Option<u32>,
    pub(super) addresses: Vec<(IpAddr, u8)>,
    /// Where the default routes lead.
    pub(super) gateways: Vec<IpAddr>,
    /// What it sends may come back to it: to a port of its own, by this machine's.
    pub(super) hairpin: bool,
}

impl Interface<'_> {
    /// Makes it in `namespace`, whose socket is `inside`; `host` is this machine's.
    pub(super) fn make(&self, host: &Socket, inside: &Socket, namespace: &Namespace) -> Result<()> {
        let attempted = || format!("make interface {} of the container", self.name);
        let other = |name: &str| {
            let missing = || Error::invalid(format!("interface {name:?}"), "this machine has none of that name");
            host.index(name).ok_or_else(missing)
        };
        let sized = |message: Message| match self.mtu {
            Some(mtu) => message.with_number(IFLA_MTU, mtu),
            None => message,
        };
        let own = |message: Message, address: bool| {
            let message = sized(message).with_name(IFLA_NAME, self.name).with_number(IFLA_NET_NS_FD, namespace.fd());
            if address { message.with(IFLA_ADDRESS, &self.mac) } else { message }
        };
        let new = || Message::new(NEW_LINK, CREATE, &link_header(0));
        let message = match self.kind {
            Kind::Veth { host: name, bridge } => {
                let message = sized(new()).with_name(IFLA_NAME, name).with_number(IFLA_MASTER, other(bridge)?);
                message.with_nested(IFLA_LINKINFO, &[], |info| {
                    // It cannot come up before the two know each other.
                    let peer = |data: Message| data.with_nested(VETH_PEER, &[0; 16], |peer| own(peer, true));
                    info.with_text(INFO_KIND, c"veth").with_nested(INFO_DATA, &[], peer)
                })
            }
            Kind::OnParent { kind, parent } => {
                // Of an ipvlan the address is its parent's.
                let message = own(new(), kind != c"ipvlan").with_number(IFLA_LINK, other(parent)?);
                message.with_nested(IFLA_LINKINFO, &[], |info| {
                    const MODE: u16 = 1;
                    const MACVLAN_BRIDGE: u32 = 4;
                    let mode = |data: Message| {
                        if kind == c"macvlan" { data.with_number(MODE, MACVLAN_BRIDGE) } else { data.with(MODE, &[0, 0]) }
                    };
                    info.with_text(INFO_KIND, kind).with_nested(INFO_DATA, &[], mode)
                })
            }
        };
        match host.request(vec![message]) {
            Err(errno) if errno == Errno::OPNOTSUPP => {
                return Err(Error::invalid(attempted(), "this kernel does not have that kind of interface"));
            }
            made => made.attempt(attempted)?,
        }
        if let (Kind::Veth { host: name, .. }, true) = (&self.kind, self.hairpin) {
            allow_hairpin(host, name)?;
        }
        let index = inside.index(self.name).ok_or_else(|| Error::io(attempted(), Errno::NODEV))?;
        let up = std::iter::once(Message::new(NEW_LINK, 0, &link_header(index)));
        let addresses = self.addresses.iter().map(|(address, prefix)| add_address(index, *address, *prefix));
        let routes = self.gateways.iter().map(|gateway| add_default_route(index, *gateway));
        inside
            .request(up.chain(addresses).chain(routes).collect())
            .attempt(|| format!("give interface {} its addresses", self.name))
    }
}

/// Lets a port of a bridge send back what it received. Where bridges are filtered (`br_netfilter`)
/// what is translated goes from port to port, and else nowhere if both are the same.
fn allow_hairpin(socket: &Socket, port: &str) -> Result<()> {
    const SET_LINK: u16 = 19;
    const PROTOCOL_INFO: u16 = 12;
    const PORT_MODE: u16 = 4;
    let attempted = || format!("set up port {port} of the bridge");
    let index = socket.index(port).ok_or_else(|| Error::io(attempted(), Errno::NODEV))?;
    let mut header = [0; 16];
    header[0] = libc::AF_BRIDGE as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(SET_LINK, 0, &header).with_nested(PROTOCOL_INFO, &[], |info| info.with(PORT_MODE, &[1]));
    socket.request(vec![message]).attempt(attempted)
}

/// Where this machine has routes to, but for those to everywhere.
pub(super) fn routes(socket: &Socket) -> Result<Vec<Subnet>> {
    const DESTINATION: u16 = 1;
    /// `struct rtmsg`.
    const ROUTE_BYTES: usize = 12;
    // Those of all families.
    let answers = socket.dump(Message::new(GET_ROUTE, 0, &[0; ROUTE_BYTES]))?;
    let route = |body: &[u8]| {
        let (header, rest) = body.split_at_checked(ROUTE_BYTES)?;
        let (_, value) = attributes(rest).into_iter().find(|(kind, _)| *kind == DESTINATION)?;
        let address = match i32::from(header[0]) {
            libc::AF_INET => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
            libc::AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
            _ => return None,
        };
        (header[1] > 0).then(|| Subnet::around(address, header[1]))
    };
    Ok(answers.iter().filter_map(|(_, body)| route(body)).collect())
}
