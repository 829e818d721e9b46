//! An ordinary user pulls and runs what root does, and sees the same.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;

use super::common::needs::{installed, useful};
use super::common::wait_until;
use super::fixture::{Mounts, Ready, nothing_left, processes, send};
use super::tools::{User, program_path, stderr};

/// No account of the host needs to exist: the user's name and ranges are mounted over the host's files.
const UID: u32 = 61_235;
pub(super) const RANGE: &str = "tester:500000:65536\n";

/// Says who the user is and all there is to say of what the image brought.
const SURVEY: &str = "id; cat /usr/share/kept/file; find /bin/su /bin/ping /etc/passwd /srv /tmp /usr /var \
     -exec stat -c '%n %N %F %f %u:%g %Y %h' {} + | sort; md5sum /bin/su /srv/links/b/second";

/// An ordinary user with a home and programs of their own.
pub(super) struct Ordinary {
    pub(super) user: User,
    /// Holds the files mounted over the host's, and the programs: where those were built, an ordinary
    /// user may not be able to look.
    host: PathBuf,
}

impl Ordinary {
    /// `ranges` is their `/etc/subuid` and `/etc/subgid`.
    pub(super) fn new(ranges: &str) -> Option<Self> {
        if !["newuidmap", "setpriv", "unshare"].iter().all(|program| installed(program)) {
            return None;
        }
        let user = User::new();
        let host = user.home().join("host");
        fs::create_dir(&host).unwrap();
        for program in ["rpull", "rrun", "rbox"] {
            let path = host.join(program);
            fs::copy(program_path(program), &path).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::write(host.join("ranges"), ranges).unwrap();
        fs::write(host.join("passwd"), format!("root:x:0:0::/:\ntester:x:{UID}:{UID}::/:\n")).unwrap();
        chown(user.home(), Some(UID), Some(UID)).unwrap();
        Some(Self { user, host })
    }

    pub(super) fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    pub(super) fn command(&self, program: &str, args: &[&str]) -> Command {
        let script = "mount --bind $HOST/passwd /etc/passwd && mount --bind $HOST/ranges /etc/subuid && \
                      mount --bind $HOST/ranges /etc/subgid && \
                      for program in $HIDDEN; do mount --bind /dev/null /usr/bin/$program || exit; done && \
                      cd / && exec setpriv --reuid $ID --regid $ID --clear-groups \"$@\"";
        let program = self.host.join(program);
        // For its environment alone.
        let as_root = self.user.command("rrun", &[]);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(program).args(args);
        for (name, value) in as_root.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("HOST", &self.host).env("ID", UID.to_string());
        command
    }

    /// The same where these programs are not installed.
    fn without(&self, hidden: &str, program: &str, args: &[&str]) -> Output {
        self.command(program, args).env_remove("LONGSHORE_NETWORK").env("HIDDEN", hidden).output().unwrap()
    }

    /// With the network that is there if nothing is said.
    fn networked(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).env_remove("LONGSHORE_NETWORK").output().unwrap()
    }

    pub(super) fn succeed(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}\n{}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn layers(&self) -> PathBuf {
        self.user.store().join("layers/sha256")
    }
}

fn owner(layers: &Path, path: &str) -> u32 {
    let inside = |layer: fs::DirEntry| layer.path().join("fs").join(path).symlink_metadata().ok();
    fs::read_dir(layers).unwrap().find_map(|layer| inside(layer.unwrap())).expect(path).uid()
}

