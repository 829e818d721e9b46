//! The network of an ordinary user's container: pasta passes its connections on as the user's own.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;
use rustix::process::WaitOptions;

use super::namespace::Namespace;
use super::netlink::Socket;
use super::options::NetworkOptions;
use super::publish::{Protocol, Published};
use super::{firewall, link};
use crate::error::{Attempt, Error, Result};
use crate::hooks::ends_within;
use crate::sys::{self, CStringArray};

/// Where it writes its process number, in the container's directory.
pub(super) const PID_FILE: &str = "pasta.pid";

/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often that is looked at.
const POLL: Duration = Duration::from_millis(2);

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
        sys::close(done_in.as_fd());
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
    let namespace = Namespace::of_child(pid);
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
    let attempted = || format!("run {}", program.display());
    // It closes what it inherits, and may not look at this process's descriptors: a mount shows it the namespace.
    let place = directory.join("netns");
    std::fs::write(&place, "").and_then(|()| Ok(rustix::mount::mount_bind(namespace.path(), &place)?)).attempt(attempted)?;
    let (pid_file, log) = (directory.join(PID_FILE), directory.join("pasta.log"));
    let started = start(&program, &arguments(&place, &pid_file, published), &pid_file, &log);
    let unmounted = rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).attempt(attempted);
    let removed = std::fs::remove_file(&place).attempt(attempted);
    started?;
    unmounted.and(removed)
}

fn arguments(namespace: &Path, pid_file: &Path, published: &[Published]) -> Vec<OsString> {
    // This process ends it, or the kernel when this process is gone.
    let fixed = ["pasta", "--foreground", "--no-netns-quit", "--config-net", "--no-map-gw", "--netns-only"];
    let mut words: Vec<OsString> = fixed.map(Into::into).into();
    words.extend(["-T", "none", "-U", "none", "--pid"].map(Into::into));
    words.push(pid_file.into());
    for (protocol, flag) in [(Protocol::Tcp, "-t"), (Protocol::Udp, "-u")] {
        let own = published.iter().filter(|one| one.protocol == protocol).map(|one| {
            let host = one.host.map_or_else(String::new, |host| format!("{host}/"));
            format!("{host}{}:{}", one.host_port, one.port)
        });
        let mut own: Vec<String> = own.collect();
        if own.is_empty() {
            own.push("none".into());
        }
        words.extend(own.into_iter().flat_map(|ports| [flag.into(), ports.into()]));
    }
    words.extend(["--netns".into(), namespace.into()]);
    words
}

/// Starts it as a child that the kernel ends with this process, and waits until it has written its number, which
/// it does when it is ready.
fn start(program: &Path, words: &[OsString], pid_file: &Path, log: &Path) -> Result<()> {
    let attempted = || format!("run {}", program.display());
    let _ = std::fs::remove_file(pid_file);
    let c_string = |word: &OsString| CString::new(word.as_encoded_bytes()).map_err(std::io::Error::from).attempt(attempted);
    let arguments = CStringArray::new(words.iter().map(c_string).collect::<Result<_>>()?);
    let environment = CStringArray::new(Vec::new());
    let null = File::open("/dev/null").attempt(attempted)?;
    let output = File::create(log).attempt(attempted)?;
    let program_file = File::open(program).attempt(attempted)?;
    let (_, pidfd) = sys::spawn(0, None, &mut || {
        let place = |fd: &File, number| sys::place_fd(fd.as_fd(), number, false);
        let ready = sys::die_with_parent()
            .and_then(|()| place(&null, 0))
            .and_then(|()| place(&output, 1))
            .and_then(|()| place(&output, 2))
            .and_then(|()| sys::close_on_exec_from(3));
        // It takes an ignored signal for a failure.
        sys::reset_signals();
        if ready.is_ok() {
            sys::exec_fd(program_file.as_fd(), &arguments, &environment);
        }
        1
    })
    .attempt(attempted)?;
    let began = Instant::now();
    while std::fs::metadata(pid_file).map_or(0, |file| file.len()) == 0 {
        if ends_within(&pidfd, POLL).attempt(attempted)? {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            return Err(Error::invalid("the container's network", format!("pasta refused it: {last}")));
        }
        if began.elapsed() > PATIENCE {
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            return Err(Error::io(attempted(), rustix::io::Errno::TIMEDOUT));
        }
    }
    Ok(())
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
        let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGTERM);
    }
    let _ = std::fs::remove_file(path);
}
