//! `update`: limits of a running container.

use std::path::Path;

use crate::container::Container;