#[test]
fn an_ordinary_user_with_a_range_sees_what_root_sees() {
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    assert_eq!(owner(&ordinary.layers(), "srv/links/owned"), 500_000 + 1234 - 1);

    let before = Mounts::now(&ordinary.user);
    let survey = |options: &[&str]| ordinary.succeed("rrun", &[&["--rm"], options, &[&ready.image, "sh", "-c", SURVEY]].concat());
    assert_eq!(survey(&[]), ready.sh(&[], SURVEY));
    assert_eq!(survey(&["-u", "app"]).lines().next(), Some("uid=1000(app) gid=1000(app) groups=1000(app)"));
    let ping = ordinary.output("rrun", &["--rm", "-u", "app", &ready.image, "ping", "-c", "1", "127.0.0.1"]);
    assert!(ping.status.success(), "capabilities of files count: {}", stderr(&ping));
    let absent = ordinary.output("rrun", &["--rm", "-u", "65537", &ready.image, "true"]);
    assert_eq!(absent.status.code(), Some(125));
    assert!(stderr(&absent).contains("65537") && stderr(&absent).contains("/etc/subuid"), "{}", stderr(&absent));
    let change = "rm -r /usr && chown 5:6 /etc/passwd && mkdir /etc/new && ls /etc; exit 9";
    let changed = ordinary.output("rrun", &["--rm", &ready.image, "sh", "-c", change]);
    assert_eq!(changed.status.code(), Some(9), "{}", stderr(&changed));
    assert_eq!(survey(&[]), ready.sh(&[], SURVEY));
    nothing_left(&ordinary.user, &before, &[]);
    ordinary.succeed("rbox", &["rmi", &ready.image]);
    assert_eq!(ordinary.user.check_store(), (vec![], vec![]));
}

#[test]
fn an_ordinary_user_without_a_range_is_told_and_runs_it_all_the_same() {
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new("") else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    assert_eq!(owner(&ordinary.layers(), "srv/links/owned"), UID);
    let output =
        ordinary.output("rrun", &["--rm", &ready.image, "sh", "-c", "id -u; cat /usr/share/kept/file; echo x >/etc/new; exit 4"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(4), &b"0\nkept\n"[..]), "{}", stderr(&output));
    let other = ordinary.output("rrun", &["--rm", "-u", "app", &ready.image, "true"]);
    assert_eq!(other.status.code(), Some(125));
    assert!(stderr(&other).contains("/etc/subuid"), "{}", stderr(&other));
    ordinary.succeed("rbox", &["rmi", &ready.image]);
    assert_eq!(ordinary.user.check_store(), (vec![], vec![]));
}

#[test]
fn an_ordinary_user_s_detached_containers_are_watched_stopped_and_removed() {
    let Some(ready) = Ready::new() else { return };
    for (ranges, user, id_inside) in [(RANGE, "app", "1000"), ("", "root", "0")] {
        let Some(ordinary) = Ordinary::new(ranges) else { return };
        ordinary.succeed("rpull", &[&ready.image]);
        let before = Mounts::now(&ordinary.user);
        let mark = format!("MARK={}", ordinary.user.store().display());
        let script = "id -u; touch /tmp/mine; trap 'exit 33' TERM; echo up; while :; do sleep 1000 & wait; done";
        let rbox = |args: &[&str]| ordinary.succeed("rbox", args);
        let start = |name: &str, options: &[&str]| {
            let args = [&["-d", "--name", name, "-u", user, "-e", &mark], options, &[&ready.image, "sh", "-c", script]].concat();
            ordinary.succeed("rrun", &args).trim().to_owned()
        };
        let id = start("mine", &[]);
        wait_until("it is up", || rbox(&["logs", "mine"]) == format!("{id_inside}\nup\n"));
        assert_eq!(rbox(&["ps", "-q", "--no-trunc"]), format!("{id}\n"));
        assert_eq!(rbox(&["exec", "mine", "id", "-u"]), format!("{id_inside}\n"));
        assert_eq!(rbox(&["exec", "-u", "0", "mine", "id", "-u"]), "0\n");
        rbox(&["stop", "-t", "30", "mine"]);
        assert_eq!(rbox(&["wait", "mine"]), "33\n");
        rbox(&["start", "mine"]);
        let is_monitor =
            |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"longshore-monitor\0"));
        let monitor = || processes(&ordinary.user).into_iter().find(is_monitor);
        // It has just executed itself: its name may be a moment late.
        wait_until("the monitor is there", || monitor().is_some());
        send(monitor().unwrap(), Signal::KILL);
        assert_eq!(rbox(&["wait", "mine"]), "137\n");
        assert_eq!(rbox(&["ps", "-q"]), "");
        nothing_left(&ordinary.user, &before, &[&id]);
        rbox(&["rm", "mine"]);
        // Each is in a user namespace of its own.
        let ids = [start("one", &["--rm"]), start("two", &[])];
        rbox(&["rm", "-f", "one", "two"]);
        assert_eq!(rbox(&["ps", "-aq"]), "");
        nothing_left(&ordinary.user, &before, &[&ids[0], &ids[1]]);
        rbox(&["rmi", &ready.image]);
        assert_eq!(ordinary.user.check_store(), (vec![], vec![]));
    }
}

