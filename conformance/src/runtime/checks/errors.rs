//! Errors: what must be refused, how it is said, and that nothing is left behind.

use std::fs;

use serde_json::{Value, json};

use crate::runtime::bundle::{Bundle, write_file};
use crate::runtime::command::{End, Step};
use crate::runtime::finding::{Finding, Outcome, here, require};
use crate::runtime::{Context, Requirement, must, should};

const ERRORS: &str = "Errors";
const VALUES: &str = "Valid values";
const COMMAND: &str = "command line";

pub(super) const TABLE: &[Requirement] = &[
    must("errors-bundle-missing", "Create", "a bundle that is not there is refused", bundle_missing),
    must("errors-config-missing", "Create", "a bundle without config.json is refused", config_missing),
    must("errors-config-malformed", "Configuration", "a config.json that is no JSON is refused", config_malformed),
    must("errors-config-type", VALUES, "a value of another type is refused", config_type),
    must("errors-version", "Specification version", "a version that is none is refused", version),
    must("errors-unknown-property", "Extensibility", "an unknown property is ignored", unknown_property),
    must("errors-root-missing", "Root", "a root file system that is not there is refused", root_missing),
    must("errors-process-missing", "Start", "a start without a process is an error", process_missing),
    must("errors-args-empty", "Process", "an empty list of arguments is refused", args_empty),
    must("errors-namespace-unknown", VALUES, "an unknown kind of namespace is refused", namespace_unknown),
    must("errors-executable-missing", "Start", "a program that is not there is an error", executable_missing),
    must("errors-executable-mode", "Start", "a program that cannot be executed is an error", executable_mode),
    must("errors-nothing-left", ERRORS, "a create that fails leaves nothing: the id is free", nothing_left),
    should("errors-message", COMMAND, "an error is told on standard error, and names what was wrong", message),
    should("errors-log-text", COMMAND, "--log FILE has the error too", log_text),
    should("errors-log-json", COMMAND, "--log-format json writes lines with level, msg and time", log_json),
    should("errors-verb-unknown", COMMAND, "an unknown verb is refused", verb_unknown),
    should("errors-flag-unknown", COMMAND, "an unknown flag is refused", flag_unknown),
];

/// Runs a directory as it is.
fn run_directory(cx: &Context, directory: &str) -> Outcome<Step> {
    cx.need(&["run"])?;
    cx.invoke(&["run", "--bundle", directory, &cx.fresh_name()])
}

fn bundle_missing(cx: &Context) -> Outcome {
    run_directory(cx, "/nowhere/at/all")?.must_fail("there is no such directory").map(drop)
}

fn config_missing(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    run_directory(cx, &bundle.directory.to_string_lossy())?.must_fail("there is no config.json").map(drop)
}

fn config_malformed(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    for text in ["{ \"ociVersion\": \"1.0.2\", ", "no JSON", ""] {
        write_file(&bundle.config_path(), text)?;
        let step = run_directory(cx, &bundle.directory.to_string_lossy())?;
        step.must_fail("config.json is no JSON")?;
    }
    Ok(())
}

fn config_type(cx: &Context) -> Outcome {
    cx.run(&cx.bundle()?.set("process/args", "a string"))?.must_fail("args is no list").map(drop)
}

fn version(cx: &Context) -> Outcome {
    cx.run(&cx.bundle()?.set("ociVersion", "one"))?.must_fail("ociVersion is no version").map(drop)
}

fn unknown_property(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("unknownHere", json!({ "a": [1] })).set("linux/unknownThere", true);
    let step = cx.run(&bundle.set("process/unknownToo", "x").args(&["/bin/echo", "ran"]))?;
    step.must_succeed()?;
    step.must_print(&["ran"]).map(drop)
}

fn root_missing(cx: &Context) -> Outcome {
    cx.run(&cx.bundle()?.set("root/path", "not-there"))?.must_fail("there is no root file system").map(drop)
}

fn process_missing(cx: &Context) -> Outcome {
    cx.run(&cx.bundle()?.remove("process"))?.must_fail("there is no process").map(drop)
}

fn args_empty(cx: &Context) -> Outcome {
    cx.run(&cx.bundle()?.set("process/args", json!([])))?.must_fail("there are no arguments").map(drop)
}

