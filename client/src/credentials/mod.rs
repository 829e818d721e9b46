//! Credentials as docker and podman keep them: `config.json`, `auth.json`, and credential helpers.
//!
//! Lookup is exact by registry host. A helper that fails is an error, never a reason to try other
//! credentials (CVE-2021-41092).

mod file;
mod helper;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::file::CredentialsFile;
use crate::config::{Keeper, config_home, docker_config, set};
use crate::error::{Error, Result};

/// Who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// A user name and a password or access token.
    Basic {
        /// The user.
        user: String,
        /// The secret.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(...)")
    }
}

impl Credentials {
    /// The value of a Basic `Authorization` header; `None` for a token, which only a token server takes.
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Basic { user, password } => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            Self::IdentityToken(_) => None,
        }
    }
}

/// Credentials, and who had them.
#[derive(Debug, Clone)]
pub struct Found {
    /// The credentials.
    pub credentials: Credentials,
    /// The file or helper, for people.
    pub from: String,
}

/// Where credentials may be, the first that has some for a registry counts: `$REGISTRY_AUTH_FILE`,
/// `$XDG_RUNTIME_DIR/containers/auth.json` (without that directory, podman's own for it),
/// `~/.config/containers/auth.json`, `$DOCKER_CONFIG/config.json` (default `~/.docker`).
fn files() -> Vec<CredentialsFile> {
    let user = rustix::process::getuid().as_raw();
    let runtime = set("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/containers/{user}").into());
    let containers = if set("XDG_RUNTIME_DIR").is_some() { "containers/auth.json" } else { "auth.json" };
    let list = [
        set("REGISTRY_AUTH_FILE"),
        Some(runtime.join(containers)),
        config_home().map(|directory| directory.join("containers/auth.json")),
        docker_config(),
    ];
    list.into_iter().flatten().filter(|path| path.exists()).map(CredentialsFile::new).collect()
}

/// The credentials kept for a repository of a registry, if any.
pub fn find(registry: &str, repository: &str) -> Result<Option<Credentials>> {
    Ok(look_up(registry, repository, None)?.map(|found| found.credentials))
}

/// The same, and who has them; `keeper` alone is asked if there is one.
pub fn look_up(registry: &str, repository: &str, keeper: Option<&Keeper>) -> Result<Option<Found>> {
    match keeper {
        Some(Keeper::Helper(name)) => file::ask_helper(name, registry),
        Some(Keeper::File(path)) => CredentialsFile::new(path.clone()).look_up(registry, repository),
        None => {
            for file in files() {
                if let Some(found) = file.look_up(registry, repository)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
    }
}

/// What became of credentials that were to be kept.
#[derive(Debug)]
pub struct Kept {
    /// The file that holds them, or names the helper that does.
    pub path: PathBuf,
    /// They are in that file, in the clear.
    pub in_the_clear: bool,
}

/// Keeps credentials for a registry where they will be found: with `keeper` if there is one, else in the file that has
/// some for it already, else in `$REGISTRY_AUTH_FILE` or docker's.
pub fn store(registry: &str, credentials: &Credentials, keeper: Option<&Keeper>) -> Result<Kept> {
    match keeper {
        Some(Keeper::Helper(name)) => {
            file::tell_helper(name, registry, credentials)?;
            return Ok(Kept { path: format!("docker-credential-{name}").into(), in_the_clear: false });
        }
        Some(Keeper::File(path)) => return keep(&CredentialsFile::new(path.clone()), registry, credentials),
        None => {}
    }
    for file in files() {
        if file.find(registry, "")?.is_some() {
            return keep(&file, registry, credentials);
        }
    }
    let nowhere =
        || Error::Config { path: "~/.docker/config.json".into(), why: "HOME is not set: set it, or REGISTRY_AUTH_FILE".into() };
    let path = set("REGISTRY_AUTH_FILE").or_else(docker_config).ok_or_else(nowhere)?;
    keep(&CredentialsFile::new(path), registry, credentials)
}

fn keep(file: &CredentialsFile, registry: &str, credentials: &Credentials) -> Result<Kept> {
    let in_the_clear = file.store(registry, credentials)?;
    Ok(Kept { path: Path::to_owned(file.path()), in_the_clear })
}

/// Forgets what is kept for a registry, with `keeper` and wherever else it is; `false` when there was nothing.
pub fn forget(registry: &str, keeper: Option<&Keeper>) -> Result<bool> {
    let mut found = match keeper {
        Some(Keeper::Helper(name)) => file::clear_helper(name, registry)?,
        Some(Keeper::File(path)) if path.exists() => CredentialsFile::new(path.clone()).forget(registry)?,
        _ => false,
    };
    for file in files() {
        found |= file.forget(registry)?;
    }
    Ok(found)
}
