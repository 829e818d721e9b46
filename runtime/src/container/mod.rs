//! Containers of images in the store: in the foreground, or detached and kept until they are removed.
//!
//! ```text
//! ROOT/containers/ID/                         one container, for its owner alone (0700)
//!   container.json                            what it was made of, and its name
//!   claims                                    the blobs and layers it needs, as in a lease
//!   status.json                               where it stands: replaced as a whole
//!   lock                                      held by its monitor for as long as that lives; how it ended; anew with
//!                                             each start
//!   stopped                                   somebody has stopped it: its restart policy has no say
//!   state.json config.json                    while it runs, as `lifecycle` has them
//!   health.json                               what its health checks said last
//!   attach.*                                  sockets of who is about to be attached
//!   ID-json.log ID-json.log.1 ID-json.log.2.gz its output, as docker writes it
//!   etc upper work                            what its root filesystem is made of
//! ROOT/names/NAME -> ID                       who is called what
//! ```
//!
//! A detached container is one process more than its own: its [`monitor`], which started it, reads its
//! output and waits for its end. **Invariant: a container runs if its monitor holds its lock.** The kernel
//! releases that however the monitor ends, and kills the container's first process, which was the monitor's
//! child, with it: so nobody has to look twice, and who waits for the lock waits for the end. What a killed
//! monitor left is cleared away by the [first command](Containers::list) that looks.
//!
//! **Invariant: no lock of the store is held while a container runs**, and no process but the monitor lives on.

mod attach;
mod attached;
mod changes;
mod copy;
mod ending;
mod exec;
mod files;
mod foreground;
mod health;
mod init;
mod keys;
mod launching;
mod lock;
mod log;
mod log_attributes;
mod log_compress;
mod log_file;
mod log_journal;
mod log_journal_read;
mod log_lines;
mod log_options;
mod log_rotated;
mod log_sink;
mod monitor;
mod names;
mod network;
mod pause;
mod prepare;
mod record;
mod remove;
mod restart;
mod size;
mod start;
mod stats;
mod stop;
mod store;
mod tell;
mod update;
mod watch;

pub use attach::{AttachEnd, AttachOptions, Attaching};
pub use copy::{CopyOptions, Side, copy};
pub use exec::ExecCommand;
pub use files::Files;
pub use health::{Health, HealthResult, HealthStatus};
pub use keys::DetachKeys;
pub use log::{LogEntry, LogQuery};
pub use log_options::{LogDriver, LogOptions};
pub use monitor::enter as enter_monitor;
pub(crate) use names::check_name;
pub use record::{Config, Phase, Status};
pub use restart::RestartPolicy;
pub use size::Sizes;
pub use stats::Sample;
pub use stop::{Stop, Waiter};
pub use store::{Container, Containers, Create};
