//! containerd's shim, unchanged, with `roci` in runc's place.
