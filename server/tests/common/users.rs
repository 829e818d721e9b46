//! A registry with users, and tokens made by hand.

// Each test program uses its part of this.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use longshore_runtime::name::Digest;
use longshore_server::access::htpasswd;
use serde_json::{Value, json};

use crate::common::{OCI_MANIFEST, Rhub, command, image_manifest};

/// Everybody's.
pub const PASSWORD: &str = "correct-horse-battery";

/// What a registry is called by [`Rhub::send`].
pub const SERVICE: &str = "x";

/// A registry with users.
pub struct Hub {
    pub rhub: Rhub,
    dir: tempfile::TempDir,
}

impl Hub {
    pub fn start(users: &[&str], rules: &str) -> Self {
        Self::start_with(users, rules, "")
    }

    /// `access` are further lines of that table.
    pub fn start_with(users: &[&str], rules: &str, access: &str) -> Self {
        Self::create(Some(users), rules, access, &[])
    }

    pub fn start_verbose(users: &[&str], rules: &str) -> Self {
        Self::create(Some(users), rules, "", &["--verbose"])
    }

    pub fn start_without_users(rules: &str) -> Self {
        Self::create(None, rules, "", &[])
    }

    fn create(users: Option<&[&str]>, rules: &str, access: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let named = if users.is_some() { "htpasswd = \"users\"\n" } else { "" };
        std::fs::write(dir.path().join("config.toml"), format!("[access]\n{named}{access}{rules}")).unwrap();
        if let Some(users) = users {
            write_users(&dir.path().join("users"), users);
        }
        Self { rhub: run(dir.path(), flags), dir }
    }

    /// The same registry after a restart.
    pub fn restarted(self, flags: &[&str]) -> Self {
        let Self { rhub, dir } = self;
        rhub.terminate();
        assert!(rhub.wait_politely().success());
        Self { rhub: run(dir.path(), flags), dir }
    }

    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub fn htpasswd(&self) -> PathBuf {
        self.dir.path().join("users")
    }

    /// What was written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Exactly these users, their hashes made anew.
    pub fn write_users(&self, users: &[&str]) {
        write_users(&self.htpasswd(), users);
    }

    /// These changes are in force when this returns.
    pub fn add_user(&self, user: &str) {
        htpasswd::add(&self.htpasswd(), user, PASSWORD).unwrap();
        self.wait_for(user, PASSWORD, 200);
    }

    pub fn remove_user(&self, user: &str) {
        htpasswd::remove(&self.htpasswd(), user).unwrap();
        self.wait_for(user, PASSWORD, 401);
    }

    pub fn change_password(&self, user: &str, password: &str) {
        htpasswd::set_password(&self.htpasswd(), user, password).unwrap();
        self.wait_for(user, password, 200);
    }

    fn wait_for(&self, user: &str, password: &str, status: u16) {
        let authorization = basic(user, password);
        crate::common::wait_until("the changed users are in force", || {
            self.rhub.send("GET", "/v2/", &[("authorization", &authorization)], b"").status == status
        });
    }

    /// A token for these scopes, had by GET.
    pub fn token(&self, user: Option<(&str, &str)>, scope: &str) -> String {
        let authorization = user.map(|(user, password)| basic(user, password));
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let reply = self.rhub.send("GET", &format!("/v2/token?scope={}", scope.replace(' ', "+")), &headers, b"");
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// The key tokens are signed with, derived as the server does it.
    pub fn signing_key(&self) -> Vec<u8> {
        let text = std::fs::read(self.dir.path().join("data/token.key")).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.trim_ascii());
        hmac::sign(&key, b"access token").as_ref().to_vec()
    }

    /// The claims with the stamp of a token of the same user.
    pub fn with_stamp_of(&self, token: &str, mut claims: Value) -> Value {
        claims["stamp"] = payload(token)["stamp"].clone();
        claims
    }

    fn send_as_admin(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> crate::common::Reply {
        let headers = [("authorization", basic("admin", PASSWORD)), ("content-type", content_type.to_owned())];
        self.rhub.send(method, path, &headers.each_ref().map(|(name, value)| (*name, value.as_str())), body)
    }

    pub fn push_blob(&self, repo: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/{repo}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send_as_admin("POST", &path, "application/octet-stream", content).status, 201);
        digest
    }

    /// Pushes an image of one layer with this content, as admin.
    pub fn push_image(&self, repo: &str, tag: &str, content: &str) {
        self.push_blob(repo, b"{}");
        self.push_blob(repo, content.as_bytes());
        let manifest = image_manifest(b"{}", content.as_bytes());
        let put = self.send_as_admin("PUT", &format!("/v2/{repo}/manifests/{tag}"), OCI_MANIFEST, manifest.as_bytes());
        assert_eq!(put.status, 201, "{put:?}");
    }
}

fn run(dir: &Path, flags: &[&str]) -> Rhub {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = command(&dir.join("data"));
    command.arg("--config").arg(dir.join("config.toml")).args(flags).stderr(Stdio::from(log));
    Rhub::start_command(command)
}

/// With the cheapest hashes there are.
fn write_users(path: &Path, users: &[&str]) {
    let lines = users.iter().map(|user| format!("{user}:{}\n", bcrypt::hash(PASSWORD, 4).unwrap()));
    let scratch = path.with_extension("new");
    std::fs::write(&scratch, lines.collect::<String>()).unwrap();
    std::fs::rename(&scratch, path).unwrap();
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What a token says.
pub fn payload(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// Claims of a token good from and until so many seconds from now.
pub fn claims(user: &str, service: &str, from_s: i64, until_s: i64) -> Value {
    let now_s = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let access = json!([{"type": "repository", "name": "public/app", "actions": ["pull", "push"]}]);
    json!({
        "iss": "rhub", "sub": user, "aud": service, "jti": "x", "access": access,
        "iat": now_s + from_s, "nbf": now_s + from_s, "exp": now_s + until_s,
    })
}

/// A token with these claims, signed like the server's own.
pub fn forge(key: &[u8], claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}
