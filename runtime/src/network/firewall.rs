//! The rules of this store's networks: one table of nftables, always made whole.
//!
//! Networks have rules, published ports are elements of maps: so a container without ports changes nothing here,
//! and one with ports adds elements. Whether the table is there is one small request to the kernel.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use super::claim::Endpoint;
use super::netlink::{Message, Socket};
use super::{Definition, Networks};
use crate::error::{Attempt, Error, Result};

/// Where `nft` is looked for beside `PATH`: an ordinary user's, and that of a service, may lack them.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];

/// Where a program is.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// The name of this store's table.
fn table(mark: &str) -> String {
    if mark.is_empty() { "longshore".into() } else { format!("longshore-{mark}") }
}

/// Whether the table of that mark is there.
pub(super) fn exists(mark: &str) -> Result<bool> {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    const NFT_MSG_GETTABLE: u16 = 1;
    const NFTA_TABLE_NAME: u16 = 1;
    const NFPROTO_INET: u8 = 1;
    let message = Message::new(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, &[NFPROTO_INET, 0, 0, 0]);
    match Socket::netfilter()?.request(vec![message.with_name(NFTA_TABLE_NAME, &table(mark))]) {
        Ok(()) => Ok(true),
        Err(errno) if errno == Errno::NOENT => Ok(false),
        Err(errno) => Err(errno).attempt(|| "look for the table of nftables"),
    }
}

/// Makes the table anew from what is on disk. Only under the lock.
pub(super) fn rebuild(networks: &Networks) -> Result<()> {
    let list: Vec<_> = networks.list()?.into_iter().flatten().filter(Definition::is_routed).collect();
    let list: Vec<_> = list.into_iter().map(|network| (networks.endpoints(&network), network)).collect();
    run(&whole(&table(&networks.mark()), &list))
}

/// Adds the ports of an endpoint. Only under the lock.
pub(super) fn publish(networks: &Networks, endpoint: &Endpoint) -> Result<()> {
    let table = table(&networks.mark());
    let mut text = String::new();
    for (map, element) in elements(endpoint) {
        let _ = writeln!(text, "create element inet {table} {map} {{ {element} }}");
    }
    // A port that is there already was left by who did not live to remove it.
    if text.is_empty() { Ok(()) } else { run(&text).or_else(|_| rebuild(networks)) }
}

/// Removes the ports of an endpoint. Only under the lock.
pub(super) fn unpublish(networks: &Networks, endpoint: &Endpoint) -> Result<()> {
    let table = table(&networks.mark());
    let mut text = String::new();
    for (map, element) in elements(endpoint) {
        let _ = writeln!(text, "delete element inet {table} {map} {{ {element} }}");
    }
    if text.is_empty() || !exists(&networks.mark())? { Ok(()) } else { run(&text).or_else(|_| rebuild(networks)) }
}

/// The map and the element of each port.
fn elements(endpoint: &Endpoint) -> Vec<(&'static str, String)> {
    let mut list = Vec::new();
    for published in &endpoint.claim.published {
        let (protocol, port, host_port) = (published.protocol, published.port, published.host_port);
        let (address, address6) = (endpoint.address, endpoint.address6.map(|(address, _)| address));
        match (published.host, address6) {
            (Some(IpAddr::V4(host)), _) => {
                list.push(("published_at", format!("{host} . {protocol} . {host_port} : {address} . {port}")));
            }
            (Some(IpAddr::V6(host)), Some(to)) => {
                list.push(("published6_at", format!("{host} . {protocol} . {host_port} : {to} . {port}")));
            }
            (Some(IpAddr::V6(_)), None) => {}
            (None, address6) => {
                list.push(("published", format!("{protocol} . {host_port} : {address} . {port}")));
                list.extend(address6.map(|to| ("published6", format!("{protocol} . {host_port} : {to} . {port}"))));
            }
        }
    }
    list
}

