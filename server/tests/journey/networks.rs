//! Networks of containers, each test in a network namespace of its own: whatever is flushed or left there is its. What is
//! the same for root and for an ordinary user is tested as both.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;

use super::common::needs::{installed, useful};
use super::common::wait_until;
use super::detached::{POLITE, monitor, nothing_kept};
use super::fixture::{Mounts, Ready, send};
use super::rootless::{Ordinary, RANGE};
use super::tools::{User, stderr};

/// Says `hello` to everybody who connects to port 80.
const HELLO: &str = "while :; do echo hello | nc -l -p 80; done & trap 'exit 33' TERM; echo up; wait; wait";

/// A network namespace that is held open by a process in it.
pub(super) struct Namespace(Child);

impl Namespace {
    pub(super) fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Once it is up.
        let mut line = [0; 3];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        Self(child)
    }

    /// The same command in the namespace.
    pub(super) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.0.id().to_string(), "-n", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Gives it an interface that is said to lead everywhere.
    pub(super) fn lead_outside(&self) {
        self.sh("ip link add outside type veth peer name beyond && ip link set beyond up && ip link set outside up && \
             ip addr add 198.51.100.1/24 dev outside && ip route add default via 198.51.100.254 && \
             ip addr add fd00:8::1/64 dev outside nodad && ip route add default via fd00:8::fe");
    }

    pub(super) fn sh(&self, script: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        let output = self.inside(&command).output().unwrap();
        assert!(output.status.success(), "{script}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is heard of who is connected to, if anybody is there. Says something first: the pasta of Debian 12 waits for that.
    fn connect(&self, address: &str, port: u16) -> Option<String> {
        let mut command = Command::new("timeout");
        command.args(["5", "bash", "-c", &format!("exec 3<>/dev/tcp/{address}/{port}; echo >&3; cat <&3")]);
        let output = self.inside(&command).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Tests that are run twice: as root, and as an ordinary user.
macro_rules! as_both {
    ($($test:ident)*) => {
        mod as_root {
            $(#[test] fn $test() {
                if let Some(net) = crate::networks::Net::new() {
                    super::$test(&net);
                }
            })*
        }
        mod as_a_user {
            $(#[test] fn $test() {
                if let Some(net) = crate::networks::Net::of_a_user() {
                    super::$test(&net);
                }
            })*
        }
    };
}
pub(super) use as_both;

as_both! {
    addresses_are_given_once_and_run_out
    a_container_shares_another_s_network
    a_lease_that_is_left_takes_nothing_from_the_container_made_under_it
    a_question_for_others_is_passed_on_and_their_answer_back
    containers_find_each_other_by_name_and_nobody_else_finds_them
    datagrams_reach_a_published_port_and_their_answers_come_back
    published_ports_are_reached_from_here_and_from_elsewhere
    whatever_is_killed_no_address_port_or_interface_is_left
}

/// An image, and a machine of its own as far as networks go.
pub(super) struct Net {
    ready: Ready,
    /// Who runs containers, if it is not root.
    ordinary: Option<Ordinary>,
    namespace: Namespace,
}

/// A test that fails leaves none of its containers, either.
impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ids = self.output("rbox", &["ps", "-aq"]).stdout;
            let ids = String::from_utf8_lossy(&ids).into_owned();
            self.output("rbox", &[&["rm", "-f"][..], &ids.lines().collect::<Vec<_>>()].concat());
        }
    }
}

impl Net {
    pub(super) fn new() -> Option<Self> {
        if !["unshare", "nsenter", "ip", "nft", "bash"].iter().all(|program| installed(program)) {
            return None;
        }
        Some(Self { ready: Ready::new()?, ordinary: None, namespace: Namespace::new() })
    }

    /// The same for containers of an ordinary user, whose way outside is pasta: that looks for a way of this machine's.
    pub(super) fn of_a_user() -> Option<Self> {
        if !installed("pasta") || !useful(std::path::Path::new("/dev/net/tun").exists(), "/dev/net/tun") {
            return None;
        }
        let ordinary = Ordinary::new(RANGE)?;
        let mut net = Self::new()?;
        ordinary.succeed("rpull", &[net.image()]);
        net.namespace.lead_outside();
        net.ordinary = Some(ordinary);
        Some(net)
    }

    /// Whose containers they are.
    pub(super) fn user(&self) -> &User {
        self.ordinary.as_ref().map_or(&self.ready.user, |ordinary| &ordinary.user)
    }

