//! The name server of a container: it answers for the containers of its networks and passes the rest on.
//!
//! Its sockets are in the container's network namespace, on docker's address; who serves them is the container's
//! monitor, or the command in the foreground, which wait for one descriptor more than without. Names come from
//! the claims on disk, read for each question: there is nothing to be told of changes, and nothing to be wrong.
//! Nothing here waits, and everything is limited: a container can keep its own name server busy, no other's.

mod forward;
mod message;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use self::forward::{Datagram, Stream};
use self::message::{Failure, Kind, Query};
use super::claim::Endpoint;
use super::{Networks, etc};
use crate::error::{Attempt, Result};

/// Where it is asked: docker's address.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of DNS.
const PORT: u16 = 53;

/// The longest message by UDP, with EDNS.
const DATAGRAM_LIMIT_BYTES: usize = 4096;

/// Questions passed on that wait for an answer.
const DATAGRAMS_LIMIT: usize = 64;

/// Connections open at the same time.
const STREAMS_LIMIT: usize = 8;

/// Messages taken at once before others have their turn.
const BURST: usize = 32;

/// The sockets it is asked by.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: OwnedFd,
    pub(crate) tcp: OwnedFd,
}

impl Sockets {
    /// Opens them in the network namespace this process is in.
    pub(super) fn bind() -> Result<Self> {
        let attempted = || format!("listen on {ADDRESS}:{PORT} of the container");
        let udp = UdpSocket::bind((ADDRESS, PORT)).attempt(attempted)?;
        let tcp = TcpListener::bind((ADDRESS, PORT)).attempt(attempted)?;
        Ok(Self { udp: udp.into(), tcp: tcp.into() })
    }
}

/// The name server, to be [served](Server::serve) whenever [its descriptor](AsFd) can be read.
#[derive(Debug)]
pub(crate) struct Server {
    epoll: OwnedFd,
    timer: OwnedFd,
    udp: UdpSocket,
    tcp: TcpListener,
    names: Names,
    /// In place of this machine's name servers.
    servers: Vec<IpAddr>,
    datagrams: Vec<Datagram>,
    streams: Vec<Stream>,
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Server {
    /// Answers for the containers of these networks of `store`.
    pub(crate) fn new(sockets: Sockets, store: &Path, networks: Vec<String>, servers: Vec<IpAddr>) -> Result<Self> {
        let attempted = || "set up the container's name server";
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .attempt(attempted)?;
        let server = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).attempt(attempted)?,
            timer,
            udp: sockets.udp.into(),
            tcp: sockets.tcp.into(),
            names: Names { networks: Networks::at(store), list: networks, status: None },
            servers,
            datagrams: Vec::new(),
            streams: Vec::new(),
        };
        server.udp.set_nonblocking(true).attempt(attempted)?;
        server.tcp.set_nonblocking(true).attempt(attempted)?;
        for fd in [server.udp.as_fd(), server.tcp.as_fd(), server.timer.as_fd()] {
            watch(&server.epoll, fd, epoll::EventFlags::IN).attempt(attempted)?;
        }
        Ok(server)
    }

    /// Follows what `status.json` says of the container's networks.
    pub(crate) fn follow(&mut self, status: PathBuf) {
        self.names.status = Some((status, None));
    }

    /// Does what there is to do, and never waits.
    pub(crate) fn serve(&mut self) {
        // Which of the descriptors it is, is not worth a table: there are few.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.take_datagrams();
        self.take_streams();
        let now = Instant::now();
        let udp = &self.udp;
        self.datagrams.retain_mut(|datagram| datagram.go_on(udp, now));
        let (epoll, names, servers) = (&self.epoll, &mut self.names, &self.servers);
        self.streams.retain_mut(|stream| {
            stream.go_on(epoll, now, &mut |query| match names.answer(query) {
                Some(answer) => Ok(answer),
                None => Err(upstream(names, servers)),
            })
        });
        self.set_timer(now);
    }

    fn take_datagrams(&mut self) {
        let mut buffer = [0; DATAGRAM_LIMIT_BYTES];
        for _ in 0..BURST {
            let Ok((length, client)) = self.udp.recv_from(&mut buffer) else { return };
            let message = &buffer[..length];
            let Some(query) = Query::parse(message) else { continue };
            let answer = match self.names.answer(&query) {
                Some(answer) => answer,
                None => match self.pass_on(message, client) {
                    true => continue,
                    false => query.failure(Failure::Server),
                },
            };
            // Who asks and does not listen has no answer.
            let _ = self.udp.send_to(&answer, client);
        }
    }

    /// False if there is nobody to pass it on to, or if too many wait already.
    fn pass_on(&mut self, message: &[u8], client: SocketAddr) -> bool {
        if self.datagrams.len() >= DATAGRAMS_LIMIT {
            return false;
        }
        let servers = upstream(&self.names, &self.servers);
        let Some(datagram) = Datagram::send(message, client, servers, &self.epoll) else { return false };
        self.datagrams.push(datagram);
        true
    }

    fn take_streams(&mut self) {
        for _ in 0..BURST {
            let Ok((stream, _)) = self.tcp.accept() else { return };
            // One more than there may be is closed at once.
            if self.streams.len() < STREAMS_LIMIT
                && let Some(stream) = Stream::new(stream, &self.epoll)
            {
                self.streams.push(stream);
            }
        }
    }

    /// Wakes when the next one that waits has waited long enough.
    fn set_timer(&self, now: Instant) {
        let deadlines = self.datagrams.iter().map(Datagram::deadline).chain(self.streams.iter().map(Stream::deadline));
        let left = deadlines.min().map_or(Duration::ZERO, |deadline| {
            // Nothing at all would stop the timer.
            deadline.saturating_duration_since(now).max(Duration::from_millis(1))
        });
        let setting = Itimerspec { it_interval: Timespec::default(), it_value: Timespec::try_from(left).unwrap_or_default() };
        // Refused, answers that never come are waited for until the next question.
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
    }
}

