//! A container's interfaces in its networks, and the bridges they lead to.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::claim::{Claim, Endpoint};
use super::link::{self, Interface, Kind};
use super::namespace::Namespace;
use super::netlink::Socket;
use super::publish::Published;
use super::{Attachment, Definition, Driver, Networks, claim, dns, firewall, own};
use crate::error::{Attempt, Result};

/// A namespace with interfaces in networks.
pub(super) struct Wired {
    pub(super) namespace: Namespace,
    pub(super) dns: Option<dns::Sockets>,
    /// The firewall's rules were made anew from what is on disk.
    pub(super) rebuilt: bool,
}

/// Makes a container's namespace, where the bridges are, with an interface in each of its networks; with `routed` the
/// first that leads anywhere leads everywhere.
pub(super) fn wire(
    networks: &Networks,
    joined: &[(Definition, &Attachment)],
    endpoints: &[Endpoint],
    routed: bool,
) -> Result<Wired> {
    let host = Socket::route()?;
    let rebuilt = networks.bring_up(&host, joined.iter().map(|(network, _)| network))?;
    let resolves = joined.iter().any(|(network, _)| network.resolves());
    let (namespace, (inside, dns)) = Namespace::make(|| {
        let socket = Socket::route()?;
        link::loopback_up(&socket)?;
        Ok((socket, resolves.then(dns::Sockets::bind).transpose()?))
    })?;
    let mut routed = !routed;
    for ((network, _), endpoint) in joined.iter().zip(endpoints) {
        let route = !routed && !network.internal;
        routed |= route;
        interface(network, endpoint, route, &host, &inside, &namespace)?;
    }
    Ok(Wired { namespace, dns, rebuilt })
}

/// What a container is to be known as in a network.
pub(super) fn claim_of(
    (id, name): (&str, &str),
    network: &Definition,
    attachment: &Attachment,
    index: usize,
    published: Vec<Published>,
) -> Result<Claim> {
    let mac = match (&attachment.mac, network.driver) {
        // The kernel takes the interface of who had the address before away a moment later, and two on one wire may not
        // have the same: so it is not made of the address.
        (None, Driver::Macvlan) => {
            let hex = crate::files::random_hex(4)?;
            Some(format!("02:42:{}:{}:{}:{}", &hex[..2], &hex[2..4], &hex[4..6], &hex[6..]))
        }
        (given, _) => given.clone(),
    };
    let aliases = attachment.aliases.clone();
    Ok(Claim { container: id.to_owned(), name: name.to_owned(), aliases, interface: format!("eth{index}"), mac, published })
}

/// Makes the container's interface in a network.
fn interface(
    network: &Definition,
    endpoint: &Endpoint,
    route: bool,
    host: &Socket,
    inside: &Socket,
    namespace: &Namespace,
) -> Result<()> {
    let pair = format!("veth{}", crate::files::random_hex(5)?);
    let kind = match network.driver {
        Driver::Bridge => Kind::Veth { host: &pair, bridge: &network.interface },
        Driver::Macvlan => Kind::OnParent { kind: c"macvlan", parent: &network.interface },
        Driver::Ipvlan => Kind::OnParent { kind: c"ipvlan", parent: &network.interface },
    };
    let mut addresses = vec![(IpAddr::from(endpoint.address), endpoint.prefix)];
    addresses.extend(endpoint.address6);
    let gateways = if route { std::iter::once(endpoint.gateway.into()).chain(endpoint.gateway6).collect() } else { Vec::new() };
    let name = &endpoint.claim.interface;
    let hairpin = !endpoint.claim.published.is_empty();
    Interface { name, kind, mac: endpoint.mac(), mtu: network.mtu(), addresses, gateways, hairpin }.make(host, inside, namespace)
}

impl Networks {
    /// Makes sure that bridges and rules are there. True if the rules were made anew from what is on disk.
    fn bring_up<'a>(&self, host: &Socket, list: impl Iterator<Item = &'a Definition>) -> Result<bool> {
        let bridges: Vec<&Definition> = list.filter(|network| network.driver == Driver::Bridge).collect();
        let missing: Vec<&Definition> =
            bridges.iter().copied().filter(|network| host.index(&network.interface).is_none()).collect();
        let unruled =
            bridges.iter().any(|network| network.is_routed()) && (!missing.is_empty() || !firewall::exists(&self.mark())?);
        if missing.is_empty() && !unruled {
            return Ok(false);
        }
        let _lock = self.lock()?;
        if unruled {
            // Rules first: a bridge that is there has them.
            firewall::rebuild(self)?;
        }
        for network in missing {
            let mut addresses = vec![(network.gateway.into(), network.subnet.prefix())];
            addresses.extend(network.gateway6().zip(network.subnet6.map(super::Subnet::prefix)));
            link::make_bridge(host, &network.interface, claim::mac_of(network.gateway), network.mtu(), &addresses)?;
            if !network.is_routed() {
                continue;
            }
            set("net/ipv4/ip_forward", "1")?;
            if network.subnet6.is_some() {
                set("net/ipv6/conf/all/forwarding", "1")?;
            }
        }
        Ok(unruled)
    }

    /// Connects a container that runs.
    pub(crate) fn connect(&self, request: &Connect<'_>) -> Result<Endpoint> {
        let network = self.for_attachment(request.attachment)?;
        let index = (0..).find(|index| !request.used.contains(&format!("eth{index}"))).unwrap_or_default();
        let claim = claim_of((request.id, request.name), &network, request.attachment, index, Vec::new())?;
        let endpoint = self.claim(&network, claim, request.attachment.address, request.directory)?;
        let wire = || {
            let host = Socket::route()?;
            self.bring_up(&host, std::iter::once(&network))?;
            let namespace = Namespace::hold(request.namespace)?;
            let inside = namespace.inside(Socket::route)?;
            let route = !network.internal && !network.unprivileged && request.used.is_empty();
            interface(&network, &endpoint, route, &host, &inside, &namespace)
        };
        let connected = if network.unprivileged { own::open(&self.store).and_then(|own| own.apart(wire)) } else { wire() };
        if connected.is_err() {
            self.give_back(&endpoint);
        }
        connected.map(|()| endpoint)
    }

    /// Takes a container that runs out of a network.
    pub(crate) fn disconnect(&self, namespace: &OwnedFd, endpoint: &Endpoint, unprivileged: bool) -> Result<()> {
        let namespace = Namespace::hold(namespace)?;
        let inside = if unprivileged { namespace.apart(Socket::route) } else { namespace.inside(Socket::route) }?;
        link::remove(&inside, &endpoint.claim.interface)?;
        self.release_endpoints(std::slice::from_ref(endpoint))
    }
}

/// A container that runs, and the network it is to be in.
pub(crate) struct Connect<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// Its network namespace.
    pub(crate) namespace: &'a OwnedFd,
    /// The names of interfaces it has.
    pub(crate) used: Vec<String>,
    /// A directory of its own in the store.
    pub(crate) directory: &'a Path,
    pub(crate) attachment: &'a Attachment,
}

/// Changes a kernel setting of the network namespace this thread is in, if it is not that already.
pub(super) fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).attempt(|| format!("write {value} to {}", path.display()))
}
