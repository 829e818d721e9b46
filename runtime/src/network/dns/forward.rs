//! Questions for others, and the way back of their answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::message::{Failure, Query};
use super::{DATAGRAM_LIMIT_BYTES, watch};

/// How long one server has to answer before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a question is asked, all servers together.
const TRIES: usize = 3;

/// How long a connection may be of no use.
const IDLE: Duration = Duration::from_secs(10);

/// The longest question by TCP; answers pass as they come.
const QUESTION_LIMIT_BYTES: usize = 4096;

/// How much of an answer is on its way at once.
const CHUNK_BYTES: usize = 4096;

/// A question by UDP that was passed on: by a socket of its own, so that no answer reaches another's question.
#[derive(Debug)]
pub(super) struct Datagram {
    socket: UdpSocket,
    query: Vec<u8>,
    client: SocketAddr,
    servers: Vec<SocketAddr>,
    tries: usize,
    deadline: Instant,
}

impl Datagram {
    /// `None` if there is nobody to be asked.
    pub(super) fn send(query: &[u8], client: SocketAddr, servers: Vec<SocketAddr>, epoll: &OwnedFd) -> Option<Self> {
        let first = servers.first()?;
        let any: IpAddr = if first.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        watch(epoll, &socket, EventFlags::IN).ok()?;
        // A socket is of one family.
        let servers = servers.into_iter().filter(|server| server.is_ipv6() == any.is_ipv6()).collect();
        let mut datagram = Self { socket, query: query.to_vec(), client, servers, tries: 0, deadline: Instant::now() };
        datagram.ask(Instant::now());
        Some(datagram)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    fn ask(&mut self, now: Instant) {
        let server = self.servers[self.tries % self.servers.len()];
        self.tries += 1;
        self.deadline = now + PATIENCE;
        // Who cannot be reached does not answer, and the next one is asked.
        if self.socket.connect(server).and_then(|()| self.socket.send(&self.query)).is_err() {
            self.deadline = now;
        }
    }

    /// False once the client has its answer.
    pub(super) fn go_on(&mut self, udp: &UdpSocket, now: Instant) -> bool {
        let mut answer = [0; DATAGRAM_LIMIT_BYTES];
        loop {
            match self.socket.recv(&mut answer) {
                // The answer to this question: the number is its own.
                Ok(length) if length > 2 && answer[..2] == self.query[..2] && answer[2] & 0x80 != 0 => {
                    let _ = udp.send_to(&answer[..length], self.client);
                    return false;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Nobody is there.
                Err(_) => {
                    self.deadline = now;
                    break;
                }
            }
        }
        if now < self.deadline {
            return true;
        }
        if self.tries < TRIES.max(self.servers.len()) {
            self.ask(now);
            return true;
        }
        if let Some(query) = Query::parse(&self.query) {
            let _ = udp.send_to(&query.failure(Failure::Server), self.client);
        }
        false
    }
}

/// The answer to a question, or who else is to be asked.
type Answer<'a> = dyn FnMut(&Query) -> Result<Vec<u8>, Vec<SocketAddr>> + 'a;

/// A client's connection: questions that are answered here, until there is one that is not. From there on the
/// connection is one with a server.
#[derive(Debug)]
pub(super) struct Stream {
    client: TcpStream,
    server: Option<TcpStream>,
    /// Read of the client and not dealt with.
    asked: Vec<u8>,
    /// For the client and not written yet.
    answer: Vec<u8>,
    deadline: Instant,
}

/// Wakes once for each change: what can be done is done then, or there is a reason to be woken again.
const EDGE: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::ET);

impl Stream {
    pub(super) fn new(client: TcpStream, epoll: &OwnedFd) -> Option<Self> {
        client.set_nonblocking(true).ok()?;
        watch(epoll, &client, EDGE).ok()?;
        Some(Self { client, server: None, asked: Vec::new(), answer: Vec::new(), deadline: Instant::now() + IDLE })
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// False once it is over.
    pub(super) fn go_on(&mut self, epoll: &OwnedFd, now: Instant, answer: &mut Answer<'_>) -> bool {
        if now >= self.deadline {
            return false;
        }
        loop {
            let Ok(written) = write(&mut self.client, &mut self.answer) else { return false };
            let Ok(read) = self.read_client() else { return false };
            let Ok(worked) = self.work(epoll, answer) else { return false };
            if !(written || read || worked) {
                return true;
            }
            self.deadline = now + IDLE;
        }
    }

    fn read_client(&mut self) -> Result<bool, ()> {
        if self.asked.len() >= QUESTION_LIMIT_BYTES + 2 || !self.answer.is_empty() {
            return Ok(false);
        }
        read(&mut self.client, &mut self.asked)
    }

    /// Answers a question, or passes bytes on in both directions.
    fn work(&mut self, epoll: &OwnedFd, answer: &mut Answer<'_>) -> Result<bool, ()> {
        if let Some(server) = &mut self.server {
            let written = write(server, &mut self.asked)?;
            let read = self.answer.is_empty() && read(server, &mut self.answer)?;
            return Ok(written || read);
        }
        let Some((head, rest)) = self.asked.split_first_chunk::<2>() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > QUESTION_LIMIT_BYTES {
            return Err(());
        }
        let Some(message) = rest.get(..length) else { return Ok(false) };
        let query = Query::parse(message).ok_or(())?;
        let bytes = match answer(&query) {
            Ok(bytes) => bytes,
            Err(servers) => match servers.first().and_then(|server| connect(*server)) {
                Some(server) => {
                    watch(epoll, &server, EDGE).map_err(drop)?;
                    self.server = Some(server);
                    return Ok(true);
                }
                None => query.failure(Failure::Server),
            },
        };
        self.asked.drain(..length + 2);
        self.answer.extend((bytes.len() as u16).to_be_bytes());
        self.answer.extend(bytes);
        Ok(true)
    }
}

/// Begins a connection without waiting for it.
fn connect(server: SocketAddr) -> Option<TcpStream> {
    let family = if server.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).ok()?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Some(socket.into()),
        Err(_) => None,
    }
}

