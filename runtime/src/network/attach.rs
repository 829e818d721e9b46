//! The network of one container, made before it is launched.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::claim::Endpoint;
use super::namespace::Namespace;
use super::options::parse_mac;
use super::outside::{self, Way};
use super::publish::Published;
use super::wire::{claim_of, set, wire};
use super::{Attachment, DEFAULT, Definition, Networks, dns, etc, firewall, own};
use crate::container::Containers;
use crate::error::{Error, Result};
use crate::image::Declared;
use crate::spec::{Network, RunOptions};
use crate::store::Store;
use crate::warning::warn;

/// The network a container has if nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultNetwork {
    /// The default bridge.
    Bridge,
    /// The user's own, by pasta or slirp4netns.
    User,
    /// Loopback alone, because this package is missing.
    None(&'static str),
}

/// Which it is here, for root or for an ordinary user.
pub fn default_network(rootless: bool) -> DefaultNetwork {
    match rootless {
        false if firewall::find("nft").is_some() => DefaultNetwork::Bridge,
        false => DefaultNetwork::None("nftables"),
        true if outside::is_installed() => DefaultNetwork::User,
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
    /// What holds ports of this machine, or the namespace of an ordinary user's networks.
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

    /// Leaves what is kept to the program that this process executes next.
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
        Network::User => outside::attach(&published(request)?, networking, request.directory)
            .map(|(namespace, published)| Attached { namespace: Some(namespace), published, ..Attached::default() }),
        Network::Networks => {
            let networks = Networks::new(request.store);
            let attached = connect(&networks, request);
            if attached.is_err() {
                // What stays is found by who wants it next.
                outside::end(request.directory);
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
    let (options, unprivileged) = (&request.options.networking, request.options.rootless.is_some());
    let joined: Vec<(Definition, &Attachment)> =
        options.attachments.iter().map(|one| Ok((networks.for_attachment(one)?, one))).collect::<Result<_>>()?;
    if let Some((network, _)) = joined.iter().find(|(network, _)| network.unprivileged != unprivileged) {
        let (whose, other) = if unprivileged { ("root", "an ordinary user's") } else { ("an ordinary user", "root's") };
        return Err(Error::invalid(
            format!("network {}", network.name),
            format!("{whose} made it, and it is not for {other} containers"),
        ));
    }
    let published = published(request)?;
    let mut attached = Attached::default();
    if !unprivileged {
        (attached.published, attached.kept) = take_ports(&published, &joined)?;
    }
    for (index, (network, attachment)) in joined.iter().enumerate() {
        let published = if index == 0 { attached.published.clone() } else { Vec::new() };
        let claim = claim_of((request.id, request.name), network, attachment, index, published)?;
        attached.endpoints.push(networks.claim(network, claim, attachment.address, request.directory)?);
    }
    if unprivileged {
        outside::check(options)?;
        let own = own::open(&networks.store)?;
        let wired = own.apart(|| wire(networks, &joined, &attached.endpoints, false))?;
        (attached.published, attached.dns) = (open_way(request, &joined, &wired.namespace, &published)?, wired.dns);
        attached.namespace = Some(wired.namespace);
        attached.kept.push(own.into_fd());
        return Ok(attached);
    }
    let wired = wire(networks, &joined, &attached.endpoints, true)?;
    (attached.dns, attached.namespace) = (wired.dns, Some(wired.namespace));
    if let ([endpoint, ..], [(network, _), ..]) = (&attached.endpoints[..], &joined[..])
        && !attached.published.is_empty()
    {
        let _lock = networks.lock()?;
        if !wired.rebuilt {
            firewall::publish(networks, endpoint)?;
        }
        set(&format!("net/ipv4/conf/{}/route_localnet", network.interface), "1")?;
    }
    Ok(attached)
}

/// Ports of this machine for a container that is in these networks, and what holds them.
fn take_ports(published: &[Published], joined: &[(Definition, &Attachment)]) -> Result<(Vec<Published>, Vec<OwnedFd>)> {
    if published.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let Some((first, _)) = joined.first().filter(|(network, _)| network.is_routed()) else {
        let why = "the container's first network is no bridge, its ports are reached at its own address";
        return Err(Error::invalid("a published port", why));
    };
    if let Some(host) = published.iter().find_map(|one| one.host.filter(|host| host.is_ipv6() && first.subnet6.is_none())) {
        return Err(Error::invalid(format!("address {host}"), format!("network {} has no IPv6 addresses", first.name)));
    }
    Published::take(published, first.subnet6.is_some())
}

/// Leads an ordinary user's container outside, unless all its networks lead nowhere. Gives its ports on this machine.
fn open_way(
    request: &Request<'_>,
    joined: &[(Definition, &Attachment)],
    namespace: &Namespace,
    published: &[Published],
) -> Result<Vec<Published>> {
    if joined.iter().any(|(network, _)| !network.internal) {
        if published.is_empty() && !outside::is_installed() {
            warn("the container reaches its networks alone: the way outside needs the package passt (apt install passt)");
            return Ok(Vec::new());
        }
        return Way { namespace, published, directory: request.directory, interface: Some(outside::INTERFACE) }.open();
    }
    if published.is_empty() {
        return Ok(Vec::new());
    }
    let why = "the container's networks are internal ones, into which an ordinary user's ports do not lead: give it another, too";
    Err(Error::invalid("a published port", why))
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
}
