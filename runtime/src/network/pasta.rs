//! pasta, of the package passt: it copies this machine's addresses and routes into the container.

use std::ffi::OsString;
use std::path::Path;

use super::outside::{PID_FILE, Way};
use super::publish::{Protocol, Published};
use crate::error::Result;

/// Starts it; it writes its number when it is ready.
pub(super) fn open(way: &Way<'_>, program: &Path, namespace: &Path) -> Result<()> {
    let pid_file = way.directory.join(PID_FILE);
    let words = arguments(way, namespace, &pid_file);
    way.start(program, &words, |_| std::fs::metadata(&pid_file).is_ok_and(|file| file.len() > 0).then_some(()))
}

fn arguments(way: &Way<'_>, namespace: &Path, pid_file: &Path) -> Vec<OsString> {
    // This process ends it, or the kernel when this process is gone.
    let fixed = ["pasta", "--foreground", "--no-netns-quit", "--config-net", "--no-map-gw", "--netns-only"];
    let mut words: Vec<OsString> = fixed.map(Into::into).into();
    words.extend(way.interface.into_iter().flat_map(|name| ["--ns-ifname", name]).map(Into::into));
    words.extend(["-T", "none", "-U", "none", "--pid"].map(Into::into));
    words.push(pid_file.into());
    for (protocol, flag) in [(Protocol::Tcp, "-t"), (Protocol::Udp, "-u")] {
        let mut own: Vec<String> = way.published.iter().filter(|one| one.protocol == protocol).map(forward).collect();
        if own.is_empty() {
            own.push("none".into());
        }
        words.extend(own.into_iter().flat_map(|ports| [flag.into(), ports.into()]));
    }
    words.extend(["--netns".into(), namespace.into()]);
    words
}

fn forward(one: &Published) -> String {
    let host = one.host.map_or_else(String::new, |host| format!("{host}/"));
    format!("{host}{}:{}", one.host_port, one.port)
}
