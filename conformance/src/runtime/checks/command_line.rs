//! The command line that engines rely on: run, list, ps, pause, update, features and their flags.

use std::fs;

use serde_json::{Value, json};

use super::cgroups::is_frozen;
use crate::runtime::bundle::wait_until;
use crate::runtime::command::End;
use crate::runtime::container::Container;
use crate::runtime::finding::{Finding, Outcome, here, not_offered, require};
use crate::runtime::{Context, Requirement, should};

const COMMAND: &str = "command line";

pub(super) const TABLE: &[Requirement] = &[
    should("command-run-exit-code", COMMAND, "the exit code of run is the program's", run_exit_code),
    should("command-run-signal-code", COMMAND, "a program ended by a signal gives 128 and its number", run_signal_code),
    should("command-run-streams", COMMAND, "run passes input, output and errors", run_streams),
    should("command-run-deletes", COMMAND, "after run the container is gone", run_deletes),
    should("command-run-detach", COMMAND, "run --detach returns while the container runs", run_detach),
    should("command-run-signals", COMMAND, "run passes a signal on to the program", run_signals),
    should("command-pid-file", COMMAND, "create --pid-file writes the pid that state shows", pid_file),
    should("command-bundle-default", COMMAND, "the bundle is the current directory unless told", bundle_default),
    should("command-root", COMMAND, "containers of one --root are not seen in another", other_root),
    should("command-list", COMMAND, "list --format json has id, pid, status and bundle", list),
    should("command-list-quiet", COMMAND, "list --quiet prints ids", list_quiet),
    should("command-ps", COMMAND, "ps --format json lists the container's processes", ps),
    should("command-pause", COMMAND, "pause freezes the container: status paused", pause),
    should("command-resume", COMMAND, "resume lets it go on: status running", resume),
    should("command-update", COMMAND, "update changes limits of a container that runs", update),
    should("command-update-file", COMMAND, "update --resources FILE takes resources as config.json has them", update_file),
    should("command-features", "Features Structure", "features prints what the runtime can do", features),
    should("command-spec", COMMAND, "spec writes a config.json that runs", spec),
    should("command-version", COMMAND, "--version names the version of the specification", version),
];

fn run_exit_code(cx: &Context) -> Outcome {
    for code in [0, 1, 42, 255] {
        cx.run_script(&format!("exit {code}"))?.must_exit(code)?;
    }
    Ok(())
}

fn run_signal_code(cx: &Context) -> Outcome {
    // The first process of a pid namespace cannot kill itself: it would survive.
    let container = cx.run_behind(&cx.bundle()?.stays(""))?;
    container.wait_for_line("ready")?;
    let pid = container.pid()?;
    let process = rustix::process::Pid::from_raw(pid.cast_signed()).ok_or_else(|| not_offered("the process's pid"))?;
    here(rustix::process::kill_process(process, rustix::process::Signal::KILL).map_err(Into::into), "kill a process")?;
    cx.finish_run()?.must_exit(128 + 9).map(drop)
}

fn run_streams(cx: &Context) -> Outcome {
    let step = cx.run_with(&cx.bundle()?.script("cat; echo err >&2"), &[], Some(b"in and out"))?;
    step.must_succeed()?;
    require(step.stdout == "in and out" && step.stderr == "err\n", "\"in and out\" on output, \"err\" on error")
}

fn run_deletes(cx: &Context) -> Outcome {
    cx.need(&["state"])?;
    let bundle = cx.bundle()?;
    cx.run(&bundle)?.must_succeed()?;
    cx.invoke(&["state", &bundle.id])?.must_fail("run is over").map(drop)
}

fn run_detach(cx: &Context) -> Outcome {
    cx.need_flag("run", "--detach")?;
    let bundle = cx.bundle()?.stays("");
    cx.run_with(&bundle, &["--detach"], None)?.must_succeed()?;
    let state = cx.invoke(&["state", &bundle.id])?;
    state.must_succeed()?;
    let state: Value = serde_json::from_str(&state.stdout).unwrap_or_default();
    require(state["status"] == "running", "status running")
}

