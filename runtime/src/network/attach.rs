//! The network of one container, made before it is launched.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::claim::{Claim, Endpoint};
use super::link::{self, Interface, Kind};
use super::namespace::Namespace;
use super::netlink::Socket;
use super::options::parse_mac;
use super::publish::Published;
use super::{Attachment, DEFAULT, Definition, Driver, Networks, claim, dns, etc, firewall, pasta};
use crate::container::Containers;
use crate::error::{Attempt, Error, Result};
use crate::image::Declared;
use crate::spec::{Network, RunOptions};
use crate::store::Store;
use crate::warning::warn;

/// The network a container has if nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultNetwork {
    /// The default bridge.
    Bridge,
    /// The user's own, by pasta.
    User,
    /// Loopback alone, because this package is missing.
    None(&'static str),
}

/// Which it is here, for root or for an ordinary user.
pub fn default_network(rootless: bool) -> DefaultNetwork {
    match rootless {
        false if firewall::find("nft").is_some() => DefaultNetwork::Bridge,
        false => DefaultNetwork::None("nftables"),
        true if pasta::find().is_some() => DefaultNetwork::User,
        true => DefaultNetwork::None("passt"),
    }
}

/// Whose network is to be made.
pub(crate) struct Request<'a> {
    pub(crate) store: &'a Store,
    /// The container's ID.
    pub(crate) id: &'a str,
    /// What people call it; empty if nobody does.
    pub(crate) name: &'a str,
    /// A directory of its own in the store.
    pub(crate) directory: &'a Path,
    pub(crate) options: &'a RunOptions,
    /// `80/tcp`: what its image says of itself.
    pub(crate) exposed: &'a BTreeMap<String, Declared>,
}

/// A container's network, which is there as long as this, or the container.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    namespace: Option<Namespace>,
    /// Where the container asks for names.
    pub(crate) dns: Option<dns::Sockets>,
    /// What holds ports of this machine.
    pub(crate) kept: Vec<OwnedFd>,
    /// Its addresses.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Its ports on this machine.
    pub(crate) published: Vec<Published>,
    /// The directory with the files of `/etc` that it shares with another container, and that one's host name.
    pub(crate) shared: Option<(PathBuf, String)>,
}

impl Attached {
    /// The path of the namespace that the container is to join.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.namespace.as_ref().map(Namespace::path)
    }

    /// `/etc/hosts` and `/etc/resolv.conf`.
    pub(crate) fn etc(&self, options: &RunOptions) -> Result<[String; 2]> {
        let (hostname, networking) = (options.hostname()?, &options.networking);
        let own = match options.network {
            Network::Networks | Network::User if !self.endpoints.is_empty() => etc::hosts(&hostname, &self.endpoints),
            _ => format!("127.0.0.1\t{hostname}\n"),
        };
        let hosts = match options.network {
            Network::Host => crate::spec::host_file("/etc/hosts")?,
            _ => format!("{}{own}", crate::spec::LOCAL_HOSTS),
        };
        let gateway = self.endpoints.first().map_or(IpAddr::from([127, 0, 0, 1]), |endpoint| endpoint.gateway.into());
        let isolated = matches!(options.network, Network::Networks | Network::User);
        let embedded = self.dns.as_ref().map(|_| dns::ADDRESS.into());
        Ok([hosts + &etc::added_hosts(networking, gateway), etc::resolv_conf(networking, embedded, isolated)?])
    }

    /// Leaves the ports to the program that this process executes next.
    pub(crate) fn leave_to_program(&self) {
        for socket in &self.kept {
            // What cannot be kept is lost with this process, which is about to say so.
            let _ = rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty());
        }
    }

    /// What answers the container's questions for names, if it is in a network that has some.
    pub(crate) fn name_server(&mut self, store: &Store, options: &RunOptions) -> Result<Option<dns::Server>> {
        let Some(sockets) = self.dns.take() else { return Ok(None) };
        let names = self.endpoints.iter().map(|endpoint| endpoint.network.clone()).collect();
        dns::Server::new(sockets, store.root(), names, options.networking.dns.clone()).map(Some)
    }
}

