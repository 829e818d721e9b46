//! The configuration: one TOML file, overridden by the environment, overridden by flags.
//!
//! Every key stands in [`keys::KEYS`] with what it may be; from there come the names of the
//! environment variables, the checks, and the list `rhub config check` prints. What the keys mean is
//! written in `docs/configuration.md`.

pub mod keys;
mod layers;
mod problem;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::layers::{Effective, Loaded, Origin, Sources, load};
pub use self::problem::{Problem, Problems};
use crate::access;
use crate::limits::Limits;

/// Where the configuration is looked for when nobody says where; nothing there is fine.
pub const DEFAULT_FILE: &str = "/etc/rhub/config.toml";
/// The longest configuration file read, in bytes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Everything an operator may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listen on an address others can reach although there is no TLS, or nobody is asked who they are.
    pub insecure: bool,
    /// Where everything is kept. Never empty in a loaded configuration.
    pub data: PathBuf,
    /// Certificate and key; without them, plain HTTP.
    pub tls: Option<Tls>,
    /// Who may do what; without it, everybody may do everything.
    pub access: Option<access::Settings>,
    /// What bounds the work taken on.
    pub limits: Limits,
    /// When garbage is collected.
    pub gc: Gc,
    /// What is logged, and how.
    pub log: Log,
}

/// `[tls]`: files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, followed by those that lead to the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[gc]`: garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gc {
    /// From one collection to the next.
    pub interval_s: u64,
    /// For how long content is kept that a client was told is there, and that nothing refers to.
    pub grace_s: u64,
    /// Manifests that have had no tag, and no manifest that names them, for this long are garbage;
    /// not set, never.
    pub untagged_after_s: Option<u64>,
}

/// `[log]`: what goes to standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important kind of line that is written.
    pub level: Level,
    /// Lines for people or for programs.
    pub format: Format,
}

/// See [`Log::level`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What failed in the server.
    Error,
    /// And what will fail if nobody looks at it.
    #[default]
    Warn,
    /// And one line a request.
    Info,
    /// And what helps to find a fault.
    Debug,
}

/// See [`Log::format`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            insecure: false,
            data: PathBuf::new(),
            tls: None,
            access: None,
            limits: Limits::default(),
            gc: Gc::default(),
            log: Log::default(),
        }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self { interval_s: 3600, grace_s: 24 * 3600, untagged_after_s: None }
    }
}

impl Config {
    /// Why this must not be served, if it must not: others could reach it, and nothing would keep
    /// them from reading along, or from pushing and deleting.
    pub fn exposed(&self) -> Option<Problem> {
        if self.insecure || self.listen.ip().to_canonical().is_loopback() {
            return None;
        }
        let mut missing = Vec::new();
        if self.tls.is_none() {
            missing.push("there is no TLS: set tls.certificate and tls.key");
        }
        if !self.access.as_ref().is_some_and(access::Settings::decides) {
            missing.push(
                "anyone could push and delete: set access.htpasswd, or write an [[access.rules]] for who = [\"anonymous\"]",
            );
        }
        let why = format!("{} can be reached by others, and {}", self.listen, missing.join("; and "));
        let advice = "or listen on 127.0.0.1 or [::1]; or say --insecure if you mean it";
        (!missing.is_empty()).then(|| Problem::of_key("listen", format!("{why}; {advice}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(listen: &str, tls: bool, access: Option<access::Settings>, insecure: bool) -> Option<String> {
        let tls = tls.then(|| Tls { certificate: "c".into(), key: "k".into() });
        let config = Config { listen: listen.parse().unwrap(), tls, access, insecure, ..Config::default() };
        config.exposed().map(|problem| problem.to_string())
    }

    fn users() -> Option<access::Settings> {
        Some(access::Settings { htpasswd: Some("users".into()), ..access::Settings::default() })
    }

    #[test]
    fn only_the_loopback_is_served_without_tls_and_users() {
        for listen in ["127.0.0.1:5000", "127.8.8.8:1", "[::1]:0", "[::ffff:127.0.0.1]:5000"] {
            assert_eq!(exposed(listen, false, None, false), None, "{listen}");
        }
        for listen in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:0", "[::ffff:192.0.2.1]:1"] {
            let both = exposed(listen, false, None, false).expect(listen);
            assert!(
                both.contains("tls.certificate") && both.contains("access.htpasswd") && both.contains("--insecure"),
                "{both}"
            );
            let plain = exposed(listen, false, users(), false).expect(listen);
            assert!(plain.contains("tls.certificate") && !plain.contains("access.htpasswd"), "{plain}");
            let open = exposed(listen, true, None, false).expect(listen);
            assert!(!open.contains("tls.certificate") && open.contains("access.htpasswd"), "{open}");
            assert_eq!(exposed(listen, true, users(), false), None);
            assert_eq!(exposed(listen, false, None, true), None);
        }
    }
}