fn namespace_unknown(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.push("linux/namespaces", json!({ "type": "nonsense" }));
    cx.run(&bundle)?.must_fail("there are no nonsense namespaces").map(drop)
}

/// Fails unless `create` or `start` refuses the bundle, and nothing runs.
fn refused_by_create_or_start(cx: &Context, bundle: &Bundle, why: &str) -> Outcome<Step> {
    if !cx.offers("create") {
        let step = cx.run(bundle)?;
        step.must_fail(why)?;
        return Ok(step);
    }
    let (container, created) = cx.try_create(bundle, &[])?;
    if created.end != End::Code(0) {
        created.must_fail(why)?;
        return Ok(created);
    }
    let started = container.start()?;
    started.must_fail(why)?;
    let state: Value = serde_json::from_str(&container.query()?.stdout).unwrap_or_default();
    require(state["status"] != "running", "no container that runs")?;
    Ok(started)
}

fn executable_missing(cx: &Context) -> Outcome {
    let step = refused_by_create_or_start(cx, &cx.bundle()?.args(&["/no/such/program"]), "there is no such program")?;
    require(step.stderr.contains("/no/such/program"), "a message that names /no/such/program")
}

fn executable_mode(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.args(&["/etc/plain"]);
    write_file(&bundle.rootfs().join("etc/plain"), "no program\n")?;
    refused_by_create_or_start(cx, &bundle, "the file is no program").map(drop)
}

fn nothing_left(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    let (container, step) = cx.try_create(&bundle, &[])?;
    step.must_fail("a mount is impossible")?;
    container.query()?.must_fail("create failed: there is no container")?;
    let good = bundle.without_mount("/mnt");
    cx.create(&good)?.must_be("created")
}

fn message(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    let step = cx.run(&bundle)?;
    step.must_fail("a mount is impossible")?;
    require(step.stderr.contains("/nowhere/at/all"), "a message on standard error that names /nowhere/at/all")
}

/// What is in the log after a run that must fail.
fn log_of(cx: &Context, flags: &[&str]) -> Outcome<String> {
    cx.need(&["run"])?;
    cx.need_flag("", "--log")?;
    let log = cx.fresh_path();
    let bundle = cx.bundle()?.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    bundle.write()?;
    let directory = bundle.directory.to_string_lossy().into_owned();
    let path = log.to_string_lossy();
    let globals = [&["--log", &path], flags].concat();
    let step = cx.invoke_with(&globals, &bundle.directory, &["run", "--bundle", &directory, &bundle.id])?;
    step.must_fail("a mount is impossible")?;
    let text = here(fs::read_to_string(&log), "read the log")?;
    cx.note(format!("the log:\n| {}\n", text.trim_end().replace('\n', "\n| ")));
    Ok(text)
}

fn log_text(cx: &Context) -> Outcome {
    require(log_of(cx, &[])?.contains("/nowhere/at/all"), "the error in the log")
}

fn log_json(cx: &Context) -> Outcome {
    cx.need_flag("", "--log-format")?;
    let text = log_of(cx, &["--log-format", "json"])?;
    let parse = |line: &str| serde_json::from_str(line).map_err(|_| Finding::Fail(format!("a line of JSON, not {line:?}")));
    let lines = text.lines().map(parse).collect::<Outcome<Vec<Value>>>()?;
    let fields = |line: &Value| ["level", "msg", "time"].iter().all(|name| line[*name].is_string());
    require(lines.iter().all(fields), "level, msg and time in every line")?;
    let told = |line: &Value| line["level"] == "error" && line["msg"].as_str().is_some_and(|msg| msg.contains("/nowhere/at/all"));
    require(lines.iter().any(told), "a line of level error that names /nowhere/at/all")
}

fn verb_unknown(cx: &Context) -> Outcome {
    cx.invoke(&["no-such-verb"])?.must_fail("there is no such verb").map(drop)
}

fn flag_unknown(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    bundle.write()?;
    cx.need(&["run"])?;
    let directory = bundle.directory.to_string_lossy();
    cx.invoke(&["run", "--no-such-flag", "--bundle", &directory, &bundle.id])?.must_fail("there is no such flag").map(drop)
}
