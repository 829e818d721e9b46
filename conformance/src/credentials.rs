//! The credentials a registry is judged with: given by hand, or as docker and podman keep them.
//!
//! Lookup is by the registry's exact host and port. A credential helper that fails is an error, never a
//! reason to try other credentials.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;

use crate::limits::{CREDENTIALS_LIMIT_BYTES, PASSWORD_LIMIT_BYTES};

/// The key docker keeps Docker Hub's credentials under, and the hosts that means.
const DOCKER_HUB: (&str, [&str; 3]) = ("https://index.docker.io/v1/", ["docker.io", "index.docker.io", "registry-1.docker.io"]);

/// The user name by which docker's credential helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// A user name and a password. What it holds is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(...)")
    }
}

impl Credentials {
    /// A user and a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, to make a wrong one of it.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The value of a Basic `Authorization` header (RFC 7617).
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(Default, Deserialize)]
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

/// The password as the first line of `input`.
///
/// # Errors
/// When it cannot be read, or is empty or over the limit.
pub fn read_password(input: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let attempt = "read the password from standard input";
    input.take(PASSWORD_LIMIT_BYTES + 1).read_to_string(&mut text).context(attempt)?;
    ensure!(text.len() as u64 <= PASSWORD_LIMIT_BYTES, "{attempt}: it is over {PASSWORD_LIMIT_BYTES} bytes");
    let line = text.lines().next().unwrap_or_default().to_owned();
    ensure!(!line.is_empty(), "{attempt}: there is none");
    Ok(line)
}

/// The credentials kept for the registry at `url`, if any. Files in order: `$REGISTRY_AUTH_FILE`,
/// `$XDG_RUNTIME_DIR/containers/auth.json`, `$DOCKER_CONFIG/config.json` (default `~/.docker`).
///
/// # Errors
/// When a file is damaged, a credential helper fails, or an identity token is kept, which cannot be used.
pub fn find(url: &Url) -> anyhow::Result<Option<Credentials>> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
    let files = [
        set("REGISTRY_AUTH_FILE"),
        set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    for path in files.into_iter().flatten().filter(|path| path.exists()) {
        let found = find_in(&path, &authority(url));
        if let Some(found) = found.with_context(|| format!("look for credentials in {}", path.display()))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// `host[:port]`, the port where it is not the scheme's own.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host and port in a key of a configuration, which may be a whole URL.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn find_in(path: &Path, registry: &str) -> anyhow::Result<Option<Credentials>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CREDENTIALS_LIMIT_BYTES).read_to_end(&mut bytes)?;
    // Not the parser's own message: it may quote a secret.
    let config: ConfigFile = serde_json::from_slice(&bytes)
        .map_err(|e| anyhow::anyhow!("it is not the JSON expected, line {} column {}", e.line(), e.column()))?;
    let (hub_key, hub_hosts) = DOCKER_HUB;
    let (is_hub, key) = if hub_hosts.contains(&registry) { (true, hub_key) } else { (false, registry) };
    let fits = |candidate: &str| host_of(candidate) == registry || (is_hub && hub_hosts.contains(&host_of(candidate)));
    if let Some((key, helper)) = config.cred_helpers.iter().find(|(key, _)| fits(key)) {
        return ask_helper(helper, key);
    }
    if let Some((_, auth)) = config.auths.iter().find(|(key, _)| fits(key))
        && let Some(found) = decode(auth).with_context(|| format!("the entry of {registry}"))?
    {
        return Ok(Some(found));
    }
    if config.creds_store.is_empty() { Ok(None) } else { ask_helper(&config.creds_store, key) }
}

fn decode(auth: &Auth) -> anyhow::Result<Option<Credentials>> {
    if !auth.identitytoken.is_empty() {
        bail!("an identity token is kept there: give a user and a password with --user");
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::new(&auth.username, &auth.password)));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let raw = STANDARD.decode(auth.auth.trim()).ok().and_then(|raw| String::from_utf8(raw).ok());
    let pair = raw.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (user, password) = pair.context("it is no base64 of user:password; log in again")?;
    Ok(Some(Credentials::new(user, password)))
}

/// Runs `docker-credential-HELPER get` (docker's credential helper protocol).
fn ask_helper(helper: &str, key: &str) -> anyhow::Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    ensure!(!helper.contains('/'), "the name of a credential helper must not hold a slash: {helper:?}");
    let program = format!("docker-credential-{helper}");
    let attempt = || format!("ask {program} for the credentials of {key}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(attempt)?;
    let mut answer = Vec::new();
    let asked = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(key.as_bytes()));
    let read = child.stdout.take().map_or(Ok(0), |stdout| stdout.take(CREDENTIALS_LIMIT_BYTES).read_to_end(&mut answer));
    let status = child.wait().with_context(attempt)?;
    if !status.success() {
        if String::from_utf8_lossy(&answer).contains("credentials not found") {
            return Ok(None);
        }
        bail!("{}: it failed ({status})", attempt());
    }
    asked.and(read).with_context(attempt)?;
    // Not the parser's own message: it may quote the secret.
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| anyhow::anyhow!("{}: its answer is not the JSON expected", attempt()))?;
    ensure!(answer.username != TOKEN_USER, "{}: it has an identity token; give a user and a password with --user", attempt());
    Ok(Some(Credentials::new(answer.username, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_json(json: &str, registry: &str) -> anyhow::Result<Option<Credentials>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        find_in(file.path(), registry)
    }

    #[test]
    fn credentials_are_found_by_exact_host_only() {
        let json = r#"{"auths":{"reg.example":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"auth":"aDpp"}}}"#;
        assert_eq!(find_json(json, "reg.example").unwrap(), Some(Credentials::new("u", "p:q")));
        assert_eq!(find_json(json, "registry-1.docker.io").unwrap(), Some(Credentials::new("h", "i")));
        for other in ["reg.example:5000", "example", "evil-reg.example", "reg.example.evil", ""] {
            assert_eq!(find_json(json, other).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn a_broken_helper_is_an_error_not_a_fallback() {
        let json = r#"{"auths":{"reg.example":{"auth":"dTpw"}},"credHelpers":{"reg.example":"that-is-not-installed"}}"#;
        assert!(find_json(json, "reg.example").is_err());
        assert!(find_json(r#"{"credsStore":"../evil"}"#, "reg.example").is_err());
    }

    #[test]
    fn no_secret_is_in_debug_output_or_errors() {
        assert!(!format!("{:?}", Credentials::new("u", "hunter2")).contains("hunter2"));
        for bad in [
            r#"{"auths":{"r":{"auth":7,"password":"hunter2"}}}"#,
            r#"{"auths":{"r":{"auth":"aHVudGVyMg=="}}}"#,
            r#"{"auths":{"r":{"identitytoken":"hunter2"}}}"#,
        ] {
            let said = format!("{:?}", find_json(bad, "r").unwrap_err());
            assert!(!said.contains("hunter2") && !said.contains("aHVudGVyMg"), "{said}");
        }
    }

    #[test]
    fn a_password_is_the_first_line() {
        assert_eq!(read_password(&b"correct horse\r\nrest"[..]).unwrap(), "correct horse");
        assert!(read_password(&b"\n"[..]).is_err());
    }
}
