//! `/etc/hosts` and `/etc/resolv.conf` of a container with a network.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::claim::Endpoint;
use super::options::NetworkOptions;
use crate::spec::host_file;

/// Where systemd keeps the name servers that its own, on the loopback, asks.
const SYSTEMD_SERVERS: &str = "/run/systemd/resolve/resolv.conf";

/// Lines for [`added_hosts`](NetworkOptions::added_hosts), and for the container's own name at its addresses.
pub(super) fn hosts(hostname: &str, endpoints: &[Endpoint]) -> String {
    let mut text = String::new();
    for endpoint in endpoints {
        let _ = writeln!(text, "{}\t{hostname}", endpoint.address);
        if let Some((address, _)) = endpoint.address6 {
            let _ = writeln!(text, "{address}\t{hostname}");
        }
    }
    text
}

/// Lines for the hosts a user added; `gateway` is what `host-gateway` means.
pub(crate) fn added_hosts(options: &NetworkOptions, gateway: IpAddr) -> String {
    options.added_hosts.iter().map(|host| format!("{}\t{}\n", host.address.unwrap_or(gateway), host.name)).collect()
}

/// The name servers of a `resolv.conf`.
pub(super) fn name_servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        // An interface behind % means nothing elsewhere.
        (words.next() == Some("nameserver")).then(|| words.next()?.split('%').next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(server).collect()
}

/// This machine's `resolv.conf`, changed as the user says. `embedded` is the only name server where there is one;
/// elsewhere those on this machine's loopback are left out, which the container cannot reach.
pub(crate) fn resolv_conf(options: &NetworkOptions, embedded: Option<IpAddr>, isolated: bool) -> crate::Result<String> {
    let host = host_file("/etc/resolv.conf")?;
    let reachable = |text: &str| name_servers(text).into_iter().filter(|server| !server.is_loopback()).collect::<Vec<_>>();
    let servers = match embedded {
        Some(server) => vec![server],
        None if !options.dns.is_empty() => options.dns.clone(),
        None if !isolated => name_servers(&host),
        None => match reachable(&host) {
            none if none.is_empty() => reachable(&host_file(SYSTEMD_SERVERS)?),
            servers => servers,
        },
    };
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let mut words = |keyword: &str, given: &[String]| {
        let of_host = |line: &&str| line.split_ascii_whitespace().next() == Some(keyword);
        // A single dot is docker's word for none.
        if given == ["."] {
        } else if !given.is_empty() {
            let _ = writeln!(text, "{keyword} {}", given.join(" "));
        } else if let Some(line) = host.lines().rfind(of_host) {
            let _ = writeln!(text, "{line}");
        }
    };
    words("search", &options.dns_search);
    words("options", &options.dns_options);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_options_take_their_place() {
        let text = "# nameserver 1.1.1.1\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver x\nnameserver\nsearch a\n";
        assert_eq!(name_servers(text), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        let options = NetworkOptions {
            dns: vec!["9.9.9.9".parse().unwrap()],
            dns_search: vec!["one.test".into(), "two.test".into()],
            dns_options: vec!["ndots:2".into()],
            ..NetworkOptions::default()
        };
        let own = "nameserver 9.9.9.9\nsearch one.test two.test\noptions ndots:2\n";
        assert_eq!(resolv_conf(&options, None, true).unwrap(), own);
        let embedded = resolv_conf(&options, Some("127.0.0.11".parse().unwrap()), true).unwrap();
        assert_eq!(embedded, own.replace("9.9.9.9", "127.0.0.11"));
        let none = NetworkOptions { dns_search: vec![".".into()], ..options };
        assert!(!resolv_conf(&none, None, true).unwrap().contains("search"));
    }
}
