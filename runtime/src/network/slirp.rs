//! slirp4netns, where pasta is not installed: a network of its own, 10.0.2.0/24, between the container and the outside.
//!
//! Ports are published by its API, a socket in the container's directory: one connection for each question.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::outside::{INTERFACE, PID_FILE, Way};
use super::publish::Published;
use crate::error::{Attempt, Error, Result};
use crate::files;

/// The API's socket, in the container's directory.
const SOCKET: &str = "slirp.sock";

/// The longest answer.
const ANSWER_LIMIT_BYTES: u64 = 64 * 1024;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts it and has it publish the ports. Its API answers when it is ready.
pub(super) fn open(way: &Way<'_>, program: &Path, namespace: &Path) -> Result<()> {
    if let Some(host) = way.published.iter().find_map(|one| one.host.filter(IpAddr::is_ipv6)) {
        let why = "slirp4netns publishes none of IPv6; install the package passt";
        return Err(Error::invalid(format!("a port of address {host}"), why));
    }
    let attempted = || format!("run {}", program.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(way.directory, flags, Mode::empty()).attempt(attempted)?;
    // The path of a socket has 108 bytes at most: it is found, by both, from its directory.
    let socket = Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(SOCKET);
    let _ = std::fs::remove_file(&socket);
    let mut words: Vec<OsString> =
        ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"].map(Into::into).into();
    words.extend(["--api-socket", SOCKET].map(Into::into));
    words.extend([namespace.into(), way.interface.unwrap_or(INTERFACE).into()]);
    let pid = way.start(program, &words, |pid| UnixStream::connect(&socket).is_ok().then_some(pid))?;
    let number = pid.as_raw_nonzero().to_string();
    files::write_atomically(&way.directory.join(PID_FILE), &way.directory.join(".pid"), number.as_bytes())?;
    way.published.iter().try_for_each(|one| publish(&socket, one))
}

fn publish(socket: &Path, one: &Published) -> Result<()> {
    let attempted = || format!("publish port {}/{} by slirp4netns", one.host_port, one.protocol);
    let request = json!({ "execute": "add_hostfwd", "arguments": {
        "proto": one.protocol.to_string(),
        "host_addr": one.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        "host_port": one.host_port,
        "guest_port": one.port,
    }});
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.to_string().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer: Value = serde_json::from_slice(&ask().attempt(attempted)?).map_err(std::io::Error::from).attempt(attempted)?;
    match answer.get("return") {
        Some(_) => Ok(()),
        None => {
            Err(Error::invalid(attempted(), format!("it refused: {}", answer["error"]["desc"].as_str().unwrap_or("no reason"))))
        }
    }
}
