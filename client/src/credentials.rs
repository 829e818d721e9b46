//! Credentials as docker and podman keep them: `config.json`, `auth.json`, and credential helpers.
//!
//! Lookup is exact by registry host. A helper that fails is an error, never a reason to try other
//! credentials (CVE-2021-41092).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The longest credentials file or helper answer read, in bytes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// The key docker keeps Docker Hub's credentials under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The user name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(...)")
    }
}

/// The credentials kept for a registry, if any. Files in order: `$REGISTRY_AUTH_FILE`,
/// `$XDG_RUNTIME_DIR/containers/auth.json`, `$DOCKER_CONFIG/config.json` (default `~/.docker`).
pub fn find(registry: &str) -> Result<Option<Credentials>> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
    let files = [
        set("REGISTRY_AUTH_FILE"),
        set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    for path in files.into_iter().flatten().filter(|path| path.exists()) {
        if let Some(found) = find_in(&path, registry)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_in(path: &Path, registry: &str) -> Result<Option<Credentials>> {
    let bad = |why: String| Error::Config { path: path.display().to_string(), why };
    let bytes = longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)?;
    // Not the parser's own message: it may quote a secret.
    let config: ConfigFile = serde_json::from_slice(&bytes)
        .map_err(|e| bad(format!("it is not the JSON expected, line {} column {}", e.line(), e.column())))?;
    let keys: Vec<&str> = if registry == longshore_runtime::name::DEFAULT_REGISTRY {
        vec![DOCKER_HUB_KEY, "docker.io", "index.docker.io"]
    } else {
        vec![registry]
    };
    if let Some((key, helper)) = keys.iter().find_map(|key| Some((*key, config.cred_helpers.get(*key)?))) {
        return ask_helper(helper, key);
    }
    let spellings = |key: &str| [key.to_owned(), format!("https://{key}"), format!("https://{key}/")];
    let auth = keys.iter().flat_map(|key| spellings(key)).find_map(|key| config.auths.get(&key));
    let damaged = |()| bad(format!("the entry of {registry} is damaged; log in again"));
    if let Some(found) = auth.map(decode).transpose().map_err(damaged)?.flatten() {
        return Ok(Some(found));
    }
    if config.creds_store.is_empty() { Ok(None) } else { ask_helper(&config.creds_store, keys[0]) }
}

fn decode(auth: &Auth) -> Result<Option<Credentials>, ()> {
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Credentials::IdentityToken(auth.identitytoken.clone())));
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::Basic { user: auth.username.clone(), password: auth.password.clone() }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let raw = STANDARD.decode(auth.auth.trim()).map_err(drop)?;
    let text = String::from_utf8(raw).map_err(drop)?;
    let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(())?;
    Ok(Some(Credentials::Basic { user: user.into(), password: password.into() }))
}

/// Runs `docker-credential-HELPER get` (docker's credential helper protocol).
fn ask_helper(helper: &str, key: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Secret {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let bad = |why: String| Error::Config { path: program.clone(), why };
    if helper.contains('/') {
        return Err(bad("a credential helper's name must not hold a slash".into()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| bad(format!("cannot run this credential helper: {e}")))?;
    let mut answer = Vec::new();
    let exchanged = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(key.as_bytes()))
        .and_then(|()| child.stdout.take().map_or(Ok(0), |stdout| stdout.take(FILE_LIMIT_BYTES).read_to_end(&mut answer)));
    let status = child.wait().map_err(|e| bad(e.to_string()))?;
    exchanged.map_err(|e| bad(e.to_string()))?;
    if !status.success() {
        if String::from_utf8_lossy(&answer).contains("credentials not found") {
            return Ok(None);
        }
        return Err(bad(format!("this credential helper failed for {key} ({status}); nothing was sent")));
    }
    let secret: Secret =
        serde_json::from_slice(&answer).map_err(|_| bad("its answer is not what a credential helper says".into()))?;
    Ok(Some(match secret.username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(secret.secret),
        _ => Credentials::Basic { user: secret.username, password: secret.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_json(json: &str, registry: &str) -> Result<Option<Credentials>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        find_in(file.path(), registry)
    }

    #[test]
    fn credentials_are_found_by_exact_host_only() {
        let json = r#"{"auths":{"reg.example":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"auth":"aDpp"}}}"#;
        let basic = |user: &str, password: &str| Some(Credentials::Basic { user: user.into(), password: password.into() });
        assert_eq!(find_json(json, "reg.example").unwrap(), basic("u", "p:q"));
        assert_eq!(find_json(json, "docker.io").unwrap(), basic("h", "i"));
        for other in ["reg.example:5000", "example", "evil-reg.example", "reg.example.evil"] {
            assert_eq!(find_json(json, other).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn cve_2021_41092_a_broken_helper_is_an_error_not_a_fallback() {
        let json = r#"{"auths":{"reg.example":{"auth":"dTpw"}},"credHelpers":{"reg.example":"that-is-not-installed"}}"#;
        assert!(matches!(find_json(json, "reg.example"), Err(Error::Config { .. })));
        assert!(find_json(r#"{"credsStore":"../evil"}"#, "reg.example").is_err());
    }

    #[test]
    fn cve_2025_48374_no_secret_in_debug_output_or_errors() {
        let basic = Credentials::Basic { user: "u".into(), password: "hunter2".into() };
        assert!(!format!("{basic:?}").contains("hunter2"));
        let e = find_json(r#"{"auths":{"r":{"auth":7, "password":"hunter2"}}}"#, "r").unwrap_err();
        assert!(!e.to_string().contains("hunter2"));
    }
}