/// Makes the network that a container asks for. Call it while this process has one thread. What came of it is
/// given back by [`Networks::release`], or by whoever finds it when the container is gone.
pub(crate) fn attach(request: &Request<'_>) -> Result<Attached> {
    let (options, networking) = (request.options, &request.options.networking);
    networking.check()?;
    match &options.network {
        Network::None | Network::Host => {
            if !networking.published.is_empty() {
                let word = if options.network == Network::Host { "host" } else { "none" };
                warn(&format!("published ports have no meaning with --network {word} and are left out"));
            }
            Ok(Attached::default())
        }
        Network::Container(id) => share(request, id),
        Network::User => pasta::attach(&published(request)?, networking, request.directory)
            .map(|(namespace, published)| Attached { namespace: Some(namespace), published, ..Attached::default() }),
        Network::Networks => {
            let networks = Networks::new(request.store);
            let attached = connect(&networks, request);
            if attached.is_err() {
                // What stays is found by who wants it next.
                let _ = networks.release(request.id);
            }
            attached
        }
    }
}

/// The network of another container, and its files that say so.
fn share(request: &Request<'_>, id: &str) -> Result<Attached> {
    let containers = Containers::open(request.store)?;
    let other = containers.get(id)?;
    if request.options.rootless.is_some() {
        let why = "each container of an ordinary user is in a user namespace of its own, which owns its network";
        return Err(Error::invalid(format!("--network container:{}", other.config.name), why));
    }
    let namespace = Namespace::hold(&containers.namespace(other.running()?, "net")?)?;
    let etc = containers.directory(&other.config.id).join("etc");
    let hostname = RunOptions { id: other.config.id, ..other.config.options }.hostname()?;
    Ok(Attached { namespace: Some(namespace), shared: Some((etc, hostname)), ..Attached::default() })
}

/// What is published, with what the image names if all of that is.
fn published(request: &Request<'_>) -> Result<Vec<Published>> {
    let mut list = request.options.networking.published.clone();
    if request.options.networking.publish_all {
        for text in request.exposed.keys() {
            let (port, protocol) = Published::parse_port(text)?;
            if !list.iter().any(|other| (other.port, other.protocol) == (port, protocol)) {
                list.push(Published { port, protocol, host: None, host_port: 0 });
            }
        }
    }
    Ok(list)
}

fn connect(networks: &Networks, request: &Request<'_>) -> Result<Attached> {
    if request.options.rootless.is_some() {
        let why = "an ordinary user's containers have a network of their own by pasta: leave --network out, and publish ports";
        return Err(Error::invalid("a network of an ordinary user", why));
    }
    let attachments = &request.options.networking.attachments;
    let joined: Vec<(Definition, &Attachment)> =
        attachments.iter().map(|one| Ok((networks.for_attachment(one)?, one))).collect::<Result<_>>()?;
    let mut attached = Attached::default();
    let published = published(request)?;
    if !published.is_empty() {
        let Some((first, _)) = joined.first().filter(|(network, _)| network.is_routed()) else {
            let why = "the container's first network is no bridge, its ports are reached at its own address";
            return Err(Error::invalid("a published port", why));
        };
        if let Some(host) = published.iter().find_map(|one| one.host.filter(|host| host.is_ipv6() && first.subnet6.is_none())) {
            return Err(Error::invalid(format!("address {host}"), format!("network {} has no IPv6 addresses", first.name)));
        }
        (attached.published, attached.kept) = Published::take(&published, first.subnet6.is_some())?;
    }
    for (index, (network, attachment)) in joined.iter().enumerate() {
        let published = if index == 0 { attached.published.clone() } else { Vec::new() };
        let claim = claim_of((request.id, request.name), network, attachment, index, published)?;
        attached.endpoints.push(networks.claim(network, claim, attachment.address, request.directory)?);
    }
    let host = Socket::route()?;
    let rebuilt = networks.bring_up(&host, joined.iter().map(|(network, _)| network))?;
    let resolves = joined.iter().any(|(network, _)| network.resolves());
    let (namespace, (inside, sockets)) = Namespace::make(|| {
        let socket = Socket::route()?;
        link::loopback_up(&socket)?;
        Ok((socket, resolves.then(dns::Sockets::bind).transpose()?))
    })?;
    let mut routed = false;
    for ((network, _), endpoint) in joined.iter().zip(&attached.endpoints) {
        // The first that leads anywhere leads everywhere.
        let route = !routed && !network.internal;
        routed |= route;
        interface(network, endpoint, route, &host, &inside, &namespace)?;
    }
    attached.dns = sockets;
    attached.namespace = Some(namespace);
    if let ([endpoint, ..], [(network, _), ..]) = (&attached.endpoints[..], &joined[..])
        && !attached.published.is_empty()
    {
        let _lock = networks.lock()?;
        if !rebuilt {
            firewall::publish(networks, endpoint)?;
        }
        set(&format!("net/ipv4/conf/{}/route_localnet", network.interface), "1")?;
    }
    Ok(attached)
}

