//! One file of credentials, docker's `config.json` or containers' `auth.json`: looked into, and changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longshore_runtime::files;
use longshore_runtime::name::DEFAULT_REGISTRY;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::helper::Helper;
use super::{Credentials, Found};
use crate::error::{Error, Result};

/// The longest file read, in bytes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// The key docker keeps Docker Hub's credentials under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A file that holds credentials, or says which program does.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Content {
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

impl Content {
    /// The helper that keeps what belongs to one of `keys`, and the key it knows that by.
    fn helper<'a>(&self, keys: &[&'a str]) -> Result<Option<(Helper, &'a str)>> {
        let of_registry = keys.iter().find_map(|key| Some((self.cred_helpers.get(*key)?, *key)));
        let of_all = Some((&self.creds_store, keys[0])).filter(|(name, _)| !name.is_empty());
        of_registry.or(of_all).map(|(name, key)| Ok((Helper::new(name)?, key))).transpose()
    }
}

/// The names a registry may have in such a file, that which is written first.
fn keys(registry: &str) -> Vec<&str> {
    if registry == DEFAULT_REGISTRY { vec![DOCKER_HUB_KEY, "docker.io", "index.docker.io"] } else { vec![registry] }
}

/// How such a name may be spelt as a key of `auths`.
fn spellings(key: &str) -> [String; 3] {
    [key.to_owned(), format!("https://{key}"), format!("https://{key}/")]
}