    pub(super) fn is_root_s(&self) -> bool {
        self.ordinary.is_none()
    }

    pub(super) fn image(&self) -> &str {
        &self.ready.image
    }

    /// Pushes an OCI layout, and has whose containers they are pull it, as an image of Docker Hub's.
    pub(super) fn provide(&self, layout: &str, name: &str) {
        for user in [&self.ready.user, self.user()] {
            user.use_for_docker_hub(&self.ready.rhub.address);
        }
        self.ready.user.succeed("rpush", &[&format!("oci:{layout}"), name]);
        match &self.ordinary {
            None => self.ready.user.succeed("rpull", &[name]),
            Some(ordinary) => ordinary.succeed("rpull", &[name]),
        };
    }

    /// The same command on this machine.
    pub(super) fn inside(&self, command: &Command) -> Command {
        self.namespace.inside(command)
    }

    pub(super) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = match &self.ordinary {
            None => self.ready.user.command(program, args),
            Some(ordinary) => ordinary.command(program, args),
        };
        command.env_remove("LONGSHORE_NETWORK");
        self.namespace.inside(&command)
    }

    pub(super) fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    pub(super) fn rbox(&self, args: &[&str]) -> String {
        let output = self.output("rbox", args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fail(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let said = stderr(&output);
        assert!(output.status.code().is_some_and(|code| code != 0 && code != 101), "{args:?}: {said}");
        said
    }

    /// `rrun --rm OPTIONS IMAGE sh -c SCRIPT`
    fn run(&self, options: &[&str], script: &str) -> Output {
        self.output("rrun", &[&["--rm"], options, &[self.image(), "sh", "-c", script]].concat())
    }

    fn sh(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, script);
        assert!(output.status.success(), "{options:?} {script}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The ID of a container in the background.
    pub(super) fn detach(&self, options: &[&str], script: &str) -> String {
        let mark = format!("MARK={}", self.user().store().display());
        let args = [&["-d", "-e", &mark], options, &[self.image(), "sh", "-c", script]].concat();
        let output = self.output("rrun", &args);
        assert!(output.status.success(), "{options:?} {script}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn exec(&self, container: &str, script: &str) -> Output {
        self.output("rbox", &["exec", container, "sh", "-c", script])
    }

    pub(super) fn inspect(&self, container: &str) -> serde_json::Value {
        let text = self.rbox(&["inspect", "--type", "container", container]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
    }

    fn address(&self, container: &str) -> String {
        self.inspect(container)["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned()
    }

    /// Who answers on a port, once somebody does: between two connections nobody may.
    fn hears_hello(&self, namespace: &Namespace, address: &str, port: u16) {
        wait_until(&format!("{address}:{port} says hello"), || {
            namespace.connect(address, port).is_some_and(|heard| heard == "hello\n")
        });
    }

    /// Asserts that nothing of networks is left but the networks themselves.
    pub(super) fn nothing_connected(&self) {
        wait_until("no interface is left", || !self.namespace.sh("ip -o link").contains("veth"));
        for network in std::fs::read_dir(self.user().store().join("networks")).into_iter().flatten().flatten() {
            let path = network.path();
            let claims: Vec<_> = std::fs::read_dir(&path).into_iter().flatten().collect();
            assert!(claims.is_empty(), "{}: {claims:?}", path.display());
        }
        assert!(!self.namespace.sh("nft list ruleset").contains("elements"), "published ports are left");
    }
}

fn containers_find_each_other_by_name_and_nobody_else_finds_them(net: &Net) {
    let before = Mounts::now(net.user());
    let made = net.rbox(&["network", "create", "--ipv6", "--label", "tier=one", "front"]);
    assert_eq!(made.trim().len(), 64);
    net.rbox(&["network", "create", "back"]);
    let db = net.detach(&["--name", "db", "--network", "front", "--network-alias", "Base"], HELLO);
    let address = net.address("db");
    let by_name = "for n in db base DB.front; do nslookup -type=a $n | grep -A1 Name:; done; nc db 80";
    let heard = net.sh(&["--network", "front"], by_name);
    assert_eq!(heard.matches(&format!("Address: {address}")).count(), 3, "{heard}");
    assert!(heard.ends_with("hello\n"), "{heard}");
    let reverse = net.sh(&["--network", "front"], &format!("nslookup {address}"));
    assert!(reverse.contains("db.front"), "{reverse}");
    // By IPv6, too; a network without has no such address, and says no error.
    net.sh(&["--network", "front"], "ping -6 -c 1 -W 5 db");
    let plain = net.detach(&["--name", "plain", "--network", "back"], POLITE);
    assert_eq!(net.sh(&["--network", "back"], "nslookup -type=aaaa plain").matches("Name:").count(), 0);
    // Another network's containers neither know the name nor reach the address.
    assert!(!net.run(&["--network", "back"], &format!("ping -c 1 -W 1 {address}")).status.success());
    assert!(!net.run(&["--network", "back", "--dns", "127.0.0.1"], "timeout 5 nslookup db").status.success());
    assert!(!net.run(&[], &format!("ping -c 1 -W 1 {address}")).status.success());
    // Neither by the router, whatever both think of the way there.
    let network = |container: &str, name: &str| net.inspect(container)["NetworkSettings"]["Networks"][name].clone();
    let (router, back) = (network("db", "front")["Gateway"].clone(), network("plain", "back")["IPAddress"].clone());
    let pid = net.inspect("db")["State"]["Pid"].to_string();
    let back = format!("{}.0/24", back.as_str().unwrap().rsplit_once('.').unwrap().0);
    let route = |what: &str| {
        let words = ["-t", &pid, "-n", "ip", "route", what, &back, "via", router.as_str().unwrap()];
        assert!(Command::new("nsenter").args(words).status().unwrap().success());
    };
    route("add");
    let other = network("plain", "back")["Gateway"].as_str().unwrap().to_owned();
    let by_router = format!("ip route replace {address}/32 via {other} && echo way; ping -c 1 -W 1 {address} || exit 7");
    let output = net.run(&["--network", "back", "--cap-add", "NET_ADMIN"], &by_router);
    assert_eq!((output.status.code(), output.stdout.starts_with(b"way\n")), (Some(7), true), "{}", stderr(&output));
    route("del");
    // A new name counts at once; so does a connection to another network, and its end.
    net.rbox(&["rename", "db", "store"]);
    net.sh(&["--network", "front"], "ping -c 1 -W 5 store");
    net.rbox(&["network", "connect", "--alias", "cellar", "back", "store"]);
    let both = net.sh(&["--network", "back"], "nc cellar 80; ping -c 1 -W 5 store > /dev/null && echo reached");
    assert_eq!(both, "hello\nreached\n");
    assert!(net.exec("store", "nslookup -type=a plain | grep -A1 Name:").status.success());
    let networks = &net.inspect("store")["NetworkSettings"]["Networks"];
    assert_eq!(networks["back"]["Aliases"][0], "cellar", "{networks}");
    assert!(net.fail("rbox", &["network", "connect", "back", "store"]).contains("already"));
    net.rbox(&["network", "disconnect", "back", "store"]);
    assert!(!net.exec("store", "ip -o addr").stdout.windows(4).any(|name| name == b"eth1"));
    assert!(net.fail("rbox", &["network", "disconnect", "back", "store"]).contains("not found"));
    // It is in use, and says by whom.
    let said = net.fail("rbox", &["network", "rm", "front"]);
    assert!(said.contains("in use") && said.contains("store"), "{said}");
    let details: serde_json::Value = serde_json::from_str(&net.rbox(&["network", "inspect", "front"])).unwrap();
    assert_eq!(details[0]["Containers"][&db]["Name"], "store");
    assert_eq!(details[0]["Labels"]["tier"], "one");
    assert_eq!(net.rbox(&["ps", "-q", "--no-trunc", "--filter", "network=front"]), format!("{db}\n"));
    net.rbox(&["rm", "-f", "store", "plain"]);
    net.nothing_connected();
    assert!(net.rbox(&["network", "prune"]).contains("[y/N]"));
    assert!(!net.rbox(&["network", "prune", "-f", "--filter", "label=other"]).contains("front\n"));
    assert!(net.rbox(&["system", "prune", "-f"]).starts_with("Deleted Networks:\n"));
    assert!(!net.rbox(&["network", "ls"]).contains("front"));
    let left = net.namespace.sh("ip -o link; nft list ruleset");
    assert!(!left.contains("br-"), "{left}");
    nothing_kept(net.user(), &before, &[&db, &plain]);
}

/// As `rbox create` leaves it when it is killed at its very end.
fn a_lease_that_is_left_takes_nothing_from_the_container_made_under_it(net: &Net) {
    net.rbox(&["network", "create", "front"]);
    let web = net.detach(&["--name", "web", "--network", "front", "-p", "8080:80"], HELLO);
    std::fs::write(net.user().store().join("leases").join(&web), "").unwrap();
    // Clears away what was left.
    let other = net.detach(&["--network", "front"], POLITE);
    assert_ne!(net.address(&web), net.address(&other));
    let connected: serde_json::Value = serde_json::from_str(&net.rbox(&["network", "inspect", "front"])).unwrap();
    assert_eq!(connected[0]["Containers"].as_object().unwrap().len(), 2, "{connected}");
    net.hears_hello(&net.namespace, "127.0.0.1", 8080);
    net.rbox(&["rm", "-f", &web, &other]);
    net.nothing_connected();
}

#[test]
fn a_bridge_that_was_there_before_stays() {
    let Some(net) = Net::new() else { return };
    net.namespace.sh("ip link add own0 type bridge");
    for (network, bridge) in [("theirs", "own0"), ("ours", "made0")] {
        let option = format!("com.docker.network.bridge.name={bridge}");
        net.rbox(&["network", "create", "-o", &option, network]);
        assert!(net.sh(&["--network", network], "ip -o addr").contains("eth0"));
        net.rbox(&["network", "rm", network]);
    }
    let links = net.namespace.sh("ip -o link");
    assert!(links.contains("own0") && !links.contains("made0"), "{links}");
}

/// A machine that is connected to that of `net`, which is 192.0.2.1 and fd00:7::1 for it.
fn neighbour(net: &Net) -> Namespace {
    let elsewhere = Namespace::new();
    net.namespace.sh(&format!(
        "ip link add up0 type veth peer name up1 netns {}; ip addr add 192.0.2.1/24 dev up0; ip addr add fd00:7::1/64 dev up0 \
         nodad; ip link set up0 up",
        elsewhere.0.id()
    ));
    elsewhere.sh("ip addr add 192.0.2.2/24 dev up1; ip addr add fd00:7::2/64 dev up1 nodad; ip link set up1 up");
    elsewhere
}

fn published_ports_are_reached_from_here_and_from_elsewhere(net: &Net) {
    let elsewhere = neighbour(net);
    net.rbox(&["network", "create", "--ipv6", "front"]);
    // Those below 1024 an ordinary user does not have.
    net.detach(
        &["--name", "web", "--network", "front", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "90-91", "-p", "9009:9/udp"],
        HELLO,
    );
    let reached = |port: u16| {
        net.hears_hello(&net.namespace, "127.0.0.1", port);
        net.hears_hello(&net.namespace, "192.0.2.1", port);
        net.hears_hello(&elsewhere, "192.0.2.1", port);
        net.hears_hello(&elsewhere, "fd00:7::1", port);
    };
    reached(8080);
    net.hears_hello(&net.namespace, "127.0.0.1", 8081);
    assert_eq!(elsewhere.connect("192.0.2.1", 8081), None, "that one is for this machine alone");
    let ports = net.rbox(&["port", "web"]);
    assert!(ports.contains("80/tcp -> 0.0.0.0:8080\n") && ports.contains("80/tcp -> 127.0.0.1:8081\n"), "{ports}");
    assert!(ports.contains("9/udp -> 0.0.0.0:9009\n") && ports.contains("80/tcp -> [::]:8080\n"), "{ports}");
    assert_eq!(net.rbox(&["port", "web", "9/udp"]), "0.0.0.0:9009\n[::]:9009\n");
    assert!(net.fail("rbox", &["port", "web", "81"]).contains("81/tcp"));
    let row: serde_json::Value = serde_json::from_str(net.rbox(&["ps", "--format", "json"]).trim()).unwrap();
    assert!(row["Ports"].as_str().unwrap().contains("0.0.0.0:8080->80/tcp"), "{row}");
    let settings = &net.inspect("web")["NetworkSettings"];
    assert_eq!(settings["Ports"]["80/tcp"][0]["HostPort"], "8080", "{settings}");
    // Nobody else gets the port: neither a container nor a program.
    for taken in ["8080:1", "127.0.0.1:8081:1", "9009:1/udp"] {
        let said = net.fail("rrun", &["--rm", "-p", taken, net.image(), "true"]);
        assert!(said.contains("in use"), "{taken}: {said}");
    }
    net.sh(&["-p", "9009:1"], "true");
    net.rbox(&["stop", "web"]);
    net.nothing_connected();
    assert_eq!(net.rbox(&["port", "web"]), "");
    net.rbox(&["start", "web"]);
    reached(8080);
    net.rbox(&["rm", "-f", "web"]);
    net.nothing_connected();
}

#[test]
fn published_ports_lead_nowhere_else_and_survive_a_flush() {
    let Some(net) = Net::new() else { return };
    let elsewhere = neighbour(&net);
    net.rbox(&["network", "create", "front"]);
    net.detach(&["--name", "web", "--network", "front", "-p", "8080:80"], HELLO);
    let reached = |port: u16| {
        net.hears_hello(&net.namespace, "127.0.0.1", port);
        net.hears_hello(&elsewhere, "192.0.2.1", port);
    };
    reached(8080);
    // By itself, and by another network's containers, as by anybody.
    let own = net.exec("web", "nc 192.0.2.1 8080");
    assert_eq!(own.stdout, b"hello\n", "{}", stderr(&own));
    assert_eq!(net.sh(&[], "sleep 0.1; nc 192.0.2.1 8080"), "hello\n");
    // This machine's own loopback is nobody else's: a container that sends there by way of the bridge is not heard.
    if installed("python3") {
        let listen = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 8099))
print('listens', flush=True); print(s.recv(99).decode(), flush=True)";
        let mut listener = net.namespace.inside(Command::new("python3").args(["-c", listen]));
        let mut listener = listener.stdout(Stdio::piped()).spawn().unwrap();
        let mut heard = BufReader::new(listener.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        assert_eq!(heard.next().unwrap(), "listens");
        let send = "ip route del local 127.0.0.1 dev lo table local && ip route del local 127.0.0.0/8 dev lo table local &&
            echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet &&
            ip route add 127.0.0.1/32 via $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') &&
            python3 -c \"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'no', ('127.0.0.1', 8099))\"";
        net.detach(&["--name", "other", "--network", "front"], POLITE);
        let pid = net.inspect("other")["State"]["Pid"].as_u64().unwrap().to_string();
        assert!(Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-c", send]).status().unwrap().success());
        net.rbox(&["rm", "-f", "other"]);
        let own = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'from here', ('127.0.0.1', 8099))";
        assert!(net.namespace.inside(Command::new("python3").args(["-c", own])).status().unwrap().success());
        assert_eq!(heard.next().unwrap(), "from here");
        listener.wait().unwrap();
    }

    // Somebody takes all rules away: the next command that looks brings them back.
    for command in [&["ps"] as &[&str], &["stop", "other"], &["run", "--network", "front", net.image(), "true"]] {
        net.detach(&["--name", "other"], POLITE);
        net.namespace.sh("nft flush ruleset");
        assert_eq!(net.namespace.connect("127.0.0.1", 8080), None);
        net.rbox(command);
        reached(8080);
        net.rbox(&["rm", "-f", "other"]);
    }
    net.rbox(&["rm", "-f", "web"]);
    net.nothing_connected();
}

fn datagrams_reach_a_published_port_and_their_answers_come_back(net: &Net) {
    if !installed("python3") {
        return;
    }
    // Where the two differ the pasta of Debian 12 has answers come from the wrong one.
    let port = if net.is_root_s() { "53" } else { "5300" };
    net.detach(&["--name", "echo", "-p", &format!("5300:{port}/udp")], POLITE);
    // The image has no such server: this machine's runs in the container's network.
    let pid = net.inspect("echo")["State"]["Pid"].as_u64().unwrap().to_string();
    let server = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', int(sys.argv[1])))\n\
                  print('up', flush=True)\n\
                  while True: d, a = s.recvfrom(99); s.sendto(d * 2, a)";
    let mut server =
        Command::new("nsenter").args(["-t", &pid, "-n", "python3", "-c", server, port]).stdout(Stdio::piped()).spawn().unwrap();
    server.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
    let client = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); \
                  s.sendto(b'ab', ('127.0.0.1', 5300)); print(s.recv(99).decode())";
    let heard = net.namespace.inside(Command::new("python3").args(["-c", client])).output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(heard.stdout, b"abab\n", "{}", stderr(&heard));
    net.rbox(&["rm", "-f", "echo"]);
    net.nothing_connected();
}

fn whatever_is_killed_no_address_port_or_interface_is_left(net: &Net) {
    let before = Mounts::now(net.user());
    net.rbox(&["network", "create", "--subnet", "10.9.9.0/29", "tiny"]);
    let mark = format!("MARK={}", net.ready.user.store().display());
    let mut ids = Vec::new();
    for round in 0..3 {
        let id = net.detach(&["--name", "killed", "--network", "tiny", "-p", "8080:80"], POLITE);
        let args = ["--rm", "-e", &mark, "--network", "tiny", "-p", "8081:80", net.image(), "sh", "-c", "echo up; sleep 1000"];
        let mut child = net.command("rrun", &args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 3];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        if round == 0 {
            assert_eq!(net.rbox(&["network", "inspect", "tiny"]).matches("IPv4Address").count(), 2);
        }
        send(monitor(net.user(), &id), Signal::KILL);
        child.kill().unwrap();
        child.wait().unwrap();
        // Their ports and interfaces the kernel takes; what is on disk and in maps, who looks next.
        wait_until("the port is free", || {
            net.run(&["--network", "tiny", "-p", "8080:80", "-p", "8081:80"], "true").status.success()
        });
        wait_until("the killed container is seen", || net.rbox(&["ps", "-q"]).is_empty());
        net.sh(&["--network", "none"], "true");
        net.nothing_connected();
        net.rbox(&["rm", "killed"]);
        ids.push(id);
    }
    nothing_kept(net.user(), &before, &ids.iter().map(String::as_str).collect::<Vec<_>>());
}

fn addresses_are_given_once_and_run_out(net: &Net) {
    net.rbox(&["network", "create", "--subnet", "10.9.9.0/29", "--gateway", "10.9.9.6", "tiny"]);
    let addresses: Vec<String> = (0..4)
        .map(|number| {
            net.detach(&["--name", &format!("one{number}"), "--network", "tiny"], POLITE);
            net.address(&format!("one{number}"))
        })
        .collect();
    assert_eq!(addresses, ["10.9.9.1", "10.9.9.2", "10.9.9.3", "10.9.9.4"]);
    let fixed = ["--network", "tiny", "--ip", "10.9.9.5", "--mac-address", "02:00:00:00:00:07"];
    assert!(net.sh(&fixed, "ip addr show eth0").contains("02:00:00:00:00:07"));
    for (address, part) in
        [("10.9.9.2", "in use"), ("10.9.9.6", "gateway"), ("10.9.9.7", "no address"), ("10.1.1.1", "no address")]
    {
        let said = net.fail("rrun", &["--rm", "--network", "tiny", "--ip", address, net.image(), "true"]);
        assert!(said.contains(part), "{address}: {said}");
    }
    net.detach(&["--name", "last", "--network", "tiny"], POLITE);
    let said = net.fail("rrun", &["--rm", "--network", "tiny", net.image(), "true"]);
    assert!(said.contains("every address") && said.contains("tiny"), "{said}");
    net.rbox(&["stop", "one1"]);
    assert_eq!(net.sh(&["--network", "tiny"], "hostname -i"), "10.9.9.2\n");
    net.rbox(&["rm", "-f", "one0", "one1", "one2", "one3", "last"]);
    // All at once: each has its own.
    net.rbox(&["network", "create", "wide"]);
    let children: Vec<Child> = (0..8)
        .map(|_| {
            let args = ["--rm", "--network", "wide", net.image(), "sh", "-c", "hostname -i; sleep 2"];
            net.command("rrun", &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let mut given: Vec<String> = outputs
        .iter()
        .map(|output| {
            assert!(output.status.success(), "{}", stderr(output));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
        .collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 8, "{given:?}");
    net.nothing_connected();
}

fn a_container_shares_another_s_network(net: &Net) {
    net.rbox(&["network", "create", "front"]);
    let base = net.detach(&["--name", "base", "--network", "front", "-p", "80"], HELLO);
    let port: u16 = net.rbox(&["port", "base", "80"]).trim().rsplit(':').next().unwrap().parse().unwrap();
    net.hears_hello(&net.namespace, "127.0.0.1", port);
    let address = net.address("base");
    let shared = ["--network", "container:base"];
    assert_eq!(net.sh(&shared, "hostname; cat /etc/hostname"), format!("{0}\n{0}\n", &base[..12]));
    let seen =
        net.sh(&shared, "hostname -i 2>/dev/null; ip addr show eth0; ls /sys/class/net; tail -n 1 /etc/hosts; nc 127.0.0.1 80");
    assert!(seen.contains(&format!("inet {address}/24")) && seen.contains(&base[..12]) && seen.contains("hello\n"), "{seen}");
    assert!(net.fail("rrun", &["--rm", "--network", "container:base", "-p", "1:1", net.image(), "true"]).contains("--publish"));
    net.rbox(&["stop", "base"]);
    assert!(net.fail("rrun", &["--rm", "--network", "container:base", net.image(), "true"]).contains("not running"));
    net.rbox(&["rm", "base"]);
    // One without networks has one to be shared, too.
    net.detach(&["--name", "alone"], HELLO);
    wait_until("it says hello", || net.run(&["--network", "container:alone"], "nc 127.0.0.1 80").stdout == b"hello\n");
    net.rbox(&["rm", "-f", "alone"]);
    net.nothing_connected();
}

#[test]
fn a_container_has_the_lines_and_the_hardware_address_it_asks_for() {
    let Some(net) = Net::new() else { return };

    let flags = [
        "--add-host",
        "up:host-gateway",
        "--add-host",
        "six:fd00::1",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "one.test",
        "--dns-option",
        "ndots:3",
        "--mac-address",
        "02:00:00:00:00:09",
    ];
    let files = net.sh(&flags, "cat /etc/hosts /etc/resolv.conf; ip route; ls /sys/class/net; ip link show eth0");
    let gateway = files.split("default via ").nth(1).unwrap().split(' ').next().unwrap();
    for line in [
        &format!("{gateway}\tup\n"),
        "fd00::1\tsix\n",
        "nameserver 192.0.2.53\n",
        "search one.test\n",
        "options ndots:3\n",
        "eth0\nlo\n",
        "02:00:00:00:00:09",
    ] {
        assert!(files.contains(line), "{line:?} in {files}");
    }
    assert_eq!(net.sh(&["--network", "none"], "ls /sys/class/net"), "lo\n");
    // This machine's own network is what it was.
    let host = net.sh(&["--network", "host"], "ls /sys/class/net");
    assert!(host.contains("ls-"), "{host}");
    assert!(stderr(&net.run(&["--network", "host", "-p", "1:1"], "true")).contains("left out"));
    // Names are not resolved in the default network, but lead out where somebody knows them.
    net.rbox(&["network", "create", "--internal", "closed"]);
    assert_eq!(
        net.sh(&["--network", "closed"], "ip route | grep -c default || cat /etc/resolv.conf | head -n 1"),
        "0\nnameserver 127.0.0.11\n"
    );
    net.nothing_connected();
}

fn a_question_for_others_is_passed_on_and_their_answer_back(net: &Net) {
    if !installed("python3") {
        return;
    }
    // Answers each question by UDP and TCP with 192.0.2.77.
    let server = r#"
import socket, threading
def answer(q): return q[:2] + b'\x81\x80\0\1\0\1\0\0\0\0' + q[12:q.index(b'\0', 12)+5] + b'\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc0\0\2\x4d'
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 53))
t = socket.create_server(('127.0.0.1', 53))
def tcp():
    while True:
        c, _ = t.accept(); d = c.recv(4096); a = answer(d[2:]); c.sendall(len(a).to_bytes(2, 'big') + a); c.close()
threading.Thread(target=tcp, daemon=True).start()
print('up', flush=True)
while True:
    d, a = u.recvfrom(4096); u.sendto(answer(d), a)
"#;
    let mut command = net.namespace.inside(Command::new("python3").args(["-c", server]));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 3];
    child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    net.rbox(&["network", "create", "front"]);
    let asked = net.sh(&["--network", "front", "--dns", "127.0.0.1"], "nslookup -type=a somewhere.test; cat /etc/resolv.conf");
    assert!(asked.contains("192.0.2.77") && asked.contains("127.0.0.11"), "{asked}");
    net.detach(&["--name", "asks", "--network", "front", "--dns", "127.0.0.1"], POLITE);
    let heard = net.exec("asks", "nslookup -type=a elsewhere.test");
    assert!(String::from_utf8_lossy(&heard.stdout).contains("192.0.2.77"), "{}", stderr(&heard));
    child.kill().unwrap();
    child.wait().unwrap();
    // Nobody is there any more: that is said, and not waited for long.
    assert!(!net.exec("asks", "timeout 15 nslookup -type=a elsewhere.test").status.success());
    net.rbox(&["rm", "-f", "asks"]);
    net.nothing_connected();
}

#[test]
fn an_interface_on_the_wire_of_another() {
    let Some(net) = Net::new() else { return };
    net.namespace.sh("ip link add par0 type veth peer name par1; ip link set par0 up; ip link set par1 up");
    for (driver, subnet) in [("macvlan", "192.168.77.0/24"), ("ipvlan", "192.168.78.0/24")] {
        let option = "parent=par0";
        net.rbox(&["network", "create", "-d", driver, "-o", option, "--subnet", subnet, driver]);
        let run = net.run(&["--network", driver], "ip -4 addr show eth0");
        if useful(run.status.success() || !stderr(&run).contains("does not have that kind"), &format!("{driver} in the kernel")) {
            let prefix = subnet.strip_suffix("0/24").unwrap();
            assert!(String::from_utf8_lossy(&run.stdout).contains(&format!("inet {prefix}2/24")), "{}", stderr(&run));
            net.detach(&["--name", "peer", "--network", driver], POLITE);
            net.sh(&["--network", driver], "ping -c 1 -W 5 peer");
            assert!(net.fail("rrun", &["--rm", "--network", driver, "-p", "1:1", net.image(), "true"]).contains("no bridge"));
            net.rbox(&["rm", "-f", "peer"]);
        }
        net.rbox(&["network", "rm", driver]);
    }
    assert!(net.fail("rbox", &["network", "create", "-d", "macvlan", "x"]).contains("parent="));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let Some(net) = Net::new() else { return };
    net.rbox(&["network", "create", "--subnet", "10.77.0.0/24", "taken"]);
    for (args, part) in [
        (&["taken"] as &[&str], "there is one of that name"),
        (&["bridge"], "meaning of its own"),
        (&["host"], "meaning of its own"),
        (&["a/b"], "must match"),
        (&[".x"], "must match"),
        (&["--subnet", "10.77.0.128/25", "x"], "taken has it"),
        (&["--subnet", "10.5.0.1/24", "x"], "10.5.0.0/24 is meant"),
        (&["--subnet", "10.5.0.0/24", "--subnet", "10.6.0.0/24", "x"], "one subnet of IPv4"),
        (&["--subnet", "10.5.0.0/24", "--gateway", "10.6.0.1", "x"], "gateway 10.6.0.1"),
        (&["-o", "color=red", "x"], "color"),
        (&["-o", "mtu=1", "x"], "mtu"),
        (&["-o", "parent=eth0", "x"], "macvlan"),
        (&["--driver", "overlay", "x"], "overlay"),
    ] {
        let said = net.fail("rbox", &[&["network", "create"], args].concat());
        assert!(said.contains(part), "{args:?}: {said}");
    }
    for (options, part) in [
        (&["--network", "nowhere"] as &[&str], "nowhere"),
        (&["--network", "../x"], "../x"),
        (&["--network", "container:nobody"], "nobody"),
        (&["--network", "none", "--network", "taken"], "no other network"),
        (&["--network", "none", "--ip", "10.77.0.2"], "--ip"),
        (&["--ip", "10.77.0.2"], "default network"),
        (&["--network-alias", "x"], "default network"),
        (&["--network", "taken", "--network-alias", "a b"], "alias"),
        (&["-p", "80:80:80:80"], "published port"),
        (&["-p", "1-3:1-2"], "as many ports"),
        (&["-p", "80/sctp"], "tcp and udp"),
        (&["-p", "[::1]:80:80"], "no IPv6 addresses"),
        (&["-p", "192.0.2.9:80:80"], "192.0.2.9"),
        (&["--add-host", "x"], "--add-host"),
        (&["--dns", "x"], "--dns"),
        (&["--dns-search", "a b"], "one word"),
        (&["--mac-address", "01:00:00:00:00:00"], "MAC address"),
    ] {
        let output = net.run(options, "echo never");
        let said = stderr(&output);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(125), &b""[..]), "{options:?}: {said}");
        assert!(said.contains(part), "{options:?}: {said}");
    }
    assert!(net.fail("rbox", &["network", "rm", "nowhere"]).contains("not found"));
    assert!(net.fail("rbox", &["network", "rm", "bridge"]).contains("bridge"));
    let listed = net.rbox(&["network", "ls", "--filter", "driver=bridge", "--format", "json"]);
    let row: serde_json::Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    assert_eq!((row["Name"].as_str(), row["Scope"].as_str()), (Some("taken"), Some("local")));
    net.nothing_connected();
}
