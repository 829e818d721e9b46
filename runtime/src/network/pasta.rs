//! The network of an ordinary user's container: pasta passes its connections on as the user's own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pipe::PipeFlags;
use rustix::process::WaitOptions;

use super::namespace::Namespace;
use super::netlink::Socket;
use super::options::NetworkOptions;
use super::publish::{Protocol, Published};
use super::{firewall, link};
use crate::error::{Attempt, Error, Result};
use crate::sys;

/// Where it writes its process number, in the container's directory.
pub(super) const PID_FILE: &str = "pasta.pid";

/// Where the program is.
pub(super) fn find() -> Option<PathBuf> {
    firewall::find("pasta")
}

/// Makes a namespace and has pasta look after it, which ends when this process, and whatever that becomes, does.
/// The process must be in its user's namespace already.
pub(super) fn attach(published: &[Published], options: &NetworkOptions, directory: &Path) -> Result<(Namespace, Vec<Published>)> {
    if options.added_hosts.iter().any(|host| host.address.is_none()) {
        return Err(Error::invalid(
            "--add-host with host-gateway",
            "an ordinary user's containers do not reach this machine itself",
        ));
    }
    // Which are free is found out now; that pasta gets them is between it and the kernel.
    let (published, held) = Published::take(published, false)?;
    drop(held);
    let namespace = make_namespace()?;
    run(&namespace, &published, directory)?;
    Ok((namespace, published))
}

/// A namespace whose owner is the user namespace of this process, which cannot come back from one itself: its
/// own network belongs to another.
fn make_namespace() -> Result<Namespace> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe");
    let ((ready, ready_in), (done, done_in)) = (pipe()?, pipe()?);
    let mut born = || {
        sys::close(std::os::fd::AsFd::as_fd(&done_in));
        let up = Socket::route().and_then(|socket| link::loopback_up(&socket)).is_ok();
        let _ = rustix::io::write(&ready_in, &[u8::from(up)]);
        // Until it is held open by the other side.
        let _ = rustix::io::read(&done, &mut [0; 1]);
        0
    };
    let (pid, _) = sys::spawn(libc::CLONE_NEWNET, None, &mut born).attempt(|| "make a network namespace")?;
    drop(ready_in);
    let mut up = [0; 1];
    let heard = rustix::io::read(&ready, &mut up);
    let namespace = Namespace::of(pid.as_raw_nonzero().get());
    drop::<OwnedFd>(done_in);
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    match (heard, up) {
        (Ok(1), [1]) => namespace,
        _ => Err(Error::io("set up a network namespace", rustix::io::Errno::IO)),
    }
}

fn run(namespace: &Namespace, published: &[Published], directory: &Path) -> Result<()> {
    let missing = || Error::NotFound { what: "program pasta".into(), hint: "install the package passt".into() };
    let program = find().ok_or_else(missing)?;
    // By this process's number: it looks whether that is still there, and ends if not.
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.fd());
    let mut command = Command::new(&program);
    command.args(["--config-net", "--no-map-gw", "--netns-only", "-T", "none", "-U", "none", "--pid"]);
    command.arg(directory.join(PID_FILE));
    for (protocol, flag) in [(Protocol::Tcp, "-t"), (Protocol::Udp, "-u")] {
        let own: Vec<&Published> = published.iter().filter(|one| one.protocol == protocol).collect();
        if own.is_empty() {
            command.args([flag, "none"]);
        }
        for one in own {
            let host = one.host.map_or_else(String::new, |host| format!("{host}/"));
            command.arg(flag).arg(format!("{host}{}:{}", one.host_port, one.port));
        }
    }
    command.args(["--netns", &path]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().attempt(|| format!("run {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(Error::invalid("the container's network", format!("pasta refused it: {last}")))
}

/// Ends the pasta of the container whose directory this is, if it has one that still runs.
pub(crate) fn end(directory: &Path) {
    let path = directory.join(PID_FILE);
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    // The number may be another's by now: whose it is is looked at while it cannot change.
    let words = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let own = path.as_os_str().as_encoded_bytes();
    if words.split(|byte| *byte == 0).any(|word| word == own) {
        // Gone already is as good.
        let _ = sys::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGTERM);
    }
    let _ = std::fs::remove_file(path);
}
