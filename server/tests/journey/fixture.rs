//! Real images made by real tools, hosted and pulled, and what no container may leave behind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use longshore_runtime::name::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::common::needs::{installed, root};
use super::common::{Rhub, wait_until};
use super::tools::{User, stderr};

/// Which image `make-image.sh` makes.
#[derive(Clone, Copy)]
pub enum Kind {
    Small,
    Mysql,
}

/// The OCI layout of a real image and its tag; `None` (and a line that says so) where it cannot be
/// made. Kept between runs for as long as the scripts that make it are the same.
pub fn layout(kind: Kind) -> Option<String> {
    let (name, tag, makers): (_, _, &[&str]) = match kind {
        Kind::Small => ("small", "latest", &["umoci", "busybox", "setcap", "setfattr"]),
        Kind::Mysql => ("mysql", "5.7", &["umoci", "mmdebstrap", "setcap", "setfattr"]),
    };
    if !root() || !makers.iter().all(|maker| installed(maker)) {
        return None;
    }
    let scripts = [&include_bytes!("../fixtures/make-image.sh")[..], include_bytes!("../fixtures/mysql-entrypoint.sh")];
    let digest = Digest::of(&scripts.concat());
    let version = &digest.hex()[..12];
    let layout = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures").join(format!("{name}-{version}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/make-image.sh");
    let output = Command::new(script).arg(&layout).arg(name).output().unwrap();
    assert!(output.status.success(), "make-image.sh {name}: {}", stderr(&output));
    Some(format!("{}:{tag}", layout.display()))
}

/// A registry with the small image, and a user who has pulled it.
pub struct Ready {
    pub rhub: Rhub,
    pub user: User,
    /// The image's name.
    pub image: String,
    _data: tempfile::TempDir,
}

impl Ready {
    pub fn new() -> Option<Self> {
        let layout = layout(Kind::Small)?;
        let (data, user) = (tempfile::tempdir().unwrap(), User::new());
        let rhub = Rhub::start(data.path());
        let image = format!("{}/team/small:1", rhub.address);
        user.succeed("rpush", &[&format!("oci:{layout}"), &image]);
        user.succeed("rpull", &[&image]);
        Some(Self { rhub, user, image, _data: data })
    }

    /// `rrun OPTIONS IMAGE COMMAND`
    pub fn command(&self, options: &[&str], command: &[&str]) -> Command {
        self.user.command("rrun", &[options, &[&self.image], command].concat())
    }

    pub fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.command(options, command).output().unwrap()
    }

    /// What a script that must succeed prints. Its container goes with it.
    pub fn sh(&self, options: &[&str], script: &str) -> String {
        let output = self.run(&[&["--rm"], options].concat(), &["sh", "-c", script]);
        assert!(output.status.success(), "{options:?} {script:?}: {}\n{}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a script that says `up` and waits until it has. Its container goes with it.
    pub fn start(&self, script: &str) -> Running {
        let mark = format!("MARK={}", self.user.store().display());
        let mut command = self.command(&["--rm", "-e", &mark], &["sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "{script}");
        Running { child, out, id: only_container(&self.user) }
    }
}

/// The ID of the one container of a user.
pub fn only_container(user: &User) -> String {
    let containers: Vec<_> = std::fs::read_dir(user.store().join("containers")).unwrap().collect();
    let [Ok(container)] = &containers[..] else { panic!("there is one container: {containers:?}") };
    container.file_name().into_string().unwrap()
}

/// `rrun` while its container runs.
pub struct Running {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
    /// The container's ID.
    pub id: String,
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// The mount points of this machine, but for those of other tests.
pub struct Mounts(BTreeSet<String>);

impl Mounts {
    pub fn now(user: &User) -> Self {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = text.lines().map(|line| line.split(' ').nth(4).unwrap());
        let temporary = std::env::temp_dir();
        let of_another = |point: &&str| Path::new(point).starts_with(&temporary) && !Path::new(point).starts_with(user.home());
        Self(points.filter(|point| !of_another(point)).map(str::to_owned).collect())
    }
}

/// Asserts that of a user's containers nothing is left: processes (their guards among them), mounts,
/// cgroups, directories. Leases may be left where `rrun` was killed: the next command clears them.
pub fn nothing_left(user: &User, before: &Mounts, ids: &[&str]) {
    wait_until("every process of the user is gone", || processes(user).is_empty());
    assert_eq!(Mounts::now(user).0, before.0, "mount points");
    let cgroups = find(Path::new("/sys/fs/cgroup"), &|name| ids.iter().any(|id| name.contains(id)));
    assert_eq!(cgroups, Vec::<PathBuf>::new(), "cgroups");
    let scratch: Vec<_> = std::fs::read_dir(user.store().join("scratch")).unwrap().collect();
    assert!(scratch.is_empty(), "{scratch:?}");
}

/// The processes started for a user: by the path of the store, which all have in their environment.
/// Those inside a container have it as the mark it was started with.
pub fn processes(user: &User) -> Vec<u32> {
    let store = user.store().display().to_string().into_bytes();
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let marked = |id: &u32| {
        // Gone meanwhile, or a kernel thread.
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.ends_with(&store))
    };
    ids.filter(marked).collect()
}

/// Whether a process is the first one of a pid namespace of its own.
pub fn is_init(id: &u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    inner.split_whitespace().count() > 1 && inner.split_whitespace().last() == Some("1")
}

fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    // Cgroups of others come and go.
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let dirs = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.flat_map(|entry| {
        let own = entry.file_name().to_str().is_some_and(wanted).then(|| entry.path());
        own.into_iter().chain(find(&entry.path(), wanted))
    })
    .collect()
}
