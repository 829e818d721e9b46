//! What is printed, beside what docker prints of the same: the keys of documents, columns, templates.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::common::wait_until;
use super::detached::no_containers;
use super::dockerd::Dockerd;
use super::fixture::{Kind, Mounts, Ready, layout};
use super::networks::Net;

/// Says something and stays until it is asked to end.
const SCRIPT: &str = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 1000 & wait; done";

/// Keys of docker's that are not here, as `docs/output.md` has them, with why.
const EXCEPTIONS: [(&str, &str); 8] = [
    ("ps Platform", "only newer daemons have it"),
    ("container HostConfig.KernelMemory", "the kernel has no such limit any more"),
    ("container HostConfig.KernelMemoryTCP", "the kernel has no such limit any more"),
    ("container HostConfig.CpuCount", "of Windows"),
    ("container HostConfig.CpuPercent", "of Windows"),
    ("container HostConfig.IOMaximumBandwidth", "of Windows"),
    ("container HostConfig.IOMaximumIOps", "of Windows"),
    ("image Container*", "of the container that an image was committed from, which docker gave up"),
];

/// Objects whose keys are nobody's to choose.
const MAPS: [&str; 9] =
    ["Labels", "Options", "Ports", "PortBindings", "Networks", "Containers", "ExposedPorts", "Attributes", "Volumes"];

#[test]
fn what_containers_have_written_is_counted_if_somebody_asks() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let write = "dd if=/dev/zero of=/big bs=1000 count=100 2>/dev/null; ln /big /again; ln -s / /all; echo up; sleep 1000";
    let id = ready.detach(&["--name", "writes"], write);
    ready.logged("writes", "up");
    let size = ready.rbox(&["ps", "--format", "{{.Size}}"]);
    assert!(size.starts_with("100kB (virtual "), "{size}");
    assert_eq!(ready.rbox(&["ps", "--format", "{{json .Size}}"]), size.replace('\n', "\"\n").replace("100kB", "\"100kB"));
    let table = ready.rbox(&["ps", "-s"]);
    assert!(table.lines().next().unwrap().ends_with("SIZE") && table.trim_end().ends_with(')'), "{table}");
    assert!(ready.rbox(&["ps", "--format", "json"]).contains("\"Size\":\"0B\""), "nobody asked");
    let written = ready.rbox(&["inspect", "-s", "-f", "{{.SizeRw}} {{ge .SizeRootFs .SizeRw}}", "writes"]);
    assert_eq!(written, "100001 true\n", "the file once, and the symbolic link");
    assert_eq!(ready.rbox(&["inspect", "-f", "{{.SizeRw}}", "writes"]), "<no value>\n");
    assert!(ready.inspect("writes").get("SizeRw").is_none());
    ready.rbox(&["rm", "-f", "writes"]);
    no_containers(&ready, &before, &[&id]);
}

