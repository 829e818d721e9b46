//! Credential helpers: programs that keep secrets, by docker's protocol of `get`, `store` and `erase`.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Credentials, Found};
use crate::error::{Error, Result};

/// The longest answer read, in bytes.
const ANSWER_LIMIT_BYTES: u64 = 4 << 20;

/// The user name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// What a helper says when it has nothing.
const NOT_FOUND: &str = "credentials not found";

/// `docker-credential-NAME`
#[derive(Debug)]
pub(super) struct Helper {
    program: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    #[serde(rename = "ServerURL", default)]
    server: String,
    username: String,
    secret: String,
}

impl Helper {
    /// The helper by the name that configurations give it.
    pub(super) fn new(name: &str) -> Result<Self> {
        let helper = Self { program: format!("docker-credential-{name}") };
        if name.contains('/') { Err(helper.bad("a credential helper's name must not hold a slash")) } else { Ok(helper) }
    }

    /// What it keeps under `key`, if anything.
    pub(super) fn look_up(&self, key: &str) -> Result<Option<Found>> {
        Ok(self.get(key)?.map(|credentials| Found { credentials, from: self.program.clone() }))
    }

    fn get(&self, key: &str) -> Result<Option<Credentials>> {
        let Some(answer) = self.ask("get", key, key.as_bytes())? else { return Ok(None) };
        // Not the parser's own message: it may quote the secret.
        let secret: Secret =
            serde_json::from_slice(&answer).map_err(|_| self.bad("its answer is not what a credential helper says"))?;
        Ok(Some(match secret.username.as_str() {
            TOKEN_USER => Credentials::IdentityToken(secret.secret),
            _ => Credentials::Basic { user: secret.username, password: secret.secret },
        }))
    }

    /// Has it keep credentials under `key`.
    pub(super) fn store(&self, key: &str, credentials: &Credentials) -> Result<()> {
        let (username, secret) = match credentials.clone() {
            Credentials::Basic { user, password } => (user, password),
            Credentials::IdentityToken(token) => (TOKEN_USER.to_owned(), token),
        };
        let secret = Secret { server: key.to_owned(), username, secret };
        let input = serde_json::to_vec(&secret).map_err(|_| self.bad("these credentials cannot be given to it"))?;
        self.ask("store", key, &input).map(drop)
    }

    /// Has it forget what it keeps under `key`; `false` when there was nothing.
    pub(super) fn erase(&self, key: &str) -> Result<bool> {
        Ok(self.ask("erase", key, key.as_bytes())?.is_some())
    }

    /// Runs it; `None` when it says that it has nothing.
    fn ask(&self, verb: &str, key: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut child = Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| self.bad(format_args!("cannot run this credential helper: {e}")))?;
        let mut answer = Vec::new();
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
        let read = child.stdout.take().map_or(Ok(0), |stdout| stdout.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer));
        let status = child.wait().map_err(|e| self.bad(e))?;
        if !status.success() {
            if String::from_utf8_lossy(&answer).contains(NOT_FOUND) {
                return Ok(None);
            }
            return Err(self.bad(format_args!("this credential helper failed to {verb} what is kept for {key} ({status})")));
        }
        // One that answers without reading what it was asked has answered.
        let written = written.or_else(|e| if e.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(e) });
        written.and(read).map_err(|e| self.bad(e))?;
        Ok(Some(answer))
    }

    fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::Config { path: self.program.clone(), why: why.to_string() }
    }
}