fn claim_of(
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
    /// The network an attachment names, if what is asked of it can be.
    pub(super) fn for_attachment(&self, attachment: &Attachment) -> Result<Definition> {
        attachment.mac.as_deref().map(parse_mac).transpose()?;
        if attachment.network != DEFAULT {
            return self.load(&attachment.network);
        }
        if !attachment.aliases.is_empty() || attachment.address.is_some() {
            let why = "an address and aliases can be chosen in networks that you make (`rbox network create`)";
            return Err(Error::invalid("the default network", why));
        }
        self.default_network()
    }

    /// Makes sure that bridges and rules are there. True if the rules were made anew from what is on disk.
    fn bring_up<'a>(&self, host: &Socket, list: impl Iterator<Item = &'a Definition>) -> Result<bool> {
        let mut bridges = list.filter(|network| network.is_routed()).peekable();
        if bridges.peek().is_none() {
            return Ok(false);
        }
        let missing: Vec<&Definition> = bridges.filter(|network| host.index(&network.interface).is_none()).collect();
        if missing.is_empty() && firewall::exists(&self.mark())? {
            return Ok(false);
        }
        let _lock = self.lock()?;
        // Rules first: a bridge that is there has them.
        firewall::rebuild(self)?;
        for network in missing {
            let mut addresses = vec![(network.gateway.into(), network.subnet.prefix())];
            addresses.extend(network.gateway6().zip(network.subnet6.map(super::Subnet::prefix)));
            link::make_bridge(host, &network.interface, claim::mac_of(network.gateway), network.mtu(), &addresses)?;
            set("net/ipv4/ip_forward", "1")?;
            if network.subnet6.is_some() {
                set("net/ipv6/conf/all/forwarding", "1")?;
            }
        }
        Ok(true)
    }

    /// Connects a container that runs.
    pub(crate) fn connect(&self, request: &Connect<'_>) -> Result<Endpoint> {
        let network = self.for_attachment(request.attachment)?;
        let index = (0..).find(|index| !request.used.contains(&format!("eth{index}"))).unwrap_or_default();
        let claim = claim_of((request.id, request.name), &network, request.attachment, index, Vec::new())?;
        let endpoint = self.claim(&network, claim, request.attachment.address, request.directory)?;
        let connected = (|| {
            let host = Socket::route()?;
            self.bring_up(&host, std::iter::once(&network))?;
            let namespace = Namespace::hold(request.namespace)?;
            let inside = namespace.inside(Socket::route)?;
            let route = !network.internal && request.used.is_empty();
            interface(&network, &endpoint, route, &host, &inside, &namespace)
        })();
        if connected.is_err() {
            self.give_back(&endpoint);
        }
        connected.map(|()| endpoint)
    }

    /// Takes a container that runs out of a network.
    pub(crate) fn disconnect(&self, namespace: &OwnedFd, endpoint: &Endpoint) -> Result<()> {
        let inside = Namespace::hold(namespace)?.inside(Socket::route)?;
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

/// Changes a kernel setting of the network namespace this process is in, if it is not that already.
fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).attempt(|| format!("write {value} to {}", path.display()))
}