fn run_signals(cx: &Context) -> Outcome {
    let script = "trap 'echo got TERM; exit 9' TERM; echo ready; i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done";
    let container = cx.run_behind(&cx.bundle()?.script(script))?;
    container.wait_for_line("ready")?;
    cx.signal_run(rustix::process::Signal::TERM)?;
    cx.finish_run()?.must_exit(9)?;
    container.wait_for_line("got TERM")
}

fn pid_file(cx: &Context) -> Outcome {
    cx.need_flag("create", "--pid-file")?;
    let file = cx.fresh_path();
    let (container, step) = cx.try_create(&cx.bundle()?, &["--pid-file", &file.to_string_lossy()])?;
    step.must_succeed()?;
    let text = fs::read_to_string(&file).unwrap_or_default();
    let pid = container.pid()?.to_string();
    require(text.trim() == pid, format_args!("{pid} in the pid-file, not {text:?}"))
}

fn bundle_default(cx: &Context) -> Outcome {
    cx.need(&["run"])?;
    let bundle = cx.bundle()?.args(&["/bin/echo", "ran"]);
    bundle.write()?;
    let step = cx.invoke_with(&[], &bundle.directory, &["run", &bundle.id])?;
    step.must_succeed()?;
    step.must_print(&["ran"]).map(drop)
}

fn other_root(cx: &Context) -> Outcome {
    cx.need_flag("", "--root")?;
    let container = cx.create(&cx.bundle()?)?;
    let elsewhere = cx.fresh_path();
    let flags = ["--root", &elsewhere.to_string_lossy()];
    let step = cx.invoke_with(&flags, "/".as_ref(), &["state", &container.id])?;
    step.must_fail("the container is in another state directory").map(drop)
}

fn list(cx: &Context) -> Outcome {
    cx.need_flag("list", "--format")?;
    let bundle = cx.bundle()?;
    let container = cx.create(&bundle)?;
    let step = cx.invoke(&["list", "--format", "json"])?;
    step.must_succeed()?;
    let rows: Value = serde_json::from_str(&step.stdout).unwrap_or_default();
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["id"] == bundle.id.as_str()));
    let row = row.ok_or_else(|| Finding::Fail(format!("a list in JSON with {}", bundle.id)))?;
    let path = bundle.directory.to_string_lossy();
    let held = row["pid"] == container.pid()? && row["status"] == "created" && row["bundle"] == path.as_ref();
    require(held, "pid, status created and bundle of the container")
}

fn list_quiet(cx: &Context) -> Outcome {
    cx.need_flag("list", "--quiet")?;
    let container = cx.create(&cx.bundle()?)?;
    let step = cx.invoke(&["list", "--quiet"])?;
    step.must_succeed()?;
    require(step.stdout.lines().any(|line| line == container.id), format_args!("a line {}", container.id))
}

fn ps(cx: &Context) -> Outcome {
    cx.need_root("ps, which asks the cgroup")?;
    cx.need_flag("ps", "--format")?;
    let container = cx.running(&cx.bundle()?.stays("sleep 60 &"))?;
    let step = cx.invoke(&["ps", "--format", "json", &container.id])?;
    step.must_succeed()?;
    let pids: Vec<u32> = serde_json::from_str(&step.stdout).map_err(|_| Finding::Fail("a list of pids in JSON".into()))?;
    require(pids.len() == 2 && pids.contains(&container.pid()?), "two pids, one of them the container's")
}

fn paused<'a>(cx: &'a Context, needed: &[&str]) -> Outcome<Container<'a>> {
    cx.need_root("the freezer")?;
    cx.need(needed)?;
    let container = cx.running(&cx.bundle()?.stays(""))?;
    cx.invoke(&["pause", &container.id])?.must_succeed()?;
    Ok(container)
}

