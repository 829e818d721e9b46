//! Lifecycle: create, start, kill, delete, and what each must refuse.

use serde_json::json;

use crate::runtime::command::End;
use crate::runtime::finding::{Outcome, here, require};
use crate::runtime::{Context, Requirement, must, should};

const CREATE: &str = "Create";
const START: &str = "Start";
const KILL: &str = "Kill";
const DELETE: &str = "Delete";
const LIFECYCLE: &str = "Lifecycle";

pub(super) const TABLE: &[Requirement] = &[
    must("lifecycle-create", CREATE, "create makes a container and does not run its program", create),
    must("lifecycle-create-duplicate", CREATE, "an id in use is refused, and its container stays as it was", create_duplicate),
    must("lifecycle-create-without-id", CREATE, "create without an id is refused", create_without_id),
    must("lifecycle-create-id-path", CREATE, "an id that leads out of the state directory is refused", create_id_path),
    must("lifecycle-config-once", LIFECYCLE, "changes to config.json after create have no effect", config_once),
    must("lifecycle-start", START, "start runs the program", start),
    must("lifecycle-start-twice", START, "start of a running container is refused and runs nothing", start_twice),
    must("lifecycle-start-stopped", START, "start of a stopped container is refused", start_stopped),
    must("lifecycle-start-unknown", START, "start of an unknown container is refused", start_unknown),
    must("lifecycle-kill", KILL, "kill sends the signal to the container's process", kill),
    should("lifecycle-kill-number", KILL, "kill takes a signal by number and by name, with and without SIG", kill_number),
    must("lifecycle-kill-created", KILL, "kill ends a container that was not started", kill_created),
    must("lifecycle-kill-stopped", KILL, "kill of a stopped container is refused", kill_stopped),
    must("lifecycle-kill-unknown", KILL, "kill of an unknown container is refused", kill_unknown),
    must("lifecycle-delete", DELETE, "delete removes a stopped container; its id is free again", delete),
    must("lifecycle-delete-running", DELETE, "delete of a running container is refused and has no effect", delete_running),
    must("lifecycle-delete-created", DELETE, "delete of a container not yet started is refused", delete_created),
    must("lifecycle-delete-unknown", DELETE, "delete of an unknown container is refused", delete_unknown),
    should("lifecycle-delete-force", "command line", "delete --force ends and removes a running container", delete_force),
];

fn create(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?.stays("echo started"))?;
    container.must_be("created")?;
    let pid = container.pid()?;
    require(std::path::Path::new(&format!("/proc/{pid}")).exists(), "a process that waits to be started")?;
    require(container.written()?.is_empty(), "no output: the program must not run before start")
}

fn create_duplicate(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.stays("");
    let container = cx.create(&bundle)?;
    let pid = container.pid()?;
    let (_, second) = cx.try_create(&bundle, &[])?;
    second.must_fail("the id is in use")?;
    container.must_be("created")?;
    require(container.pid()? == pid, format_args!("pid {pid} as before"))?;
    container.start()?.must_succeed()?;
    container.wait_for_line("ready")
}

fn create_without_id(cx: &Context) -> Outcome {
    cx.need(&["create"])?;
    let bundle = cx.bundle()?;
    bundle.write()?;
    cx.invoke(&["create", "--bundle", &bundle.directory.to_string_lossy()])?.must_fail("there is no id").map(drop)
}

fn create_id_path(cx: &Context) -> Outcome {
    cx.need(&["create", "delete"])?;
    let bundle = cx.bundle()?;
    bundle.write()?;
    let id = format!("../{}", bundle.id);
    let step = cx.invoke(&["create", "--bundle", &bundle.directory.to_string_lossy(), &id])?;
    if step.end == End::Code(0) {
        cx.may_exist(&id);
    }
    step.must_fail("the id is a path").map(drop)
}

fn config_once(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.args(&["/bin/echo", "first"]);
    let container = cx.create(&bundle)?;
    let pid = container.pid()?;
    bundle.set("process/args", json!(["/bin/echo", "second"])).write()?;
    container.start()?.must_succeed()?;
    container.wait_until_stopped(pid)?;
    require(container.written()? == "first\n", "\"first\", which config.json said when the container was created")
}

fn start(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?.stays(""))?;
    container.start()?.must_succeed()?;
    container.wait_for_line("ready")?;
    container.must_be("running")
}