/// The paths of all keys of a document.
fn keys(document: &Value, path: &str, found: &mut BTreeSet<String>) {
    match document {
        Value::Object(map) => {
            let is_map = MAPS.contains(&path.rsplit(['.', ' ']).next().unwrap_or_default());
            for (name, value) in map {
                let separator = if path.ends_with(' ') { "" } else { "." };
                let path = format!("{path}{separator}{}", if is_map { "*" } else { name });
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(list) => list.iter().for_each(|item| keys(item, path, found)),
        _ => {}
    }
}

fn is_exception(path: &str) -> bool {
    EXCEPTIONS.iter().any(|(known, _)| match known.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => path == *known,
    })
}

/// Both with the same image, network, volume and containers.
struct Both {
    docker: Dockerd,
    net: Net,
    /// What was printed otherwise.
    differences: RefCell<Vec<String>>,
}

impl Both {
    fn new() -> Option<Self> {
        let layout = layout(Kind::Small)?;
        let net = Net::new()?;
        net.rbox(&["tag", net.image(), "small:1"]);
        net.rbox(&["rmi", net.image()]);
        let both = Self { docker: Dockerd::start(&layout, "small:1")?, net, differences: RefCell::default() };
        both.succeed(&["network", "create", "--label", "x=y", "front"]);
        both.succeed(&["volume", "create", "--label", "a=b", "data"]);
        let options = [
            "--name",
            "one",
            "--label",
            "tier=web",
            "--label",
            "b=c,d",
            "-v",
            "data:/data",
            "--network",
            "front",
            "--memory",
            "64m",
        ];
        let more = ["-p", "127.0.0.1:18080:80", "-w", "/tmp", "-e", "A=b", "--health-cmd", "true", "--health-interval", "1s"];
        both.succeed(&[&["run", "-d"][..], &options, &more, &["small:1", "sh", "-c", SCRIPT]].concat());
        both.succeed(&["create", "--name", "two", "--restart", "on-failure:3", "--cap-add", "NET_ADMIN", "small:1", "true"]);
        let health = ["inspect", "--format", "{{.State.Health.Status}}", "one"];
        wait_until("both are healthy", || both.succeed(&health) == ("healthy\n".into(), "healthy\n".into()));
        Some(both)
    }

    /// What docker prints, and what is printed here.
    #[track_caller]
    fn succeed(&self, args: &[&str]) -> (String, String) {
        (self.docker.succeed(args), self.net.rbox(args))
    }

    /// Both are to print the same.
    #[track_caller]
    fn same(&self, args: &[&str]) {
        let (theirs, ours) = self.succeed(args);
        if ours != theirs {
            self.differences.borrow_mut().push(format!("{args:?}\n  docker: {theirs:?}\n  here:   {ours:?}"));
        }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        self.net.output("rbox", &["rm", "-f", "-v", "one", "two"]);
    }
}

#[test]
fn every_key_column_and_template_of_docker_s_is_here_or_is_a_known_exception() {
    let Some(both) = Both::new() else { return };
    keys_are_docker_s(&both);
    columns_are_docker_s(&both);
    templates_print_the_same(&both);
    assert_eq!(both.succeed(&["port", "one"]).1, "80/tcp -> 127.0.0.1:18080\n");
    both.same(&["port", "one"]);
    both.same(&["port", "one", "80"]);
    both.same(&["logs", "one"]);
    let differences = both.differences.take();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

fn keys_are_docker_s(both: &Both) {
    let one_document: [(&str, &[&str]); 9] = [
        ("ps ", &["ps", "-a", "--format", "{{json .}}", "--filter", "name=one"]),
        ("images ", &["images", "--format", "{{json .}}", "small"]),
        ("stats ", &["stats", "--no-stream", "--format", "{{json .}}", "one"]),
        ("network ls ", &["network", "ls", "--format", "{{json .}}", "--filter", "name=front"]),
        ("volume ls ", &["volume", "ls", "--format", "{{json .}}"]),
        ("events ", &["events", "--since", "1h", "--until", "0s", "--format", "{{json .}}", "--filter", "event=start"]),
        ("container ", &["inspect", "--size", "one", "two"]),
        ("image ", &["inspect", "--type", "image", "small:1"]),
        ("network ", &["network", "inspect", "front"]),
    ];
    let mut missing = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (kind, args) in one_document.into_iter().chain([("volume ", &["volume", "inspect", "data"][..])]) {
        let (theirs, ours) = both.succeed(args);
        let read = |text: &str| -> BTreeSet<String> {
            let mut found = BTreeSet::new();
            for document in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
                keys(&document.unwrap(), kind, &mut found);
            }
            found
        };
        let (theirs, ours) = (read(&theirs), read(&ours));
        assert!(theirs.len() > 4 && !ours.is_empty(), "{args:?}");
        missing.extend(theirs.difference(&ours).cloned());
        seen.extend(theirs);
    }
    missing.retain(|path| !is_exception(path));
    assert!(missing.is_empty(), "docker's keys that are not here: {missing:#?}");
    assert!(seen.contains("container Mounts.Destination") && seen.contains("container NetworkSettings.Networks.*.IPAddress"));
}

fn columns_are_docker_s(both: &Both) {
    let lists: [&[&str]; 8] = [
        &["ps", "-a"],
        &["ps", "-a", "-s"],
        &["images"],
        &["images", "--digests"],
        &["stats", "--no-stream"],
        &["network", "ls"],
        &["volume", "ls"],
        &["system", "df"],
    ];
    for args in lists {
        let (theirs, ours) = both.succeed(args);
        let heading = |text: &str| text.lines().next().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(heading(&ours), heading(&theirs), "{args:?}");
    }
    // To the last space, where all of it is what was asked for.
    both.same(&["volume", "ls"]);
    both.same(&["ps", "-a", "--format", "table {{.Names}}\\t{{.Image}}\\t{{.Command}}\\t{{.Label \"tier\"}}|"]);
    both.same(&["ps", "--format", "table {{.Names}}\t{{.Ports}}\t{{.Networks}}\t{{upper .State}}"]);
    both.same(&["network", "ls", "--filter", "name=front", "--format", "table {{.Name}}\t{{.Driver}}\t{{.Internal}}"]);
}

fn templates_print_the_same(both: &Both) {
    for template in [
        "{{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Labels}} {{.Label \"tier\"}} {{.Label \"none\"}}|",
        "{{.Ports}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.RunningFor | len | lt 5}}",
        "{{.Names}}\\t{{.Image}}\\n{{truncate .Names 2}} {{split .Image \":\"}} {{join (split .Image \":\") \"-\"}}",
    ] {
        both.same(&["ps", "--format", template]);
    }
    both.same(&["ps", "-a", "--filter", "status=created", "--format", "{{.Names}} {{.Status}} {{.Size | len}}"]);
    for filter in ["volume=data", "publish=18080", "expose=80/tcp", "since=one", "before=two", "label=tier", "network=front"] {
        both.same(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
    }
    both.same(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.CreatedAt}} {{.Containers}}", "small"]);
    for filter in ["reference=sm*:*", "reference=nothing*", "dangling=true", "label=none"] {
        both.same(&["images", "--filter", filter, "--format", "{{.Repository}}:{{.Tag}}"]);
    }
    for template in [
        "{{.Name}} {{.Path}} {{.Args}} {{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.RestartCount}}",
        "{{.HostConfig.Memory}} {{.HostConfig.NetworkMode}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Binds}}",
        "{{json .HostConfig.PortBindings}} {{json .Config.Cmd}} {{.Config.WorkingDir}} {{.Config.Image}} {{.Config.Tty}}",
        "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}",
        "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}",
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}} {{(index .NetworkSettings.Networks \"front\").IPPrefixLen | lt 1}}",
        "{{index .Config.Labels \"tier\"}} {{index .Config.Labels \"none\"}}| {{.Config.Labels.none}} {{len .Config.Labels}}",
        "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{println .Driver}}",
        "{{.Config.Env}} {{.ID | len}} {{printf \"%-8s|%5d\" .State.Status .State.ExitCode}}",
    ] {
        both.same(&["inspect", "--format", template, "one"]);
    }
    both.same(&[
        "inspect",
        "-f",
        "{{if .State.Health}}yes{{else}}no{{end}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
        "two",
    ]);
    both.same(&["inspect", "-f", "{{.RepoTags}} {{.Architecture}} {{.Os}} {{.RootFS.Type}} {{len .RootFS.Layers}}", "small:1"]);
    both.same(&["inspect", "--type", "network", "-f", "{{.Name}} {{.Driver}} {{.Labels}} {{len .Containers}}", "front"]);
    both.same(&["network", "inspect", "-f", "{{.Name}} {{.Scope}} {{.Internal}}", "front"]);
    both.same(&["volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Labels.a}} {{.Labels.b}}|", "data"]);
    both.same(&["stats", "--no-stream", "--format", "{{.Name}} {{.Container}}", "one"]);
    for wrong in [
        &["ps", "--format", "{{.Nope}}"][..],
        &["ps", "--format", "{{.Names"],
        &["inspect", "-f", "{{.Nope}}", "one"],
        &["inspect", "-f", "{{.State.Health.Status}}", "two"],
        &["inspect", "-f", "{{index .Mounts 7}}", "one"],
    ] {
        both.docker.fail(wrong);
        let output = both.net.output("rbox", wrong);
        assert!(output.status.code().is_some_and(|code| code == 1 || code == 2), "{wrong:?}: {output:?}");
    }
}
