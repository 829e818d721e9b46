//! Cgroups made by systemd: `--systemd-cgroup`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_runtime::userns::Mapping;
use serde_json::json;

use crate::bundle::Run;
use crate::container::{Container, SERVICE, wait_until};
use crate::needs::{installed, useful};

/// Whose systemd is asked in the test of an ordinary user.
const UID: u32 = 61_235;

/// A container in a scope of its own; `None` where systemd is not process 1, with cgroup v2 alone.
struct Scoped {
    container: Container,
    unit: String,
}

impl Scoped {
    fn new(script: &str) -> Option<Self> {
        let container = Container::sh(script)?;
        if !booted() {
            return None;
        }
        container.write(|spec| {
            spec["linux"]["cgroupsPath"] = json!(format!("longshore-test.slice:roci:{}", container.id()));
            spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 64 << 20 });
            spec["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0" });
            spec["linux"]["resources"]["pids"] = json!({ "limit": 50 });
        });
        let unit = format!("roci-{}.scope", container.id());
        Some(Self { container, unit })
    }

    fn run(&self, flags: &[&str]) -> Run {
        let file = |name: &str| File::create(self.container.file(name)).unwrap();
        let mut command = self.container.command(&["--systemd-cgroup", "run"]);
        command.args(flags).arg("--bundle").arg(self.container.bundle.directory.path()).arg(self.container.id());
        let status = command.stdout(file("out")).stderr(file("err")).status().unwrap();
        Run { code: status.code(), out: self.container.out(), err: self.container.err() }
    }

    fn service() -> Option<Self> {
        let scoped = Self::new(SERVICE)?;
        scoped.run(&["--detach"]).ok();
        wait_until(|| scoped.container.out() == "up");
        Some(scoped)
    }

    fn directory(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/longshore.slice/longshore-test.slice").join(&self.unit)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).unwrap().trim().to_owned()
    }

    fn property(&self, name: &str) -> String {
        systemctl(&["show", "--value", "--property", name, &self.unit])
    }

    #[track_caller]
    fn is_gone(&self) {
        assert_eq!(self.property("LoadState"), "not-found");
        assert!(!self.directory().exists() && self.container.is_gone());
    }
}

/// Whether systemd is process 1 here, with cgroup v2 alone.
pub(crate) fn booted() -> bool {
    let booted = Path::new("/run/systemd/private").exists() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    useful(booted, "systemd as process 1, and no cgroup v1")
}

pub(crate) fn systemctl(arguments: &[&str]) -> String {
    Run::of(Command::new("systemctl").args(arguments).output().unwrap()).ok()
}

#[test]
fn systemd_makes_the_cgroup_and_keeps_its_limits() {
    let Some(scoped) = Scoped::service() else { return };
    let pid = scoped.container.pid();
    let path = format!("0::/longshore.slice/longshore-test.slice/{}", scoped.unit);
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().trim(), path);
    assert_eq!(scoped.property("ActiveState"), "active");
    assert_eq!(scoped.property("Delegate"), "yes");
    for (property, value) in [
        ("MemoryMax", (64 << 20).to_string()),
        ("MemorySwapMax", "0".into()),
        ("TasksMax", "50".into()),
        ("CPUQuotaPerSecUSec", "500ms".into()),
        ("AllowedCPUs", "0".into()),
    ] {
        assert_eq!(scoped.property(property), value, "{property}");
    }
    // Nobody is in it but the container, and who joins it.
    let mut joined = scoped.container.command(&["exec", scoped.container.id(), "sleep", "60"]).spawn().unwrap();
    let list = || scoped.file("cgroup.procs").lines().map(|line| line.parse().unwrap()).collect::<Vec<i32>>();
    let inside = || -> Vec<i32> {
        serde_json::from_str(&scoped.container.roci(&["ps", "-f", "json", scoped.container.id()]).ok()).unwrap()
    };
    wait_until(|| inside().len() > 1);
    assert!(list().contains(&pid) && list().len() <= 3, "{:?}", list());
    joined.kill().unwrap();
    joined.wait().unwrap();

    scoped
        .container
        .roci(&["update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "40", scoped.container.id()])
        .ok();
    assert_eq!(scoped.property("MemoryMax"), (48 << 20).to_string());
    // What systemd writes again is the same.
    systemctl(&["daemon-reload"]);
    for (file, value) in [("memory.max", (48 << 20).to_string()), ("pids.max", "40".into()), ("cpu.max", "50000 100000".into())] {
        assert_eq!(scoped.file(file), value, "{file}");
    }
    let node = scoped.container.exec(&["sh", "-c", "mknod /tmp/mem c 1 1 && cat /tmp/mem"]);
    assert!(node.code != Some(0) && node.err.contains("not permitted"), "{node:?}");
    scoped.container.roci(&["pause", scoped.container.id()]).ok();
    assert_eq!(scoped.container.status(), "paused");
    scoped.container.roci(&["delete", "--force", scoped.container.id()]).ok();
    scoped.is_gone();
}

#[test]
fn a_scope_ends_with_its_container_and_its_name_can_be_used_again() {
    let Some(scoped) = Scoped::new("exit 3") else { return };
    for _ in 0..3 {
        assert_eq!(scoped.run(&[]).code, Some(3), "{}", scoped.container.err());
        scoped.is_gone();
    }
    scoped.container.write(|spec| {
        spec["process"]["args"] = json!(["/missing"]);
        spec["linux"]["cgroupsPath"] = json!(format!("longshore-test.slice:roci:{}", scoped.container.id()));
    });
    assert_eq!(scoped.run(&[]).code, Some(127));
    scoped.is_gone();
    scoped.container.write(|spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("longshore-test.slice:roci:{}", scoped.container.id()));
        spec["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "3MB", "limit": 1 }]);
    });
    let run = scoped.run(&[]);
    assert!(run.code == Some(125) && run.err.contains("linux.resources"), "{run:?}");
    scoped.is_gone();
}

