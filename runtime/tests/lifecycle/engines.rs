//! podman and buildah, unchanged, with `roci` in runc's place.
