//! `roci checkpoint`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use longshore_runtime::error::{Error, Result};
use longshore_runtime::lifecycle::{CheckpointOptions, CriuOptions, ManageCgroups, Runtime, Switch};

/// Where images are by default, as with runc.
const IMAGES: &str = "checkpoint";

/// Write a container to disk by criu; it ends, unless it is to go on
#[derive(Debug, Args)]
// podman gives flags twice.
#[command(args_override_self = true)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    options: Options,
    /// A directory with an earlier checkpoint or pre-dump, relative to the images: what is as it was is not
    /// written again
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    leave_running: bool,
    /// Write its memory only, ahead of a checkpoint; the container goes on
    #[arg(long)]
    pre_dump: bool,
    /// Send its memory to a criu page-server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Leave out TCP connections that are being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give files without a name one again where that can be done
    #[arg(long)]
    link_remap: bool,
    /// Refused: --lazy-pages is
    #[arg(long, value_name = "FD", hide = true)]
    status_fd: Option<i32>,
    /// The container's name
    id: String,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The directory of the images
    #[arg(long, default_value = IMAGES, value_name = "DIR")]
    image_path: PathBuf,
    /// The directory of criu's log [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Keep unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// The container has its caller's terminal
    #[arg(long)]
    shell_job: bool,
    /// Keep file locks
    #[arg(long)]
    file_locks: bool,
    /// Remove pages from earlier images that later ones have
    #[arg(long)]
    auto_dedup: bool,
    /// What is done about the limits of cgroups [default: soft]
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<Mode>,
    /// Accepted as runc has it (network): that namespace is always restored empty
    #[arg(long, value_name = "NAMESPACE", hide = true)]
    empty_ns: Vec<String>,
    /// Refused: memory is restored at once
    #[arg(long, hide = true)]
    lazy_pages: bool,
}

/// `--manage-cgroups-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Soft,
    Full,
    Strict,
    Ignore,
}

impl Options {
    /// The library's options. `more` are the verb's own.
    pub(crate) fn into_library(self, criu: Option<&Path>, more: &[(bool, Switch)]) -> Result<CriuOptions> {
        if self.lazy_pages {
            return Err(Error::invalid("--lazy-pages", "memory cannot be left behind to be fetched later; leave this flag out"));
        }
        if let Some(other) = self.empty_ns.iter().find(|name| *name != "network") {
            return Err(Error::invalid(format!("--empty-ns {other:?}"), "only \"network\" can be restored empty, and always is"));
        }
        let own = [
            (self.tcp_established, Switch::TcpEstablished),
            (self.ext_unix_sk, Switch::ExtUnixSk),
            (self.shell_job, Switch::ShellJob),
            (self.file_locks, Switch::FileLocks),
            (self.auto_dedup, Switch::AutoDedup),
        ];
        let given = own.iter().chain(more).filter(|(given, _)| *given).map(|(_, switch)| *switch);
        let manage_cgroups = match self.manage_cgroups_mode {
            None | Some(Mode::Soft) => ManageCgroups::Soft,
            Some(Mode::Full) => ManageCgroups::Full,
            Some(Mode::Strict) => ManageCgroups::Strict,
            Some(Mode::Ignore) => ManageCgroups::Ignore,
        };
        Ok(CriuOptions {
            program: criu.map(Path::to_owned),
            images: self.image_path,
            work: self.work_path,
            switches: given.collect(),
            manage_cgroups,
        })
    }
}

impl Checkpoint {
    pub(crate) fn call(self, runtime: &Runtime, criu: Option<&Path>) -> Result<u8> {
        if self.status_fd.is_some_and(|fd| fd >= 0) {
            return Err(Error::invalid("--status-fd", "it is of use with --lazy-pages alone, which is refused"));
        }
        let more = [(self.tcp_skip_in_flight, Switch::TcpSkipInFlight), (self.link_remap, Switch::LinkRemap)];
        let options = CheckpointOptions {
            criu: self.options.into_library(criu, &more)?,
            leave_running: self.leave_running,
            pre_dump: self.pre_dump,
            parent: self.parent_path,
            page_server: self.page_server.as_deref().map(page_server).transpose()?,
        };
        runtime.checkpoint(&self.id, &options).map(|()| 0)
    }
}

fn page_server(text: &str) -> Result<(String, u16)> {
    let parts = text.rsplit_once(':').and_then(|(address, port)| Some((address, port.parse().ok()?)));
    let (address, port) = parts
        .filter(|(address, port)| !address.is_empty() && *port != 0)
        .ok_or_else(|| Error::invalid(format!("--page-server {text:?}"), "it must be ADDRESS:PORT"))?;
    Ok((address.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}
