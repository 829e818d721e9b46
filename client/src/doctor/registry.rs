//! Checks of one registry: whether it is found, answers, is who it says, and takes who asks.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime};

use super::Check;
use crate::config::{Place, Registries, Scheme};
use crate::credentials;
use crate::error::Result;
use crate::registry::{Probe, log_in, probe};
use crate::text;

/// How long one address is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one host that are tried.
const ADDRESSES_LIMIT: usize = 8;

/// A certificate that ends so soon is worth a word.
const CERTIFICATE_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Clocks that are so far apart break what is good for a time only: tokens, certificates.
const CLOCK_WARN: Duration = Duration::from_secs(30);
const CLOCK_FAIL: Duration = Duration::from_secs(15 * 60);

/// The checks in order; what depends on one that failed is left out.
///
/// # Errors
///
/// What keeps the configuration from being read.
pub fn registry(registries: &Registries, name: &str) -> Result<Vec<Check>> {
    let place = registries.registry(name)?;
    let default_port = if place.scheme == Scheme::Http { 80 } else { 443 };
    let mut checks = Vec::new();
    // Behind a proxy it is that which looks up names.
    if registries.network.proxies.is_empty() {
        let addresses = match addresses(&place.host, default_port) {
            Ok(addresses) => addresses,
            Err(e) => {
                let advice = "see whether the name is right, and /etc/resolv.conf; behind a proxy set HTTPS_PROXY";
                checks.push(Check::fail("dns", format!("{}: {e}", place.host), advice));
                return Ok(checks);
            }
        };
        checks.push(Check::ok("dns", listed(&addresses)));
        let tcp = connect(&addresses);
        let is_connected = tcp.verdict != super::Verdict::Fail;
        checks.push(tcp);
        if !is_connected {
            return Ok(checks);
        }
    }
    match probe(registries, name) {
        Ok(answer) => checks.extend(of_answer(&answer)),
        Err(e) => {
            checks.push(Check::fail(
                "answer",
                e.to_string(),
                "see whether a registry listens there, and what registries.toml says",
            ));
            return Ok(checks);
        }
    }
    checks.push(login(registries, name, &place));
    Ok(checks)
}

fn addresses(host: &str, default_port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']') && port.parse::<u16>().is_ok());
    let with_port = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
    Ok(with_port.to_socket_addrs()?.take(ADDRESSES_LIMIT).collect())
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" ")
}

/// Whether each address can be connected to.
fn connect(addresses: &[SocketAddr]) -> Check {
    let tried = addresses.iter().map(|address| (*address, TcpStream::connect_timeout(address, CONNECT_TIMEOUT)));
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (address, result) in tried {
        match result {
            Ok(_) => good.push(address),
            Err(e) => bad.push(format!("{address}: {e}")),
        }
    }
    match (good.is_empty(), bad.is_empty()) {
        (false, true) => Check::ok("tcp", format!("{} connected", listed(&good))),
        (false, false) => {
            Check::warn("tcp", bad.join(", "), "these addresses do not answer and cost time: see to routes, mostly of IPv6")
        }
        (true, _) => Check::fail("tcp", bad.join(", "), "see whether the registry runs and a firewall lets through to its port"),
    }
}

/// What the first answer tells.
fn of_answer(answer: &Probe) -> Vec<Check> {
    let now = SystemTime::now();
    let certificate = match answer.certificate_until {
        None => Check::ok("tls", "plain HTTP"),
        Some(until) => {
            let found = format!("the certificate is good until {}", httpdate::fmt_http_date(until));
            match until.duration_since(now) {
                Ok(left) if left > CERTIFICATE_SOON => Check::ok("tls", found),
                Ok(_) => Check::warn("tls", found, "have the registry's certificate renewed"),
                Err(_) => Check::fail("tls", format!("{found}: it is over"), "have the registry's certificate renewed"),
            }
        }
    };
    let found = format!("{} answers {}", answer.url, answer.status);
    let api = match answer.status {
        _ if answer.is_registry => Check::ok("api", found),
        429 => Check::warn("api", found, "too many requests: wait, or log in"),
        500.. => Check::fail("api", found, "the registry fails: see its log, or ask who runs it"),
        _ => Check::fail("api", found, "that is no registry: see the name and the port, and what stands before it"),
    };
    let clock = answer.date.map(|date| {
        let apart = now.duration_since(date).unwrap_or_else(|e| e.duration());
        let found = format!("{} seconds apart from the registry's", apart.as_secs());
        let advice = "set the clock: timedatectl set-ntp true";
        match apart {
            _ if apart > CLOCK_FAIL => Check::fail("clock", found, advice),
            _ if apart > CLOCK_WARN => Check::warn("clock", found, advice),
            _ => Check::ok("clock", found),
        }
    });
    [certificate, api].into_iter().chain(clock).collect()
}

/// Whether the credentials that are kept are taken.
fn login(registries: &Registries, name: &str, place: &Place) -> Check {
    let again = format!("`rbox login {name}` replaces them");
    let (account, keeper) = place.account();
    match credentials::look_up(account, "", keeper) {
        Ok(None) => Check::ok("login", format!("no credentials are kept for {account}; what is public needs none")),
        Ok(Some(found)) => match log_in(registries, name, &found.credentials) {
            Ok(()) => Check::ok("login", format!("the credentials of {} for {account} are taken", found.from)),
            Err(e @ crate::Error::Denied { .. }) => {
                Check::fail("login", format!("the credentials of {} for {account}: {e}", found.from), again)
            }
            Err(e) => Check::fail("login", e.to_string(), "see what the registry or its token server says"),
        },
        Err(e) => Check::fail("login", text::printable(&e.to_string()), again),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn answer(status: u16, offset_s: i64, left_s: Option<i64>) -> Vec<Verdict> {
        let at = |seconds: i64| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
        };
        let answer = Probe {
            status,
            url: "http://x/v2/".into(),
            is_registry: matches!(status, 200 | 401),
            date: Some(at(offset_s)),
            certificate_until: left_s.map(at),
        };
        of_answer(&answer).iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn an_answer_is_judged() {
        use Verdict::{Fail, Ok, Warn};
        assert_eq!(answer(200, 0, None), [Ok, Ok, Ok]);
        assert_eq!(answer(401, -60, Some(30 * 24 * 3600)), [Ok, Ok, Warn]);
        assert_eq!(answer(404, 3600, Some(3600)), [Warn, Fail, Fail]);
        assert_eq!(answer(503, 0, Some(-5)), [Fail, Fail, Ok]);
    }

    #[test]
    fn a_port_is_that_of_the_name_or_the_usual_one() {
        let port = |host| addresses(host, 443).unwrap()[0].port();
        assert_eq!((port("127.0.0.1:5000"), port("127.0.0.1"), port("[::1]"), port("[::1]:80")), (5000, 443, 443, 80));
    }
}