impl CredentialsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept for a registry, or for a part of it: `repository` may have an entry of its own, or the path
    /// above it, as containers-auth.json has it.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        Ok(self.look_up(registry, repository)?.map(|found| found.credentials))
    }

    /// The same, and who has it: this file, or the helper that it names.
    pub(super) fn look_up(&self, registry: &str, repository: &str) -> Result<Option<Found>> {
        let here = |credentials| Some(Found { credentials, from: self.path.display().to_string() });
        let content: Content = self.parse(&self.read()?)?;
        let mut part = format!("{registry}/{repository}");
        while part.len() > registry.len() {
            if let Some(found) = self.decode(content.auths.get(&part), registry)? {
                return Ok(here(found));
            }
            part.truncate(part.rfind('/').unwrap_or_default());
        }
        let keys = keys(registry);
        if let Some((helper, key)) = content.helper(&keys)?
            && content.cred_helpers.contains_key(key)
        {
            return helper.look_up(key);
        }
        let auth = keys.iter().flat_map(|key| spellings(key)).find_map(|key| content.auths.get(&key));
        if let Some(found) = self.decode(auth, registry)? {
            return Ok(here(found));
        }
        content.helper(&keys)?.map_or(Ok(None), |(helper, key)| helper.look_up(key))
    }

    /// Keeps credentials for a registry: in the helper that the file names, else in the file itself, which is then
    /// its owner's alone. Whether they are kept here in the clear.
    pub(super) fn store(&self, registry: &str, credentials: &Credentials) -> Result<bool> {
        let _lock = self.lock()?;
        let bytes = self.read()?;
        let keys = keys(registry);
        let mut document: Map<String, Value> = self.parse(&bytes)?;
        if let Some((helper, key)) = self.parse::<Content>(&bytes)?.helper(&keys)? {
            helper.store(key, credentials)?;
            return self.empty(&mut document, &keys).map(|()| false);
        }
        let auths = document.entry("auths").or_insert_with(|| json!({}));
        let auths = auths.as_object_mut().ok_or_else(|| self.bad("its \"auths\" is no object"))?;
        keys.iter().flat_map(|key| spellings(key)).for_each(|key| drop(auths.remove(&key)));
        let entry = match credentials {
            Credentials::Basic { user, password } => json!({ "auth": STANDARD.encode(format!("{user}:{password}")) }),
            Credentials::IdentityToken(token) => json!({ "auth": "", "identitytoken": token }),
        };
        auths.insert(keys[0].to_owned(), entry);
        self.write(&document).map(|()| true)
    }

    /// Takes secrets out of a file whose helper has newer ones: they would be found first, and lie there in the clear. An
    /// entry with nothing in it stays, as docker leaves it.
    fn empty(&self, document: &mut Map<String, Value>, keys: &[&str]) -> Result<()> {
        let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(()) };
        let mut changed = false;
        for key in keys.iter().flat_map(|key| spellings(key)) {
            if let Some(entry) = auths.get_mut(&key).filter(|entry| **entry != json!({})) {
                *entry = json!({});
                changed = true;
            }
        }
        if changed { self.write(document) } else { Ok(()) }
    }

    /// Forgets what is kept for a registry; `false` when there was nothing.
    pub(super) fn forget(&self, registry: &str) -> Result<bool> {
        let _lock = self.lock()?;
        let bytes = self.read()?;
        let keys = keys(registry);
        let helper = self.parse::<Content>(&bytes)?.helper(&keys)?;
        let erased = helper.map_or(Ok(false), |(helper, key)| helper.erase(key))?;
        let mut document: Map<String, Value> = self.parse(&bytes)?;
        let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(erased) };
        let before = auths.len();
        keys.iter().flat_map(|key| spellings(key)).for_each(|key| drop(auths.remove(&key)));
        if auths.len() == before {
            return Ok(erased);
        }
        self.write(&document).map(|()| true)
    }

    /// Held while the file is read and written, so that two who log in at once are both logged in.
    fn lock(&self) -> Result<File> {
        let directory = files::directory_of(&self.path);
        files::make_private_dir(directory)?;
        let lock = File::open(directory).map_err(|e| self.bad(e))?;
        files::try_lock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    /// The file's bytes; one that is not there, or empty, holds nothing.
    fn read(&self) -> Result<Vec<u8>> {
        match files::read_bounded(&self.path, FILE_LIMIT_BYTES) {
            Err(longshore_runtime::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(b"{}".to_vec()),
            Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(b"{}".to_vec()),
            other => Ok(other?),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        // Not the parser's own message: it may quote a secret.
        serde_json::from_slice(bytes)
            .map_err(|e| self.bad(format_args!("it is not the JSON expected, line {} column {}", e.line(), e.column())))
    }

    fn write(&self, document: &Map<String, Value>) -> Result<()> {
        // Who keeps it elsewhere and has a symbolic link here goes on doing so.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let mut scratch = path.clone().into_os_string();
        scratch.push(".longshore");
        let mut text = serde_json::to_vec_pretty(document).map_err(|e| self.bad(e))?;
        text.push(b'\n');
        Ok(files::write_atomically(&path, Path::new(&scratch), &text)?)
    }

    fn decode(&self, auth: Option<&Auth>, registry: &str) -> Result<Option<Credentials>> {
        let damaged = |()| self.bad(format_args!("the entry of {registry} is damaged; log in again"));
        Ok(auth.map(decode).transpose().map_err(damaged)?.flatten())
    }

    fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::Config { path: self.path.display().to_string(), why: why.to_string() }
    }
}

/// What a helper keeps for a registry.
pub(super) fn ask_helper(name: &str, registry: &str) -> Result<Option<Found>> {
    Helper::new(name)?.look_up(keys(registry)[0])
}

/// Has a helper keep credentials for a registry.
pub(super) fn tell_helper(name: &str, registry: &str, credentials: &Credentials) -> Result<()> {
    Helper::new(name)?.store(keys(registry)[0], credentials)
}

/// Has a helper forget them; `false` when there was nothing.
pub(super) fn clear_helper(name: &str, registry: &str) -> Result<bool> {
    Helper::new(name)?.erase(keys(registry)[0])
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> (tempfile::TempDir, CredentialsFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        (directory, CredentialsFile::new(path))
    }

    fn find_json(json: &str, registry: &str) -> Result<Option<Credentials>> {
        file(json).1.find(registry, "team/app")
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.into() }
    }

    #[test]
    fn credentials_are_found_by_exact_host_only() {
        let json = r#"{"auths":{"reg.example":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"auth":"aDpp"}}}"#;
        assert_eq!(find_json(json, "reg.example").unwrap(), Some(basic("u", "p:q")));
        assert_eq!(find_json(json, "docker.io").unwrap(), Some(basic("h", "i")));
        for other in ["reg.example:5000", "example", "evil-reg.example", "reg.example.evil"] {
            assert_eq!(find_json(json, other).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn the_narrowest_entry_counts_and_no_other_paths() {
        let json =
            r#"{"auths":{"r.example":{"auth":"YTph"},"r.example/team":{"auth":"Yjpi"},"r.example/team/app2":{"auth":"Yzpj"}}}"#;
        let (_directory, file) = file(json);
        for (repository, user) in [("team/app", "b"), ("team/app2", "c"), ("team/app2/x", "c"), ("teams/app", "a"), ("x", "a")] {
            assert_eq!(file.find("r.example", repository).unwrap(), Some(basic(user, user)), "{repository}");
        }
    }

    #[test]
    fn what_is_stored_is_found_and_forgotten_and_the_rest_stays() {
        let (_directory, file) = file(
            r#"{"auths":{"https://r.example/":{"auth":"b2xkOm9sZA=="},"o.example":{"auth":"dTpw"}},"HttpHeaders":{"a":"b"}}"#,
        );
        assert!(file.store("r.example", &basic("new", "p:w")).unwrap());
        assert!(file.store("docker.io", &Credentials::IdentityToken("t".into())).unwrap());
        assert_eq!(file.find("r.example", "a").unwrap(), Some(basic("new", "p:w")));
        assert_eq!(file.find("docker.io", "library/a").unwrap(), Some(Credentials::IdentityToken("t".into())));
        assert!(file.forget("r.example").unwrap() && file.forget("docker.io").unwrap());
        assert!(!file.forget("r.example").unwrap());
        let left: Value = serde_json::from_slice(&file.read().unwrap()).unwrap();
        assert_eq!(left, json!({"auths": {"o.example": {"auth": "dTpw"}}, "HttpHeaders": {"a": "b"}}));
    }

    #[test]
    fn a_file_of_secrets_is_its_owners_alone_and_stays_where_a_link_leads() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.json"), directory.path().join("config.json"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        CredentialsFile::new(link.clone()).store("r.example", &basic("u", "p")).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        for damaged in ["{", "[]", r#"{"auths":[]}"#] {
            let (_directory, file) = file(damaged);
            assert!(file.store("r.example", &basic("u", "p")).is_err(), "{damaged}");
            assert_eq!(file.read().unwrap(), damaged.as_bytes());
        }
    }

    #[test]
    fn cve_2021_41092_a_broken_helper_is_an_error_not_a_fallback() {
        let json = r#"{"auths":{"reg.example":{"auth":"dTpw"}},"credHelpers":{"reg.example":"that-is-not-installed"}}"#;
        assert!(matches!(find_json(json, "reg.example"), Err(Error::Config { .. })));
        assert!(find_json(r#"{"credsStore":"../evil"}"#, "reg.example").is_err());
        // Nor are they written down in the clear where a helper was to keep them.
        let (_directory, file) = file(r#"{"credsStore":"that-is-not-installed"}"#);
        assert!(file.store("reg.example", &basic("u", "p")).is_err());
        assert!(!String::from_utf8(file.read().unwrap()).unwrap().contains("auths"));
    }

    #[test]
    fn what_a_helper_keeps_is_nowhere_else_in_the_clear() {
        let json = r#"{"auths":{"https://r.example/":{"auth":"b2xkOm9sZA=="},"o.example":{"auth":"dTpw"}}}"#;
        let (_directory, file) = file(json);
        let mut document: Map<String, Value> = serde_json::from_slice(&file.read().unwrap()).unwrap();
        file.empty(&mut document, &keys("r.example")).unwrap();
        let left: Value = serde_json::from_slice(&file.read().unwrap()).unwrap();
        assert_eq!(left, json!({"auths": {"https://r.example/": {}, "o.example": {"auth": "dTpw"}}}));
        assert_eq!(file.find("r.example", "a").unwrap(), None);
    }

    #[test]
    fn cve_2025_48374_no_secret_in_debug_output_or_errors() {
        assert!(!format!("{:?}", basic("u", "hunter2")).contains("hunter2"));
        let e = find_json(r#"{"auths":{"r":{"auth":7, "password":"hunter2"}}}"#, "r").unwrap_err();
        assert!(!e.to_string().contains("hunter2"));
    }
}
