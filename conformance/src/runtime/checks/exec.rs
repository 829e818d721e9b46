//! exec: a second process in a container that runs, with all that holds for the first.

use serde_json::json;

use crate::runtime::bundle::{wait_until, write_file};
use crate::runtime::console::{Console, read_terminal};
use crate::runtime::container::Container;
use crate::runtime::finding::{Finding, Outcome, here, require};
use crate::runtime::machine::namespace_of;
use crate::runtime::{Context, Requirement, should};

const EXEC: &str = "command line";

pub(super) const TABLE: &[Requirement] = &[
    should("exec-output", EXEC, "exec runs a program and passes its output on", output),
    should("exec-exit-code", EXEC, "the exit code of exec is the program's", exit_code),
    should("exec-env", EXEC, "exec --env adds to the environment of the configuration", env),
    should("exec-cwd", EXEC, "exec --cwd", cwd),
    should("exec-user", EXEC, "exec --user", user),
    should("exec-process", EXEC, "exec --process takes a process as config.json has it", process),
    should("exec-tty", EXEC, "exec --tty sends its terminal to the console socket", tty),
    should("exec-detach", EXEC, "exec --detach returns at once, --pid-file has the pid", detach),
    should("exec-namespaces", EXEC, "the program is in the container's namespaces", namespaces),
    should("exec-cgroup", EXEC, "the program is in the container's cgroups", cgroup),
    should("exec-root", EXEC, "the program sees the container's root file system", root),
    should("exec-capabilities", EXEC, "the program has the container's capabilities", capabilities),
    should("exec-no-new-privileges", EXEC, "noNewPrivileges holds for the program", no_new_privileges),
    should("exec-seccomp", EXEC, "the container's profile holds for the program", seccomp),
    should("exec-executable-missing", EXEC, "exec of what is not there is refused with a message", executable_missing),
    should("exec-created", EXEC, "exec works in a container that is created, or is refused", created),
    should("exec-stopped", EXEC, "exec in a stopped container is refused", stopped),
    should("exec-unknown", EXEC, "exec in an unknown container is refused", unknown),
];

fn container(cx: &Context) -> Outcome<Container<'_>> {
    cx.need(&["exec", "create"])?;
    cx.running(&cx.bundle()?.stays(""))
}

fn output(cx: &Context) -> Outcome {
    let step = container(cx)?.exec(&[], &["/bin/sh", "-c", "echo out; echo err >&2"])?;
    step.must_succeed()?;
    step.must_print(&["out"])?;
    require(step.stderr == "err\n", "\"err\" on standard error")
}

fn exit_code(cx: &Context) -> Outcome {
    let container = container(cx)?;
    for code in [0, 1, 42, 255] {
        container.exec(&[], &["/bin/sh", "-c", &format!("exit {code}")])?.must_exit(code)?;
    }
    container.exec(&[], &["/bin/sh", "-c", "kill -9 $$"])?.must_exit(128 + 9).map(drop)
}

fn env(cx: &Context) -> Outcome {
    cx.need_flag("exec", "--env")?;
    let step = container(cx)?.exec(&["--env", "ADDED=one two"], &["/bin/sh", "-c", "echo \"$ADDED\"; echo $PATH"])?;
    step.must_succeed()?;
    step.must_print(&["one two", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]).map(drop)
}

fn cwd(cx: &Context) -> Outcome {
    cx.need_flag("exec", "--cwd")?;
    container(cx)?.exec(&["--cwd", "/etc"], &["/bin/pwd"])?.must_print(&["/etc"]).map(drop)
}

fn user(cx: &Context) -> Outcome {
    cx.need_root("other users")?;
    cx.need_flag("exec", "--user")?;
    let step = container(cx)?.exec(&["--user", "1000:1001"], &["/bin/grep", "-E", "^(Uid|Gid|CapEff):", "/proc/self/status"])?;
    step.must_succeed()?;
    require(step.field("Uid")?.starts_with("1000\t") && step.field("Gid")?.starts_with("1001\t"), "user 1000, group 1001")
}

fn process(cx: &Context) -> Outcome {
    cx.need_flag("exec", "--process")?;
    let container = container(cx)?;
    let file = cx.fresh_path();
    let process = json!({
        "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/etc", "env": ["PATH=/bin", "FROM=file"],
        "args": ["sh", "-c", "pwd; echo $FROM"],
    });
    write_file(&file, &process.to_string())?;
    let step = container.exec(&["--process", &file.to_string_lossy()], &[])?;
    step.must_succeed()?;
    step.must_print(&["/etc", "file"]).map(drop)
}

fn tty(cx: &Context) -> Outcome {
    cx.need_flag("exec", "--console-socket")?;
    let container = container(cx)?;
    let console = Console::listen(&cx.fresh_path())?;
    let flags = ["--tty", "--detach", "--console-socket", &console.path.to_string_lossy()];
    let script = "test -t 0 && test -t 1 && test -t 2 && true < /dev/tty && echo a terminal";
    container.exec(&flags, &["/bin/sh", "-c", script])?.must_succeed()?;
    let shown = read_terminal(console.receive()?)?;
    require(shown == "a terminal\n", format_args!("\"a terminal\" on the terminal, not {shown:?}"))
}

