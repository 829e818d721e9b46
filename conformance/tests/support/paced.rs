//! A server that answers GETs with what a test says, after as long as a test says, one request after the other.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The size of the blob [`start`] serves.
pub(crate) const BLOB_BYTES: usize = 4096;

/// Serves one blob. `pause` says how long the request with a number takes, the first being 0.
pub(crate) fn start(pause: impl Fn(u64) -> Duration + Send + Sync + 'static) -> SocketAddr {
    answering(move |number, _| {
        // What a slow registry does is what this is about.
        thread::sleep(pause(number));
        (200, vec![b'x'; BLOB_BYTES])
    })
}

/// Serves a status and a body by the number of a request and its head. It does so until the test process ends.
pub(crate) fn answering(answer: impl Fn(u64, &str) -> (u16, Vec<u8>) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let turn = Arc::new((Mutex::new(0), answer));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let turn = turn.clone();
            thread::spawn(move || serve(&stream, &turn.0, &turn.1));
        }
    });
    address
}

/// Until the client closes the connection.
fn serve(stream: &TcpStream, count: &Mutex<u64>, answer: &impl Fn(u64, &str) -> (u16, Vec<u8>)) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let mut count = count.lock().unwrap();
        let (status, body) = answer(*count, &head);
        *count += 1;
        drop(count);
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
        (&mut &*stream).write_all(&[head.as_bytes(), &body].concat()).ok()?;
    }
}
