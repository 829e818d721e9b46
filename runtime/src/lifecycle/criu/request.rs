//! What is asked of criu: options by the numbers its protocol has for them (`images/rpc.proto` of its source).

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::images::Images;
use super::message::Message;
use crate::cgroup::Cgroup;
use crate::error::Result;

/// Where users configure criu for all containers, as with runc.
const CONFIGURATION: &str = "/etc/criu/runc.conf";

/// The annotation that names another file, or with no value none.
const CONFIGURATION_ANNOTATION: &str = "org.criu.config";

/// As much as is of use in its log.
const LOG_LEVEL: u64 = 4;

/// What criu is asked to put up with, or to do on top. The number is that of the field in its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Unix sockets whose other end is outside.
    ExtUnixSk = 4,
    /// TCP connections.
    TcpEstablished = 5,
    /// A terminal of the caller's as the container's.
    ShellJob = 7,
    /// File locks.
    FileLocks = 8,
    /// Pages that a later image has are removed from earlier ones.
    AutoDedup = 16,
    /// Files without a name are given one again where that can be done.
    LinkRemap = 18,
    /// TCP connections that are being made are left out.
    TcpSkipInFlight = 46,
    /// TCP connections are closed.
    TcpClose = 52,
}

/// What criu does about cgroups and their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManageCgroups {
    /// Nothing.
    Ignore = 0,
    /// Those it has to make are limited as they were.
    #[default]
    Soft = 3,
    /// All are limited as they were.
    Full = 4,
    /// None may exist.
    Strict = 5,
}

/// What checkpoints and restores have in common.
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// The program: a path, or a name to be looked for in `PATH`; `criu` by default.
    pub program: Option<PathBuf>,
    /// The directory of the images.
    pub images: PathBuf,
    /// The directory of criu's log and scratch files, if that is another one.
    pub work: Option<PathBuf>,
    /// See [`Switch`].
    pub switches: Vec<Switch>,
    /// See [`ManageCgroups`].
    pub manage_cgroups: ManageCgroups,
}

/// What is asked of criu, by the numbers it has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Dump = 1,
    Restore = 2,
    /// Since criu 3.17. What earlier ones know waits for a dump on the same socket.
    PreDump = 13,
}

impl Task {
    /// The name of its log.
    pub(super) fn log(self) -> &'static str {
        if self == Self::Restore { "restore.log" } else { "dump.log" }
    }
}

/// A request being put together.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(super) task: Task,
    pub(super) options: Message,
    /// Descriptors criu gets under their own numbers.
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) log: PathBuf,
    /// The root filesystem, and the directory where criu is to find it.
    pub(super) root: Option<(&'a Path, &'a Path)>,
    /// The cgroup criu is to be in itself.
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) work: Option<Images>,
    pub(super) images: &'a Images,
}

impl<'a> Request<'a> {
    pub(crate) fn new(task: Task, options: &CriuOptions, images: &'a Images, spec: &Spec) -> Result<Self> {
        let work = options.work.as_deref().map(Images::make).transpose()?;
        let mut message = Message::default();
        message.number(1, images.directory.as_raw_fd() as u64);
        if let Some(work) = &work {
            message.number(17, work.directory.as_raw_fd() as u64);
        }
        message.number(9, LOG_LEVEL).bytes(10, task.log().as_bytes()).number(12, 1);
        message.number(24, 1).number(34, options.manage_cgroups as u64);
        for switch in &options.switches {
            message.number(*switch as u32, 1);
        }
        // As with runc: addresses and routes are made by who makes the container's network.
        message.number(38, libc::CLONE_NEWNET as u64).number(50, 1);
        let annotation = spec.annotations().as_ref().and_then(|annotations| annotations.get(CONFIGURATION_ANNOTATION));
        match annotation.map_or(CONFIGURATION, String::as_str) {
            "" => {}
            file => drop(message.bytes(51, file.as_bytes())),
        }
        let log = work.as_ref().unwrap_or(images).path.join(task.log());
        // What an earlier criu said is not to be taken for this one's words.
        let _ = std::fs::remove_file(&log);
        Ok(Self { task, options: message, inherited: Vec::new(), log, root: None, cgroup: None, work, images })
    }

    pub(crate) fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.options.number(field, value);
        self
    }

    pub(crate) fn text(&mut self, field: u32, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.options.bytes(field, value.as_ref().as_bytes());
        self
    }

    /// Two texts, as criu has them of mounts, cgroups and namespaces; an empty first one is left out.
    pub(crate) fn pair(&mut self, field: u32, first: impl AsRef<std::ffi::OsStr>, second: impl AsRef<std::ffi::OsStr>) {
        let mut pair = Message::default();
        if !first.as_ref().is_empty() {
            pair.bytes(1, first.as_ref().as_bytes());
        }
        pair.bytes(2, second.as_ref().as_bytes());
        self.options.message(field, &pair);
    }

    /// Has the memory sent to a criu elsewhere.
    pub(crate) fn page_server(&mut self, address: &str, port: u16) {
        let mut server = Message::default();
        server.bytes(1, address.as_bytes()).number(2, u64::from(port));
        self.options.message(11, &server);
    }

    /// Has what was known as `key` be descriptor `number`.
    pub(crate) fn inherit(&mut self, key: &str, number: i32) {
        let mut inherited = Message::default();
        inherited.bytes(1, key.as_bytes()).number(2, number as u64);
        self.options.message(27, &inherited);
    }

    /// The same with a file that criu gets for it.
    pub(crate) fn inherit_file(&mut self, key: &str, file: OwnedFd) {
        self.inherit(key, file.as_raw_fd());
        self.inherited.push(file);
    }

    /// Has criu find the root filesystem `rootfs` mounted on the directory `point`.
    pub(crate) fn mount_root(&mut self, rootfs: &'a Path, point: &'a Path) {
        self.text(13, point);
        self.root = Some((rootfs, point));
    }

    /// Has criu, and what it makes, begin in a cgroup.
    pub(crate) fn begin_in(&mut self, cgroup: &'a Cgroup) {
        self.cgroup = Some(cgroup);
    }
}