/// Whether anything was written; an error that it never will be.
fn write(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<bool, ()> {
    if bytes.is_empty() {
        return Ok(false);
    }
    match stream.write(bytes) {
        Ok(length) => {
            bytes.drain(..length);
            Ok(length > 0)
        }
        // One that is not connected yet, too.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted) => {
            Ok(false)
        }
        Err(_) => Err(()),
    }
}

/// Whether anything was read; an error that nothing ever will be.
fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<bool, ()> {
    let mut chunk = [0; CHUNK_BYTES];
    match stream.read(&mut chunk) {
        Ok(0) => Err(()),
        Ok(length) => {
            bytes.extend(&chunk[..length]);
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted) => {
            Ok(false)
        }
        Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_by_tcp_is_answered_here_or_passed_on_whole() {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(own.local_addr().unwrap()).unwrap();
        let mut stream = Stream::new(own.accept().unwrap().0, &epoll).unwrap();
        let query = b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x02db\0\0\x01\0\x01";
        let framed = [&[0, query.len() as u8][..], query].concat();
        let served = |stream: &mut Stream, known: bool| {
            stream.go_on(&epoll, Instant::now(), &mut |query: &Query| {
                if known {
                    Ok(query.addresses(&["10.0.0.1".parse().unwrap()]))
                } else {
                    Err(vec![upstream.local_addr().unwrap()])
                }
            })
        };
        // In two pieces.
        client.write_all(&framed[..5]).unwrap();
        assert!(served(&mut stream, true));
        client.write_all(&framed[5..]).unwrap();
        let mut answer = [0; 2];
        client.set_nonblocking(true).unwrap();
        while client.read_exact(&mut answer).is_err() {
            assert!(served(&mut stream, true));
        }
        client.set_nonblocking(false).unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes(answer))];
        client.read_exact(&mut rest).unwrap();
        assert!(rest.ends_with(&[10, 0, 0, 1]));
        // The next one another has to answer, who sees it as it was.
        client.write_all(&framed).unwrap();
        upstream.set_nonblocking(true).unwrap();
        let mut other = loop {
            assert!(served(&mut stream, false));
            if let Ok((other, _)) = upstream.accept() {
                break other;
            }
        };
        other.set_nonblocking(true).unwrap();
        let mut heard = vec![0; framed.len()];
        while other.read_exact(&mut heard).is_err() {
            assert!(served(&mut stream, false));
        }
        assert_eq!(heard, framed);
        drop(client);
        while served(&mut stream, false) {}
    }
}