#[test]
fn an_ordinary_user_s_containers_are_started_again_looked_after_and_attached_to() {
    let Some(ready) = Ready::new() else { return };
    for ranges in [RANGE, ""] {
        let Some(ordinary) = Ordinary::new(ranges) else { return };
        ordinary.succeed("rpull", &[&ready.image]);
        let before = Mounts::now(&ordinary.user);
        let rbox = |args: &[&str]| ordinary.succeed("rbox", args);
        let run = |options: &[&str], script: &str| {
            ordinary.succeed("rrun", &[&["-d"], options, &[&ready.image, "sh", "-c", script]].concat()).trim().to_owned()
        };
        let again = run(&["--name", "again", "--restart", "always"], "echo run; exit 1");
        wait_until("it was started again", || rbox(&["logs", "again"]).lines().count() > 3);
        wait_until("it waits", || rbox(&["ps"]).contains("Restarting (1)"));
        rbox(&["stop", "again"]);
        assert!(rbox(&["ps", "-a"]).contains("Exited (1)"));
        assert_eq!(rbox(&["system", "boot"]), "again\n");
        rbox(&["rm", "-f", "again"]);
        let options = ["--name", "well", "-i", "--init", "--health-cmd", "id -u", "--health-interval", "50ms"];
        let well = run(&options, "trap 'exit 33' TERM; echo up; while :; do sleep 1000 & wait; done");
        wait_until("it is well", || rbox(&["ps"]).contains("(healthy)"));
        let stop = std::thread::scope(|scope| {
            let attached = scope.spawn(|| ordinary.output("rbox", &["attach", "well"]));
            wait_until("it is attached", || rbox(&["events", "--until", "0s", "--filter", "event=attach"]).contains("well"));
            rbox(&["stop", "-t", "60", "well"]);
            attached.join().unwrap()
        });
        assert_eq!(stop.status.code(), Some(33), "{}", stderr(&stop));
        let created = rbox(&["create", &ready.image, "echo", "made"]);
        assert_eq!(rbox(&["start", "-a", created.trim()]), "made\n");
        assert!(
            ordinary
                .succeed("rrun", &["--rm", "--privileged", &ready.image, "grep", "CapEff", "/proc/self/status"])
                .contains("ff")
        );
        for mode in ["host", "container:well"] {
            let refused = ordinary.output("rrun", &["--rm", "--pid", mode, &ready.image, "true"]);
            assert!(refused.status.code() == Some(125) && !stderr(&refused).contains("launch"), "{}", stderr(&refused));
        }
        assert!(rbox(&["container", "prune", "-f"]).contains(&well));
        nothing_left(&ordinary.user, &before, &[&again, &well]);
        rbox(&["rmi", &ready.image]);
        assert_eq!(ordinary.user.check_store(), (vec![], vec![]));
    }
}