fn start_twice(cx: &Context) -> Outcome {
    let container = cx.running(&cx.bundle()?.stays("echo once"))?;
    cx.need(&["start"])?;
    container.start()?.must_fail("the container runs")?;
    container.must_be("running")?;
    require(container.written()?.matches("once").count() == 1, "the program to have run once")
}

fn start_stopped(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?.args(&["/bin/echo", "once"]))?;
    let pid = container.pid()?;
    container.start()?.must_succeed()?;
    container.wait_until_stopped(pid)?;
    container.start()?.must_fail("the container is stopped")?;
    require(container.written()? == "once\n", "the program to have run once")
}

fn start_unknown(cx: &Context) -> Outcome {
    cx.need(&["start"])?;
    cx.invoke(&["start", &cx.fresh_name()])?.must_fail("there is no such container").map(drop)
}

const TRAPS: &str = "trap 'echo got TERM' TERM; trap 'echo got USR1' USR1; trap 'echo got HUP' HUP; echo ready; \
    i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done";

fn kill(cx: &Context) -> Outcome {
    cx.need(&["create", "kill"])?;
    let container = cx.running(&cx.bundle()?.script(TRAPS))?;
    container.kill("USR1")?.must_succeed()?;
    container.wait_for_line("got USR1")?;
    require(!container.written()?.contains("TERM"), "no other signal")?;
    container.must_be("running")?;
    let pid = container.pid()?;
    container.kill("KILL")?.must_succeed()?;
    container.wait_until_stopped(pid)
}

fn kill_number(cx: &Context) -> Outcome {
    cx.need(&["create", "kill"])?;
    let container = cx.running(&cx.bundle()?.script(TRAPS))?;
    for (signal, line) in [("10", "got USR1"), ("SIGHUP", "got HUP")] {
        container.kill(signal)?.must_succeed()?;
        container.wait_for_line(line)?;
    }
    cx.invoke(&["kill", &container.id])?.must_succeed()?;
    container.wait_for_line("got TERM")
}

fn kill_created(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?)?;
    let pid = container.pid()?;
    container.kill("KILL")?.must_succeed()?;
    container.wait_until_stopped(pid)
}

fn kill_stopped(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?)?;
    let pid = container.pid()?;
    container.start()?.must_succeed()?;
    container.wait_until_stopped(pid)?;
    container.kill("TERM")?.must_fail("the container is stopped")?;
    container.must_be("stopped")
}

fn kill_unknown(cx: &Context) -> Outcome {
    cx.need(&["kill"])?;
    cx.invoke(&["kill", &cx.fresh_name(), "TERM"])?.must_fail("there is no such container").map(drop)
}

fn delete(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let container = cx.create(&bundle)?;
    let pid = container.pid()?;
    container.start()?.must_succeed()?;
    container.wait_until_stopped(pid)?;
    container.delete(&[])?.must_succeed()?;
    container.query()?.must_fail("the container was deleted")?;
    let again = cx.create(&bundle)?;
    again.must_be("created")
}

fn delete_running(cx: &Context) -> Outcome {
    cx.need(&["create", "delete"])?;
    let container = cx.running(&cx.bundle()?.stays(""))?;
    let pid = container.pid()?;
    container.delete(&[])?.must_fail("the container runs")?;
    container.must_be("running")?;
    require(here(crate::runtime::machine::namespace_of(pid, "pid"), "look at the process").is_ok(), "its process to live")
}

fn delete_created(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?)?;
    container.delete(&[])?.must_fail("the container is not stopped")?;
    container.must_be("created")
}

fn delete_unknown(cx: &Context) -> Outcome {
    cx.need(&["delete"])?;
    cx.invoke(&["delete", &cx.fresh_name()])?.must_fail("there is no such container").map(drop)
}

fn delete_force(cx: &Context) -> Outcome {
    cx.need_flag("delete", "--force")?;
    let container = cx.running(&cx.bundle()?.stays(""))?;
    let pid = container.pid()?;
    container.delete(&["--force"])?.must_succeed()?;
    let over = here(crate::runtime::command::wait_for_end(pid, crate::limits::CONTAINER_TIMEOUT), "wait for a process")?;
    require(over, format_args!("process {pid} to be over"))?;
    container.query()?.must_fail("the container was deleted").map(drop)
}
