//! The crate's one error type.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Deserialize;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a command and a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Images or containers on this machine.
    #[error(transparent)]
    Runtime(#[from] longshore_runtime::Error),
    /// No answer from the registry.
    #[error("cannot reach registry {host}: {why}")]
    Unreachable {
        /// `host[:port]`
        host: String,
        /// The innermost cause.
        why: String,
        /// Its kind: whether it may pass.
        kind: io::ErrorKind,
    },
    /// The registry answered, and said no.
    #[error("{attempted} at registry {host}: {answer}")]
    Refused {
        /// `host[:port]`
        host: String,
        /// What was attempted, on what.
        attempted: String,
        /// What it said.
        answer: Answer,
    },
    /// The registry, or its token server, does not take the credentials.
    #[error("log in to registry {host}: it does not take this user name and password")]
    Denied {
        /// `host[:port]`
        host: String,
    },
    /// The user's own rules are against an image.
    #[error("image {image}: {why}")]
    Policy {
        /// Its name.
        image: String,
        /// Which rule, and what would change that.
        why: String,
    },
    /// The registry's answer breaks the protocol.
    #[error("{attempted} at registry {host}: {why}")]
    Protocol {
        /// `host[:port]`
        host: String,
        /// What was attempted, on what.
        attempted: String,
        /// The rule it breaks.
        why: String,
    },
    /// A `--format` template does not fit what it is applied to.
    #[error("apply template {template:?}: {why}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong.
        why: String,
    },
    /// A configuration or credentials file is unusable.
    #[error("{path}: {why}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
}

impl Error {
    /// The exit code of a command that failed this way; `launch` is for those that run containers.
    pub fn exit_code(&self, launch: bool) -> u8 {
        match self {
            Self::Runtime(e) if launch => e.exit_code(),
            _ if launch => 125,
            _ => 1,
        }
    }
}

impl From<Error> for longshore_runtime::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Runtime(e) => e,
            other => Self::Remote(Box::new(other)),
        }
    }
}

/// What a registry said in an error answer (distribution-spec, "Error Codes").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The first error's code, `MANIFEST_UNKNOWN` and the like; empty when the body is something else.
    pub code: Box<str>,
    /// The first error's message.
    pub message: Box<str>,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Which credentials it was shown, and what helps.
    pub hint: Option<Box<str>>,
}

/// Characters of a registry's message that are shown.
const MESSAGE_LIMIT: usize = 300;

impl Answer {
    /// Reads an error body leniently: proxies answer with pages of HTML.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let first = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
        let short = |text: String| text.chars().take(MESSAGE_LIMIT).collect::<String>().into_boxed_str();
        match first {
            Some(entry) => Self { status, code: short(entry.code), message: short(entry.message), retry_after: None, hint: None },
            None => Self { status, code: Box::default(), message: Box::default(), retry_after: None, hint: None },
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, &*self.code) {
            _ if self.hint.is_some() => f.write_str(self.hint.as_deref().unwrap_or_default())?,
            (404, "MANIFEST_UNKNOWN") => f.write_str("there is no such tag or digest")?,
            (404, "NAME_UNKNOWN") => f.write_str("there is no such repository")?,
            (404, "BLOB_UNKNOWN") => f.write_str("there is no such blob")?,
            (401, _) => f.write_str("it wants credentials: `rbox login` keeps them")?,
            (403, _) => f.write_str("access is denied for the credentials given")?,
            (429, _) => f.write_str("too many requests; wait, or log in to be granted more")?,
            (404, _) => f.write_str("not found")?,
            (500.., _) => f.write_str("the registry failed")?,
            _ => f.write_str("it refused")?,
        }
        write!(f, " (HTTP {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(wait) = self.retry_after.filter(|wait| !wait.is_zero()) {
            write!(f, "; try again in {} seconds", wait.as_secs())?;
        }
        f.write_str(")")
    }
}