/// Whether a cgroup of a container is frozen: version 1 has a hierarchy for that, every one of version 2 can be.
fn frozen(container: &Container<'_>) -> bool {
    ["freezer", ""].into_iter().any(|controller| container.cgroup(controller).is_ok_and(|directory| is_frozen(&directory)))
}

fn pause(cx: &Context) -> Outcome {
    let container = paused(cx, &["pause", "create"])?;
    let state = container.must_be("paused");
    let frozen = frozen(&container);
    if cx.offers("resume") {
        cx.invoke(&["resume", &container.id])?;
    }
    require(frozen, "a frozen cgroup")?;
    state
}

fn resume(cx: &Context) -> Outcome {
    let container = paused(cx, &["pause", "resume", "create"])?;
    cx.invoke(&["resume", &container.id])?.must_succeed()?;
    wait_until("a cgroup that is not frozen", || Ok(!frozen(&container)))?;
    container.must_be("running")
}

/// The limit of processes a container has.
fn pids_limit(container: &Container<'_>) -> Outcome<String> {
    let file = container.cgroup("pids")?.join("pids.max");
    Ok(here(fs::read_to_string(file), "read pids.max")?.trim().to_owned())
}

fn update(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    cx.need_flag("update", "--pids-limit")?;
    let container = cx.running(&cx.bundle()?.stays(""))?;
    cx.invoke(&["update", "--pids-limit", "55", &container.id])?.must_succeed()?;
    let found = pids_limit(&container)?;
    require(found == "55", format_args!("pids.max 55, not {found}"))
}

fn update_file(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    cx.need_flag("update", "--resources")?;
    let container = cx.running(&cx.bundle()?.stays(""))?;
    let file = cx.fresh_path();
    here(fs::write(&file, json!({ "pids": { "limit": 44 } }).to_string()), "write a file")?;
    cx.invoke(&["update", "--resources", &file.to_string_lossy(), &container.id])?.must_succeed()?;
    let found = pids_limit(&container)?;
    require(found == "44", format_args!("pids.max 44, not {found}"))
}

fn features(cx: &Context) -> Outcome {
    cx.need(&["features"])?;
    let step = cx.invoke(&["features"])?;
    step.must_succeed()?;
    let document: Value = serde_json::from_str(&step.stdout).map_err(|_| Finding::Fail("a document in JSON".into()))?;
    let versions = document["ociVersionMin"].is_string() && document["ociVersionMax"].is_string();
    require(versions, "ociVersionMin and ociVersionMax")?;
    let lists = ["hooks", "mountOptions"].iter().all(|name| document[*name].is_array());
    let linux = ["namespaces", "capabilities"].iter().all(|name| document["linux"][*name].is_array());
    require(lists && linux, "hooks, mountOptions, linux.namespaces and linux.capabilities as lists")
}

fn spec(cx: &Context) -> Outcome {
    cx.need(&["spec", "run"])?;
    let bundle = cx.bundle()?;
    let rootless = !cx.is_root();
    if rootless {
        cx.need_flag("spec", "--rootless")?;
    }
    let flags: &[&str] = if rootless { &["spec", "--rootless"] } else { &["spec"] };
    cx.invoke_with(&[], &bundle.directory, flags)?.must_succeed()?;
    let text = here(fs::read_to_string(bundle.config_path()), "read the config.json written")?;
    let mut config: Value = serde_json::from_str(&text).map_err(|_| Finding::Fail("a config.json in JSON".into()))?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/echo", "ran"]);
    here(fs::write(bundle.config_path(), config.to_string()), "write config.json")?;
    let step = cx.invoke_with(&[], &bundle.directory, &["run", &bundle.id])?;
    step.must_succeed()?;
    step.must_print(&["ran"]).map(drop)
}

fn version(cx: &Context) -> Outcome {
    let step = cx.invoke(&["--version"])?;
    require(step.end == End::Code(0), "exit code 0")?;
    let named = step.stdout.lines().find_map(|line| line.strip_prefix("spec: "));
    named.map(drop).ok_or_else(|| not_offered("a line spec: VERSION"))
}
