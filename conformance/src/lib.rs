//! `rconform`: judges any registry by the distribution specification, and measures it under load.
//!
//! Entry point: [`spec::run`] goes through the table of requirements ([`spec::requirements`]) against
//! one registry and returns a [`Report`]. A requirement is a row (id, section, level, title) and a
//! function that talks to the registry and returns an [`Outcome`].
//!
//! [`load::run`] puts a load of one kind on a registry and says what came of it.
//!
//! [`runtime::run`] judges an OCI runtime by a table of the same form, and [`runtime::time`] measures it.
//!
//! **Invariant: this crate knows nobody.** It imports no other crate of the workspace: what it says of
//! a registry, `rhub` included, follows from what went over the wire and from nothing else.

pub mod auth;
pub mod credentials;
mod digest;
pub mod http;
pub mod limits;
pub mod load;
pub mod outcome;
mod raw;
mod redact;
pub mod report;
pub mod requirement;
pub mod runtime;
pub mod spec;

pub use http::{Exchange, Registry};
pub use outcome::{Finding, Level, Outcome};
pub use report::{Report, Verdict};
