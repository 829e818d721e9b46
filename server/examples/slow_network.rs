//! A long way before a registry: so much delay for a request, so much bandwidth for a connection. For
//! `server/benches/transfer.sh`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of a benchmark")]
#![allow(unreachable_pub, reason = "a program has no outside")]

#[path = "../tests/common/proxy.rs"]
mod proxy;

use std::time::Duration;

use proxy::{Link, Proxy, Weather};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [upstream, latency_ms, megabytes_per_second] = &words[..] else {
        panic!("usage: slow_network HOST:PORT LATENCY_MS MEGABYTES_PER_SECOND");
    };
    let bytes_per_second = megabytes_per_second.parse::<u64>().unwrap() * 1_000_000;
    let link = Link { latency: Duration::from_millis(latency_ms.parse().unwrap()), bytes_per_second };
    let proxy = Proxy::start(upstream, Weather { link: Some(link), ..Weather::default() });
    println!("{}", proxy.address);
    loop {
        std::thread::park();
    }
}
