//! The runtime-spec configuration of a container, from an image's configuration and the user's
//! options.

mod capabilities;

pub(crate) use capabilities::capability_number;

/// Where commands are looked up if nothing says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