/// The table's text, in nft's language.
fn whole(table: &str, networks: &[(Vec<Endpoint>, Definition)]) -> String {
    let mut all: Vec<(&str, String)> = networks.iter().flat_map(|(endpoints, _)| endpoints.iter().flat_map(elements)).collect();
    all.sort();
    all.dedup();
    let mut text = format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    for (map, kind) in [
        ("published", "inet_proto . inet_service : ipv4_addr . inet_service"),
        ("published_at", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
        ("published6", "inet_proto . inet_service : ipv6_addr . inet_service"),
        ("published6_at", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"),
    ] {
        let own: Vec<&str> = all.iter().filter(|(of, _)| *of == map).map(|(_, element)| element.as_str()).collect();
        let filled = if own.is_empty() { String::new() } else { format!(" elements = {{ {} }};", own.join(", ")) };
        let _ = writeln!(text, "map {map} {{ type {kind};{filled} }}");
    }
    // There is no way from ::1 to anywhere else: who asks there is refused, and asks 127.0.0.1.
    text.push_str(
        "chain translate {\n\
         meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @published_at\n\
         meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published\n\
         meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at\n\
         ip6 daddr ::1 return\n\
         meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @published6\n}\n\
         chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local meta l4proto { tcp, udp } jump translate; }\n\
         chain output { type nat hook output priority -100; fib daddr type local meta l4proto { tcp, udp } jump translate; }\n",
    );
    let (mut loopback, mut source, mut forward) = (String::new(), String::new(), String::new());
    for (_, network) in networks {
        let bridge = &network.interface;
        // Where connections from 127.0.0.1 lead to the bridge, nothing from the bridge may lead there.
        let _ = writeln!(loopback, "iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop");
        // Who is published to itself, or to this machine's loopback, must answer by the router.
        let _ = writeln!(source, "oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade");
        for (family, subnet) in [("ip", Some(network.subnet)), ("ip6", network.subnet6)] {
            let Some(subnet) = subnet else { continue };
            let _ = writeln!(source, "oifname \"{bridge}\" {family} saddr {subnet} ct status dnat masquerade");
            if !network.internal {
                let _ = writeln!(source, "oifname != \"{bridge}\" {family} saddr {subnet} masquerade");
            }
        }
        let _ = writeln!(forward, "iifname \"{bridge}\" oifname \"{bridge}\" accept");
        if network.internal {
            let _ = writeln!(forward, "iifname \"{bridge}\" drop");
        }
    }
    let bridges: Vec<String> = networks.iter().map(|(_, network)| format!("\"{}\"", network.interface)).collect();
    let _ = writeln!(text, "chain loopback {{ type filter hook prerouting priority raw;\n{loopback}}}");
    let _ = writeln!(text, "chain postrouting {{ type nat hook postrouting priority srcnat;\n{source}}}");
    let _ = writeln!(text, "chain forward {{ type filter hook forward priority filter;\nct state established,related accept");
    let _ = writeln!(text, "{forward}");
    if !bridges.is_empty() {
        let _ = writeln!(text, "oifname {{ {0} }} ct status dnat accept\noifname {{ {0} }} drop", bridges.join(", "));
    }
    text.push_str("}\n}\n");
    text
}

/// Has nft carry out all of `text` or nothing.
fn run(text: &str) -> Result<()> {
    let nft = find("nft").ok_or_else(missing)?;
    let attempted = || format!("run {} -f -", nft.display());
    let mut child = Command::new(&nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .attempt(attempted)?;
    // It answers before it reads on only if it gave up: what it says then is said below.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().attempt(attempted)?;
    if output.status.success() {
        return written.attempt(attempted);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("it said nothing");
    Err(Error::invalid("the firewall's table of networks", format!("nft refused it: {first}")))
}

/// Without the program there are no networks.
pub(super) fn missing() -> Error {
    Error::NotFound { what: "program nft".into(), hint: "networks need it; install the package nftables".into() }
}
