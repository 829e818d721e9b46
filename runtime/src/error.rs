//! The crate's one error type.
//!
//! An error says what was attempted, on what, and why it failed; [`Error::exit_code`] is the one
//! place that turns it into a process exit code.

use std::fmt::Display;
use std::io;

use crate::name::Digest;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with images and containers on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name, tag, digest, reference or platform does not follow its grammar.
    #[error("invalid {what} {input:?}: {why}")]
    Name {
        /// Which grammar: `"reference"`, `"digest"`, ...
        what: &'static str,
        /// The text as given; shown escaped.
        input: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Something asked for by name is not there.
    #[error("{what} not found: {hint}")]
    NotFound {
        /// The thing, as the user names it.
        what: String,
        /// What to do next.
        hint: String,
    },
    /// Content is not what its digest promises.
    #[error("{what} does not match its digest: expected {expected}, got {got}")]
    Mismatch {
        /// The content: `"layer sha256:..."`, `"DiffID of layer ..."`.
        what: String,
        /// What the manifest or configuration promises.
        expected: Digest,
        /// What the bytes hash to.
        got: Digest,
    },
    /// Content is malformed, hostile, or over a limit.
    #[error("{what} is not usable: {why}")]
    Invalid {
        /// The content: `"layer sha256:..., entry \"a/b\""`, `"manifest sha256:..."`.
        what: String,
        /// The rule or limit it breaks.
        why: String,
    },
    /// The operating system refused.
    #[error("{attempted}: {source}")]
    Io {
        /// What was attempted, on what: `"create directory /x"`.
        attempted: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The remote a [`crate::Source`] stands for failed.
    #[error(transparent)]
    Remote(Box<dyn std::error::Error + Send + Sync>),
    /// A step of the launch failed inside the container's own process.
    #[error("launch container: {step}: {source}")]
    Launch {
        /// The step: `"mount /proc"`, `"set capabilities"`.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The command of a container could not be executed.
    #[error("execute {command:?} in the container: {}", not_executed(command, source))]
    Exec {
        /// The program as named by the user or the image.
        command: String,
        /// The system's answer: not found gives exit code 127, anything else 126.
        source: io::Error,
    },
    /// What another process of this program said that went wrong.
    #[error("{0}")]
    Told(String),
    /// Something that is in use cannot be changed or removed now.
    #[error("{what} is in use: {why}")]
    Busy {
        /// The thing, as the user names it.
        what: String,
        /// By whom, and what to do next.
        why: String,
    },
}

impl Error {
    /// An [`Error::Io`] from an attempt and the system's answer.
    pub fn io(attempted: impl Display, source: impl Into<io::Error>) -> Self {
        Self::Io { attempted: attempted.to_string(), source: source.into() }
    }

    /// An [`Error::Invalid`] from the content and the rule it breaks.
    pub fn invalid(what: impl Display, why: impl Display) -> Self {
        Self::Invalid { what: what.to_string(), why: why.to_string() }
    }

    /// The exit code of a command that launches containers, as `docker run` defines them: 127 the
    /// command was not found, 126 it could not be executed, 125 anything else that went wrong
    /// before the container's process ran.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Exec { .. } => 126,
            _ => 125,
        }
    }
}

/// Why a command could not be executed, in the words from which docker's client makes its exit code.
fn not_executed(command: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound if command.contains('/') => "no such file or directory".into(),
        io::ErrorKind::NotFound => "executable file not found in $PATH".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => source.to_string(),
    }
}

/// Turns the system's answer into an [`Error::Io`] that says what was attempted.
pub trait Attempt<T> {
    /// `what` is only evaluated on failure.
    fn attempt<D: Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|source| Error::io(what(), source))
    }
}
