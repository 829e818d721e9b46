//! What containers share and what outlives them: volumes, host paths, file systems in memory.
//!
//! ```text
//! ROOT/volumes/NAME/              one volume, for its owner alone (0700)
//!   volume.json                   its labels, and when it was made
//!   _data                         what containers see
//!   _filling                      being filled from an image; left by a killed process it counts for nothing
//!   _filled                       the same, complete: what is in it is on its way to `_data`
//! ```
//!
//! A volume appears whole, by a `rename`, at the first use of its name. **Invariant: who uses a volume is said by
//! the containers' own records** (`claims`), never by a counter. A volume is
//! provided before its container is known, under the same lock under which it is looked at
//! who has it before it is removed.

mod fill;
mod mount;
mod mount_flag;
mod store;
mod users;

pub(crate) use fill::Mounting;
pub use mount::{Propagation, Source, Tmpfs, Volume};
pub use mount_flag::{Mounted, parse_mount};
pub use store::{Info, Volumes, complete};
pub(crate) use users::claim;
