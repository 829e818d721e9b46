//! Debian's docker-registry: no referrers, no deletion of tags alone.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};

use super::common::needs::installed;
use super::common::wait_until;

/// A running one that deletes, ended when dropped.
pub struct DebianRegistry {
    pub address: String,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl DebianRegistry {
    pub fn start() -> Option<Self> {
        if !installed("docker-registry") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        // It cannot be asked which port it got, so a free one is found for it.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = directory.path().join("config.yml");
        let data = directory.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: \"{address}\" }}\n\
             storage: {{ filesystem: {{ rootdirectory: \"{}\" }}, delete: {{ enabled: true }} }}\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&config).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let registry = Self { address, child, _directory: directory };
        wait_until("docker-registry serves", || TcpStream::connect(&registry.address).is_ok());
        Some(registry)
    }
}