#[test]
fn an_ordinary_user_s_ports_are_published_by_pasta_which_ends_with_the_container() {
    if !installed("pasta") || !useful(Path::new("/dev/net/tun").exists(), "/dev/net/tun") {
        return;
    }
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    let before = Mounts::now(&ordinary.user);
    let mark = format!("MARK={}", ordinary.user.store().display());
    let script = "while :; do echo hello | nc -l -p 80; done";
    let args = ["-d", "--name", "web", "-e", &mark, "-p", "127.0.0.1::80", &ready.image, "sh", "-c", script];
    let output = ordinary.networked("rrun", &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let address = ordinary.succeed("rbox", &["port", "web", "80"]);
    wait_until("it says hello", || {
        let mut text = String::new();
        let heard = std::net::TcpStream::connect(address.trim()).and_then(|mut stream| stream.read_to_string(&mut text));
        heard.is_ok() && text == "hello\n"
    });
    let pasta = || {
        let file = ordinary.user.store().join("containers").join(&id).join("outside.pid");
        let is_it = |words: &[u8]| words.windows(file.as_os_str().len()).any(|part| part == file.as_os_str().as_encoded_bytes());
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|process| fs::read(process.path().join("cmdline")).is_ok_and(|words| is_it(&words))).count()
    };
    assert_eq!(pasta(), 1);
    ordinary.succeed("rbox", &["stop", "-t", "0", "web"]);
    wait_until("pasta has ended", || pasta() == 0);
    let started = ordinary.networked("rbox", &["start", "web"]);
    assert!(started.status.success(), "{}", stderr(&started));
    assert_eq!(pasta(), 1);
    let is_monitor =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"longshore-monitor\0"));
    let monitor = || processes(&ordinary.user).into_iter().find(is_monitor);
    wait_until("the monitor is there", || monitor().is_some());
    send(monitor().unwrap(), Signal::KILL);
    wait_until("pasta has ended with the monitor", || pasta() == 0);
    ordinary.succeed("rbox", &["rm", "-f", "web"]);
    // In the foreground, too; and what cannot be is refused by name.
    ordinary.succeed("rbox", &["network", "create", "--internal", "closed"]);
    let seen = ordinary.networked("rrun", &["--rm", &ready.image, "sh", "-c", "ls /sys/class/net | wc -l"]);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "2\n", "{}", stderr(&seen));
    for (args, part) in [
        (&["--network", "front"] as &[&str], "network front not found"),
        (&["--network", "closed", "-p", "8080:80"], "internal"),
        (&["--network", "closed", "--network", "bridge"], "alone"),
        (&["--ip", "10.0.0.2"], "--ip"),
        (&["--add-host", "up:host-gateway"], "host-gateway"),
        (&["--network", "closed", "--add-host", "up:host-gateway"], "host-gateway"),
        (&["-p", "80:80"], "below 1024"),
    ] {
        let said = stderr(&ordinary.networked("rrun", &[&["--rm"], args, &[&ready.image, "true"]].concat()));
        assert!(said.contains(part), "{args:?}: {said}");
    }
    let wire = ["network", "create", "-d", "macvlan", "-o", "parent=lo", "--subnet", "10.7.0.0/24", "wire"];
    assert!(stderr(&ordinary.output("rbox", &wire)).contains("only root"));
    nothing_left(&ordinary.user, &before, &[&id]);
}

#[test]
fn an_ordinary_user_s_containers_are_in_one_user_namespace_and_share_others() {
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    let before = Mounts::now(&ordinary.user);
    let mark = format!("MARK={}", ordinary.user.store().display());
    let names: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
    // All at once: none is the first.
    let start = |name: &String| {
        let args = ["-d", "--name", name, "-e", &mark, "--ipc", "private", &ready.image, "sleep", "1000"];
        ordinary.command("rrun", &args).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = names.iter().map(start).collect();
    let ids: Vec<String> = children
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned())
        .collect();
    let namespace = |name: &String, kind: &str| {
        let described = ordinary.succeed("rbox", &["inspect", "--type", "container", name]);
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        fs::read_link(format!("/proc/{}/ns/{kind}", described[0]["State"]["Pid"])).unwrap()
    };
    let users: std::collections::BTreeSet<PathBuf> = names.iter().map(|name| namespace(name, "user")).collect();
    assert_eq!(users.len(), 1, "{users:?}");
    assert_ne!(users.first(), Some(&fs::read_link("/proc/self/ns/user").unwrap()));
    // Other containers' processes, queues and host name; and a command in the foreground is with them.
    let shared = ["--rm", "--pid", "container:c0", "--ipc", "container:c1", "--uts", "container:c2", &ready.image];
    let seen = ordinary.succeed(
        "rrun",
        &[&shared[..], &["sh", "-c", "ps; readlink /proc/self/ns/user; readlink /proc/self/ns/ipc; hostname"]].concat(),
    );
    assert!(seen.contains("sleep 1000") && seen.contains(&ids[2][..12]), "{seen}");
    for expected in [namespace(&names[0], "user"), namespace(&names[1], "ipc")] {
        assert!(seen.contains(expected.to_str().unwrap()), "{expected:?} in {seen}");
    }
    // The one that is left keeps it, whatever becomes of the others.
    let kept: Vec<&str> = names[1..].iter().map(String::as_str).collect();
    ordinary.succeed("rbox", &[&["rm", "-f"][..], &kept].concat());
    let next = start(&"next".to_owned()).wait_with_output().unwrap();
    assert_eq!(users.first(), Some(&namespace(&"next".to_owned(), "user")));
    ordinary.succeed("rbox", &["rm", "-f", "c0", "next"]);
    let next = String::from_utf8(next.stdout).unwrap();
    let ids: Vec<&str> = ids.iter().map(String::as_str).chain([next.trim()]).collect();
    nothing_left(&ordinary.user, &before, &ids);
    // Who is gone is struck out.
    ordinary.succeed("rrun", &["--rm", &ready.image, "true"]);
    let listed: Vec<_> = fs::read_dir(ordinary.user.store().join("userns")).unwrap().flatten().collect();
    assert_eq!(listed.len(), 1, "the lock alone: {listed:?}");
    ordinary.succeed("rbox", &["rmi", &ready.image]);
    assert_eq!(ordinary.user.check_store(), (vec![], vec![]));
}

