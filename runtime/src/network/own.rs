//! Where an ordinary user's networks are: a network namespace of that user's, with the bridges in it.
//!
//! It is made with the first container that is in a network, and goes with the last one, as all bridges and interfaces in
//! it do. It is reached by a descriptor that each such container's monitor, or `rrun`, keeps. Nothing is routed there, so
//! there are no rules: what is in different networks does not reach each other, and outside leads a container's own
//! [way](super::outside).

use std::path::Path;

use super::link;
use super::namespace::Namespace;
use super::netlink::Socket;
use super::wire::set;
use crate::error::Result;
use crate::userns::Members;

/// What would have it route from one interface to the other; it begins with this machine's settings.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// The namespace for the networks of `store`, made if there is none. This process says to others that it has it, for as
/// long as it keeps what it is given. It must be in the user namespace of this store's processes.
pub(super) fn open(store: &Path) -> Result<Namespace> {
    let members = Members::lock(store)?;
    let namespace = match members.networks()? {
        Some(fd) => Namespace::hold(&fd)?,
        None => Namespace::make_apart(|| {
            link::loopback_up(&Socket::route()?)?;
            let known = |name: &&&str| Path::new("/proc/sys").join(name).exists();
            FORWARDING.iter().filter(known).try_for_each(|name| set(name, "0"))
        })?,
    };
    members.list(i32::try_from(namespace.fd()).ok())?;
    Ok(namespace)
}

/// The same if there is one.
pub(super) fn find(store: &Path) -> Result<Option<Namespace>> {
    Members::lock(store)?.networks()?.map(|fd| Namespace::hold(&fd)).transpose()
}