#[test]
fn a_scope_that_runs_is_not_taken_over() {
    let (Some(first), Some(second)) = (Scoped::service(), Scoped::new("echo never")) else { return };
    second.container.write(|spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("longshore-test.slice:roci:{}", first.container.id()));
    });
    let run = second.run(&[]);
    assert!(run.code == Some(125) && run.err.contains(&first.unit) && run.err.contains("choose another name"), "{run:?}");
    assert_eq!((first.container.status().as_str(), second.container.out().as_str()), ("running", ""));
    assert_eq!(first.property("ActiveState"), "active");
}

#[test]
fn the_message_bus_will_do_where_systemd_s_own_socket_cannot_be_reached() {
    let Some(scoped) = Scoped::new("cat /proc/self/cgroup") else { return };
    if !useful(Path::new("/run/dbus/system_bus_socket").exists(), "the system's message bus") {
        return;
    }
    let command = scoped.container.command(&["--systemd-cgroup", "run", "--bundle"]);
    let mut apart = Command::new("unshare");
    apart.args(["-m", "sh", "-c", "mount --bind /dev/null /run/systemd/private && exec \"$@\"", "sh"]).arg(command.get_program());
    apart.args(command.get_args()).arg(scoped.container.bundle.directory.path()).arg(scoped.container.id());
    let out = Run::of(apart.output().unwrap()).ok();
    assert!(out.contains("0::/"), "{out}");
    scoped.is_gone();
}

#[test]
fn an_ordinary_user_s_systemd_makes_its_cgroup() {
    let Some(mut scoped) = Scoped::new("cat /proc/self/cgroup; sleep 1 & sleep 1 & sleep 1 & echo four") else { return };
    let runtime_directory = format!("/run/user/{UID}");
    if !useful(Path::new(&runtime_directory).join("systemd/private").exists(), "a systemd of user 61235") || !installed("setpriv")
    {
        return;
    }
    scoped.container.bundle.options.rootless = Some(Mapping::Single { advice: "" });
    scoped.container.write(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
        spec["linux"]["cgroupsPath"] = json!(format!("user.slice:roci:{}", scoped.container.id()));
        spec["linux"]["resources"] = json!({ "pids": { "limit": 3 } });
    });
    let directory = scoped.container.bundle.directory.path();
    for path in [directory.to_owned(), scoped.container.bundle.root()] {
        std::os::unix::fs::chown(path, Some(UID), Some(UID)).unwrap();
    }
    let roci = directory.join("roci");
    fs::copy(crate::bundle::ROCI, &roci).unwrap();
    // As a user's programs are: below the user's own systemd.
    let own = format!("/sys/fs/cgroup/user.slice/user-{UID}.slice/user@{UID}.service/init.scope");
    let enter = "echo $$ > $1/cgroup.procs && export XDG_RUNTIME_DIR=$2 && cd $3 && \
                 exec setpriv --reuid $4 --regid $4 --clear-groups ./roci --systemd-cgroup run $5 2>&1";
    let mut command = Command::new("sh");
    command.args(["-c", enter, "sh", &own, &runtime_directory]).arg(directory).arg(UID.to_string()).arg(scoped.container.id());
    let run = Run::of(command.output().unwrap());
    let path = format!("0::/user.slice/user-{UID}.slice/user@{UID}.service/user.slice/{}", scoped.unit);
    assert!(run.out.lines().next() == Some(&path), "{run:?}");
    assert!(!run.out.contains("four") && run.out.contains("can't fork"), "{run:?}");
    assert!(!Path::new("/sys/fs/cgroup").join(&path[4..]).exists());
}

#[test]
fn a_name_of_another_form_and_a_host_without_systemd_are_refused() {
    let Some(container) = Container::sh("echo never") else { return };
    let run = |path: &str, flags: &[&str]| {
        container.write(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let mut command = container.command(flags);
        Run::of(command.arg("run").arg("--bundle").arg(container.bundle.directory.path()).arg(container.id()).output().unwrap())
    };
    for (path, flags, words) in [
        ("/a/path", &["--systemd-cgroup"] as &[&str], "SLICE:PREFIX:NAME"),
        ("../x:a:b", &["--systemd-cgroup"], "no name of a slice"),
        ("system.slice:a:b", &[], "--systemd-cgroup"),
    ] {
        let run = run(path, flags);
        assert!(run.code == Some(125) && run.err.contains(words) && run.out.is_empty(), "{run:?}");
    }
    if !Path::new("/run/systemd/private").exists() && !Path::new("/run/dbus/system_bus_socket").exists() {
        let run = run("system.slice:a:b", &["--systemd-cgroup"]);
        assert!(run.code == Some(125) && run.err.contains("is systemd running here?"), "{run:?}");
    }
    assert!(container.is_gone());
}