/// Who is asked what is not known here: read each time, because that may change.
fn upstream(names: &Names, given: &[IpAddr]) -> Vec<SocketAddr> {
    if names.is_closed() {
        return Vec::new();
    }
    let servers = if given.is_empty() {
        crate::spec::host_file("/etc/resolv.conf").map(|text| etc::name_servers(&text)).unwrap_or_default()
    } else {
        given.to_vec()
    };
    servers.into_iter().map(|server| SocketAddr::new(server, PORT)).collect()
}

/// Has `epoll` wake for `fd`. A descriptor that is closed is forgotten by itself.
fn watch(epoll: impl AsFd, fd: impl AsFd, flags: epoll::EventFlags) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(0), flags)
}

/// Who is called what in the container's networks.
#[derive(Debug)]
struct Names {
    networks: Networks,
    list: Vec<String>,
    /// A file that says which networks these are, and what that was when it was read last.
    status: Option<(PathBuf, Option<SystemTime>)>,
}

impl Names {
    /// `None` for what others have to be asked.
    fn answer(&mut self, query: &Query) -> Option<Vec<u8>> {
        self.follow();
        let own = |name: &&String| name.as_str() != super::DEFAULT;
        if query.kind == Kind::Ptr {
            let address = query.reverse()?;
            let named = |name: &String| {
                let endpoint = self.endpoints(name).into_iter().find(|endpoint| is_at(endpoint, address))?;
                Some(query.pointer(&format!("{}.{name}", first_name(&endpoint))))
            };
            return self.list.iter().filter(own).find_map(named);
        }
        let mut found = Vec::new();
        for network in self.list.iter().filter(own) {
            let name = query.name.strip_suffix(&format!(".{}", network.to_ascii_lowercase())).unwrap_or(&query.name);
            for endpoint in self.endpoints(network).into_iter().filter(|endpoint| is_called(endpoint, name)) {
                found.push(endpoint.address.into());
                found.extend(endpoint.address6.map(|(address, _)| address));
            }
        }
        (!found.is_empty()).then(|| query.addresses(&found))
    }

    fn endpoints(&self, network: &str) -> Vec<Endpoint> {
        self.networks.load(network).map(|network| self.networks.endpoints_unchecked(&network)).unwrap_or_default()
    }

    /// Whether all the networks lead nowhere: then nobody else is asked either.
    fn is_closed(&self) -> bool {
        self.list.iter().all(|name| self.networks.load(name).is_ok_and(|network| network.internal))
    }

    fn follow(&mut self) {
        #[derive(serde::Deserialize)]
        struct Status {
            #[serde(default)]
            endpoints: Vec<Endpoint>,
        }
        let Some((path, seen)) = &mut self.status else { return };
        let modified = std::fs::metadata(&*path).and_then(|file| file.modified()).ok();
        if modified == *seen {
            return;
        }
        *seen = modified;
        let read = std::fs::read(&*path).ok().and_then(|bytes| serde_json::from_slice::<Status>(&bytes).ok());
        if let Some(status) = read {
            self.list = status.endpoints.into_iter().map(|endpoint| endpoint.network).collect();
        }
    }
}

fn is_at(endpoint: &Endpoint, address: IpAddr) -> bool {
    IpAddr::V4(endpoint.address) == address || endpoint.address6.is_some_and(|(own, _)| own == address)
}

/// By its name, an alias, or its ID as it is shown.
fn is_called(endpoint: &Endpoint, name: &str) -> bool {
    let (claim, short) = (&endpoint.claim, short_id(endpoint));
    std::iter::once(claim.name.as_str())
        .chain(claim.aliases.iter().map(String::as_str))
        .chain([short])
        .any(|own| !own.is_empty() && own.eq_ignore_ascii_case(name))
}

fn short_id(endpoint: &Endpoint) -> &str {
    endpoint.claim.container.get(..crate::spec::HOSTNAME_FROM_ID).unwrap_or_default()
}

fn first_name(endpoint: &Endpoint) -> &str {
    if endpoint.claim.name.is_empty() { short_id(endpoint) } else { &endpoint.claim.name }
}