fn detach(cx: &Context) -> Outcome {
    cx.need_flag("exec", "--detach")?;
    cx.need_flag("exec", "--pid-file")?;
    let container = container(cx)?;
    let file = cx.fresh_path();
    let flags = ["--detach", "--pid-file", &file.to_string_lossy()];
    container.exec(&flags, &["/bin/sleep", "77"])?.must_succeed()?;
    let text = here(std::fs::read_to_string(&file), "read the pid-file")?;
    let pid: u32 = text.trim().parse().map_err(|_| Finding::Fail("a pid in the pid-file".into()))?;
    wait_until("the pid in the pid-file to be the program's", || {
        Ok(std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.ends_with(b"sleep\0" as &[u8]) || line.ends_with(b"77\0")))
    })
}

fn namespaces(cx: &Context) -> Outcome {
    let container = container(cx)?;
    let pid = container.pid()?;
    let links = ["pid", "net", "mnt", "ipc", "uts", "cgroup", "user"];
    let script: String = links.iter().map(|link| format!("readlink /proc/self/ns/{link};")).collect();
    let step = container.exec(&[], &["/bin/sh", "-c", &script])?;
    step.must_succeed()?;
    let expected = links.iter().map(|link| here(namespace_of(pid, link), "look at namespaces")).collect::<Outcome<Vec<_>>>()?;
    require(step.stdout.lines().eq(expected.iter()), format_args!("the container's namespaces {expected:?}"))
}

fn cgroup(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    let container = container(cx)?;
    let step = container.exec(&[], &["/bin/sh", "-c", "cat /proc/self/cgroup /proc/1/cgroup"])?;
    step.must_succeed()?;
    let mut lines: Vec<_> = step.stdout.lines().collect();
    let first = lines.split_off(lines.len() / 2);
    require(first == lines, "the same cgroups as those of process 1")
}

fn root(cx: &Context) -> Outcome {
    let step = container(cx)?.exec(&[], &["/bin/sh", "-c", "cd ..; pwd; stat -c %i / /proc/1/root/."])?;
    step.must_succeed()?;
    let lines: Vec<_> = step.stdout.lines().collect();
    require(lines.len() == 3 && lines[0] == "/" && lines[1] == lines[2], "the same root directory as that of process 1")
}

/// What is compared of a process.
const FIELDS: &str = "^(Cap|NoNewPrivs|Seccomp)";

fn status(container: &Container<'_>) -> Outcome<(crate::runtime::Step, String)> {
    let step = container.exec(&[], &["/bin/grep", "-E", FIELDS, "/proc/self/status"])?;
    step.must_succeed()?;
    let first = container.exec(&[], &["/bin/grep", "-E", FIELDS, "/proc/1/status"])?;
    first.must_succeed()?;
    let field = |name: &str| first.field(name).map(str::to_owned);
    Ok((step.clone(), format!("{} {}", field("CapBnd")?, field("CapEff")?)))
}

fn capabilities(cx: &Context) -> Outcome {
    let (step, expected) = status(&container(cx)?)?;
    let found = format!("{} {}", step.field("CapBnd")?, step.field("CapEff")?);
    require(found == expected, format_args!("bounding and effective sets as those of process 1: {expected}"))
}

fn no_new_privileges(cx: &Context) -> Outcome {
    let (step, _) = status(&container(cx)?)?;
    require(step.field("NoNewPrivs")? == "1", "NoNewPrivs: 1")
}

fn seccomp(cx: &Context) -> Outcome {
    let (step, _) = status(&container(cx)?)?;
    require(step.field("Seccomp")? == "2", "Seccomp: 2, a filter")
}

fn executable_missing(cx: &Context) -> Outcome {
    let container = container(cx)?;
    let step = container.exec(&[], &["/no/such/program"])?;
    step.must_fail("there is no such program")?;
    require(step.stderr.contains("/no/such/program"), "a message that names the program")?;
    container.must_be("running")
}

fn created(cx: &Context) -> Outcome {
    cx.need(&["exec"])?;
    let container = cx.create(&cx.bundle()?.stays(""))?;
    let step = container.exec(&[], &["/bin/echo", "ran"])?;
    if step.end == crate::runtime::End::Code(0) {
        step.must_print(&["ran"])?;
    }
    container.must_be("created")
}

fn stopped(cx: &Context) -> Outcome {
    cx.need(&["exec"])?;
    let container = cx.create(&cx.bundle()?)?;
    let pid = container.pid()?;
    container.start()?.must_succeed()?;
    container.wait_until_stopped(pid)?;
    container.exec(&[], &["/bin/echo", "ran"])?.must_fail("the container is stopped").map(drop)
}

fn unknown(cx: &Context) -> Outcome {
    cx.need(&["exec"])?;
    cx.invoke(&["exec", &cx.fresh_name(), "/bin/true"])?.must_fail("there is no such container").map(drop)
}
