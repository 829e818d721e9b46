//! The state of a container: its fields, and the status at each point of the lifecycle.

use serde_json::{Value, json};

use crate::runtime::finding::{Outcome, require};
use crate::runtime::{Context, Requirement, must};

const STATE: &str = "State";
const QUERY: &str = "Query State";

pub(super) const TABLE: &[Requirement] = &[
    must("state-status", STATE, "the status is created, running, stopped, as it goes", status),
    must("state-version", STATE, "ociVersion is a version", version),
    must("state-id", STATE, "id is the container's", id),
    must("state-pid", STATE, "pid is that of the container's process while there is one", pid),
    must("state-bundle", STATE, "bundle is the absolute path of the bundle", bundle),
    must("state-annotations", STATE, "annotations are those of the configuration", annotations),
    must("state-unknown", QUERY, "the state of an unknown container is refused", unknown),
    must("state-without-id", QUERY, "state without an id is refused", without_id),
];

fn status(cx: &Context) -> Outcome {
    let container = cx.create(&cx.bundle()?.stays(""))?;
    container.must_be("created")?;
    container.start()?.must_succeed()?;
    container.wait_for_line("ready")?;
    container.must_be("running")?;
    let pid = container.pid()?;
    container.kill("KILL")?.must_succeed()?;
    container.wait_until_stopped(pid)
}

/// The state of a container that is created.
fn created(cx: &Context) -> Outcome<Value> {
    cx.create(&cx.bundle()?)?.state()
}

fn version(cx: &Context) -> Outcome {
    let state = created(cx)?;
    let version = state["ociVersion"].as_str().unwrap_or_default();
    let numbers: Vec<_> = version.split(['-', '+']).next().unwrap_or_default().split('.').collect();
    let number = |text: &&str| text.parse::<u32>().is_ok();
    require(numbers.len() == 3 && numbers.iter().all(number), "ociVersion as in 1.2.0")
}

fn id(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let state = cx.create(&bundle)?.state()?;
    require(state["id"] == bundle.id.as_str(), format_args!("id {}", bundle.id))
}

fn pid(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.stays("");
    let container = cx.create(&bundle)?;
    let created = container.pid()?;
    container.start()?.must_succeed()?;
    container.wait_for_line("ready")?;
    let running = container.pid()?;
    require(created == running, "the same pid before and after start")?;
    let command = std::fs::read_to_string(format!("/proc/{running}/cmdline")).unwrap_or_default();
    require(command.starts_with("sleep\0"), format_args!("pid {running} to be the program that runs in the container"))
}

fn bundle(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let state = cx.create(&bundle)?.state()?;
    let path = bundle.directory.to_string_lossy();
    require(state["bundle"] == path.as_ref(), format_args!("bundle {path}"))
}

fn annotations(cx: &Context) -> Outcome {
    let annotations = json!({ "com.example.key": "value", "com.example.empty": "" });
    let state = cx.create(&cx.bundle()?.set("annotations", annotations))?.state()?;
    let found = &state["annotations"];
    let held = found["com.example.key"] == "value" && found["com.example.empty"] == "";
    require(held, "annotations with com.example.key = value and com.example.empty")
}

fn unknown(cx: &Context) -> Outcome {
    cx.need(&["state"])?;
    cx.invoke(&["state", &cx.fresh_name()])?.must_fail("there is no such container").map(drop)
}

fn without_id(cx: &Context) -> Outcome {
    cx.need(&["state"])?;
    cx.invoke(&["state"])?.must_fail("there is no id").map(drop)
}