#[test]
fn without_pasta_an_ordinary_user_s_ports_are_published_by_slirp4netns() {
    if !installed("slirp4netns") || !useful(Path::new("/dev/net/tun").exists(), "/dev/net/tun") {
        return;
    }
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    ordinary.succeed("rbox", &["network", "create", "front"]);
    let before = Mounts::now(&ordinary.user);
    let mark = format!("MARK={}", ordinary.user.store().display());
    let script = "while :; do echo hello | nc -l -p 80; done";
    for network in ["bridge", "front"] {
        let args =
            ["-d", "--name", "web", "--network", network, "-e", &mark, "-p", "127.0.0.1::80", &ready.image, "sh", "-c", script];
        let output = ordinary.without("pasta", "rrun", &args);
        assert!(output.status.success(), "{}", stderr(&output));
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let address = ordinary.succeed("rbox", &["port", "web", "80"]);
        wait_until("it says hello", || {
            let mut text = String::new();
            let heard = std::net::TcpStream::connect(address.trim()).and_then(|mut stream| stream.read_to_string(&mut text));
            heard.is_ok() && text == "hello\n"
        });
        let seen = ordinary.succeed("rbox", &["exec", "web", "ip", "addr", "show", "tap0"]);
        assert!(seen.contains("10.0.2.100"), "{seen}");
        // The same port again: slirp4netns is not asked, this machine is.
        let taken = format!("{}:80", address.trim());
        let said = stderr(&ordinary.without("pasta", "rrun", &["--rm", "-p", &taken, &ready.image, "true"]));
        assert!(said.contains("in use"), "{said}");
        if network == "front" {
            let heard = ordinary.without("pasta", "rrun", &["--rm", "--network", network, &ready.image, "nc", "web", "80"]);
            assert_eq!(heard.stdout, b"hello\n", "{}", stderr(&heard));
        }
        ordinary.succeed("rbox", &["rm", "-f", "web"]);
        nothing_left(&ordinary.user, &before, &[&id]);
    }
    let said = stderr(&ordinary.without("pasta", "rrun", &["--rm", "-p", "[::1]:8080:80", &ready.image, "true"]));
    assert!(said.contains("IPv6") && said.contains("passt"), "{said}");
    let neither = ordinary.without("pasta slirp4netns", "rrun", &["--rm", &ready.image, "ls", "/sys/class/net"]);
    assert_eq!(neither.stdout, b"lo\n");
    assert!(stderr(&neither).contains("passt"), "{}", stderr(&neither));
    let inner =
        ordinary.without("pasta slirp4netns", "rrun", &["--rm", "--network", "front", &ready.image, "ls", "/sys/class/net"]);
    assert_eq!(inner.stdout, b"eth0\nlo\n");
    assert!(stderr(&inner).contains("passt"), "{}", stderr(&inner));
    let said = stderr(&ordinary.without(
        "pasta slirp4netns",
        "rrun",
        &["--rm", "--network", "front", "-p", "8080:80", &ready.image, "true"],
    ));
    assert!(said.contains("passt"), "{said}");
}
