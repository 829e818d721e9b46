//! What whoever runs the registry sees of it: log lines, metrics, and whether it is alive and ready.

mod health;
pub mod log;
mod metrics;
mod process;
mod requests;

pub use self::health::routes;
pub(crate) use self::requests::Counted;
pub use self::requests::{Connection, EndpointKind, Facts, Watch};
