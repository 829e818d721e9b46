//! What `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container begin with, and what the host's hold.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Attempt, Result};

/// The largest of these files taken over from the host.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The names of the files, in `/etc` of the container and in the directory the caller keeps them in.
pub const ETC_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// `/etc/hosts` of every container that does not have the host's network.
pub(crate) const LOCAL_HOSTS: &str =
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The host's file; empty if it has none.
pub(crate) fn host_file(path: &str) -> Result<String> {
    if !Path::new(path).is_file() {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    let file = File::open(path).attempt(|| format!("open {path}"))?;
    file.take(FILE_LIMIT_BYTES).read_to_end(&mut text).attempt(|| format!("read {path}"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
