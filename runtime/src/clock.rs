//! What the clocks of this machine show.

use std::time::SystemTime;

use crate::sys;

/// How far they are ahead of UTC now, in seconds: by `TZ`, else by `/etc/localtime`.
pub fn local_offset_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    sys::local_offset_s(i64::try_from(now.as_secs()).unwrap_or_default())
}
