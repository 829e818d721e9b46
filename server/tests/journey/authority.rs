//! A private authority, made by openssl, and registries that are known by its certificates only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::common::needs::installed;
use super::common::{Rhub, wait_until};
use super::tools::program_path;

/// An authority in a directory: `ca.crt`, and what it signed.
pub struct Authority(tempfile::TempDir);

impl Authority {
    /// `None` (and a line that says so) without openssl.
    pub fn new() -> Option<Self> {
        let authority = installed("openssl").then(|| Self(tempfile::tempdir().unwrap()))?;
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        );
        Some(authority)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// NAME.crt and NAME.key, for a host at this address.
    pub fn sign(&self, name: &str, address: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        let extensions = format!("subjectAltName=IP:{address}\nbasicConstraints=critical,CA:FALSE\n");
        std::fs::write(self.path("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.crt"
        ));
    }

    /// The same, signed by nobody else.
    pub fn sign_itself(&self, name: &str, address: &str) {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=IP:{address} -keyout {name}.key -out {name}.crt"
        ));
    }

    /// A registry on the loopback that speaks TLS only.
    pub fn rhub(&self) -> Rhub {
        self.sign("server", "127.0.0.1");
        Rhub::start_command(self.serve_command("127.0.0.1:0", "server"))
    }

    /// `rhub serve` with the certificate of this name.
    pub fn serve_command(&self, listen: &str, name: &str) -> Command {
        let mut command = Command::new(program_path("rhub"));
        command.args(["serve", "--listen", listen, "--data"]).arg(self.path("data"));
        command.arg("--tls-certificate").arg(self.path(&format!("{name}.crt")));
        command.arg("--tls-key").arg(self.path(&format!("{name}.key")));
        command
    }

    /// Puts files into a directory of certificates: each name, and the name it gets there.
    pub fn put(&self, directory: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(directory).unwrap();
        for (from, to) in files {
            std::fs::copy(self.path(from), directory.join(to)).unwrap();
        }
    }
}

/// Debian's docker-registry, which can demand client certificates; ended when dropped.
pub struct Demanding {
    pub address: String,
    child: Child,
}

impl Demanding {
    pub fn start(authority: &Authority) -> Option<Self> {
        if !installed("docker-registry") {
            return None;
        }
        authority.sign("server", "127.0.0.1");
        // It cannot be asked which port it got.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let path = |name: &str| authority.path(name).display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n  \
             tls: {{certificate: {}, key: {}, clientcas: [{}]}}\n",
            path("registry"),
            path("server.crt"),
            path("server.key"),
            path("ca.crt")
        );
        std::fs::write(authority.path("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(authority.path("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        wait_until("docker-registry serves", || std::net::TcpStream::connect(&address).is_ok());
        Some(Self { address, child })
    }
}

impl Drop for Demanding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
