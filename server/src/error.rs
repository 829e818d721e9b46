//! The crate's one error type, and the one place that turns it into a status and a code of the
//! distribution-spec ("Error Codes").

use std::fmt::Display;
use std::io::ErrorKind;

use http::StatusCode;
pub use longshore_runtime::error::Attempt;
use longshore_runtime::error::Error as Common;
use longshore_runtime::name::Digest;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path leads to no endpoint of the API.
    #[error("no such endpoint: {0}")]
    NoEndpoint(String),
    /// The endpoint exists, the method does not.
    #[error("method {method} is not supported here; use one of {allow}")]
    Method {
        /// What was asked.
        method: String,
        /// What could have been.
        allow: &'static str,
    },
    /// A name or digest that does not follow its grammar, content that does not match its digest,
    /// or a refusal of the operating system.
    #[error(transparent)]
    Common(#[from] Common),
    /// The request needs credentials, or other ones.
    #[error("authentication is needed: {why}")]
    Unauthorized {
        /// Why those it has, if any, do not do.
        why: &'static str,
        /// The `WWW-Authenticate` header.
        challenge: String,
    },
    /// Whoever asks has not the right.
    #[error("you have not the right to do this here; ask those who run this registry for it")]
    Denied,
    /// A query parameter is missing or does not follow its grammar.
    #[error("{0}")]
    Parameter(String),
    /// The repository holds nothing.
    #[error("repository {0} is not known")]
    RepositoryUnknown(String),
    /// No such blob in this repository.
    #[error("blob {0} is not known to this repository")]
    BlobUnknown(Digest),
    /// No such manifest or tag in this repository.
    #[error("manifest {0} is not known to this repository")]
    ManifestUnknown(String),
    /// The manifest names content that the repository lacks; at most a few are listed.
    #[error("the manifest names content this repository lacks; push it first")]
    ManifestBlobUnknown(Vec<Digest>),
    /// The manifest is malformed, ambiguous or of an unknown kind.
    #[error("the manifest is not usable: {0}")]
    ManifestInvalid(String),
    /// The manifest is over its limit.
    #[error("the manifest is larger than {limit_bytes} bytes")]
    ManifestTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The tag is on another manifest, and may not be moved.
    #[error("tag {0} exists, and you may not overwrite it; push under another tag")]
    TagExists(String),
    /// A manifest was put with more tags than one request may name.
    #[error("more than {limit} tags in one request; put the manifest again with the others")]
    TooManyTags {
        /// So many it may name.
        limit: usize,
    },
    /// No such upload session in this repository.
    #[error("upload session is not known to this repository; start a new one")]
    UploadUnknown,
    /// The request does not fit the upload session.
    #[error("the upload cannot go on: {0}")]
    UploadInvalid(String),
    /// A chunk does not start where the last one ended.
    #[error("the chunk starts at {start}, but the upload has {offset} bytes")]
    UploadOutOfOrder {
        /// Where the chunk starts.
        start: u64,
        /// Where it had to start.
        offset: u64,
    },
    /// Another request is writing to the same upload session.
    #[error("another request is writing to this upload; wait for it, then ask for the upload's status")]
    UploadBusy,
    /// No range of the blob satisfies the request.
    #[error("the range lies outside the blob's {size} bytes")]
    RangeNotSatisfiable {
        /// The blob's size in bytes.
        size: u64,
    },
    /// What is there is not what the request's `If-Match` or `If-None-Match` makes its condition.
    #[error("what is there now is not what the request's precondition names; ask for it again")]
    Precondition,
    /// A limit on concurrent work is reached.
    #[error("too many {0} at this time; try again later")]
    TooMany(&'static str),
    /// The process that serves the data directory could not do what it was asked.
    #[error("{0}")]
    Maintenance(String),
    /// The client's body broke off, stalled, or is not what its length says.
    #[error("the request body ended early: {0}")]
    Body(String),
    /// What is stored is not what it must be.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// The stored thing.
        what: String,
        /// What is wrong with it, and what to do next.
        why: String,
    },
    /// Another process uses the data directory.
    #[error("data directory {0} is in use by another rhub; stop that one first, or choose another with --data")]
    InUse(String),
    /// The metadata database failed.
    #[error("{attempted}: {source}")]
    Database {
        /// What was attempted.
        attempted: &'static str,
        /// The database's answer.
        source: sled::Error,
    },
    /// An earlier failure left it unknown what is on stable storage; nothing more is accepted.
    #[error("writing stopped after a failure of storage ({0}); look at the disk, then restart rhub")]
    Stopped(String),
}

impl Error {
    /// An [`Error::Damaged`] from the stored thing and what is wrong with it.
    pub fn damaged(what: impl Display, why: impl Display) -> Self {
        Self::Damaged { what: what.to_string(), why: why.to_string() }
    }

    /// What a client is told. What failed inside is for the log.
    pub fn public(&self) -> String {
        match (self, self.status().0) {
            (Self::Stopped(_), _) => "the server's storage failed; it accepts no changes until it is restarted".into(),
            (_, StatusCode::INSUFFICIENT_STORAGE) => "the server's storage is full".into(),
            (_, status) if status.is_server_error() => "the server failed; its log says why".into(),
            _ => self.to_string(),
        }
    }

    /// The HTTP status and the distribution-spec's code.
    pub fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoEndpoint(_) => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Common(Common::Name { what: "digest", .. } | Common::Mismatch { .. }) => {
                (StatusCode::BAD_REQUEST, "DIGEST_INVALID")
            }
            Self::Common(Common::Name { .. }) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::Common(Common::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => {
                (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN")
            }
            Self::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::RepositoryUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestBlobUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Self::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, "UNSUPPORTED"),
            Self::TagExists(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadInvalid(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::UploadOutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::UploadBusy => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            Self::RangeNotSatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::Precondition => (StatusCode::PRECONDITION_FAILED, "DENIED"),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            Self::Common(_) | Self::Maintenance(_) | Self::Damaged { .. } | Self::InUse(_) | Self::Database { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
            }
            Self::Stopped(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN"),
        }
    }
}
