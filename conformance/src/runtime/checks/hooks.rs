//! Hooks: the six kinds, when and where they run, what they are given, and what their failure does.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::runtime::bundle::{Bundle, wait_until};
use crate::runtime::command::{End, Step};
use crate::runtime::container::Container;
use crate::runtime::finding::{Finding, Outcome, here, require};
use crate::runtime::machine::namespace_of;
use crate::runtime::{Context, Requirement, must};

const HOOKS: &str = "POSIX-platform Hooks";
const LIFECYCLE: &str = "Lifecycle";

pub(super) const TABLE: &[Requirement] = &[
    must("hooks-prestart", "Prestart", "prestart runs in create, in the runtime's namespaces", |cx| runs(cx, &PRESTART)),
    must("hooks-create-runtime", "CreateRuntime Hooks", "createRuntime runs in create, in the runtime's namespaces", |cx| {
        runs(cx, &CREATE_RUNTIME)
    }),
    must(
        "hooks-create-container",
        "CreateContainer Hooks",
        "createContainer runs in create, in the container's namespaces",
        |cx| runs(cx, &CREATE_CONTAINER),
    ),
    must("hooks-start-container", "StartContainer Hooks", "startContainer runs in start, in the container's namespaces", |cx| {
        runs(cx, &START_CONTAINER)
    }),
    must("hooks-poststart", "Poststart", "poststart runs before start returns, in the runtime's namespaces", |cx| {
        runs(cx, &POSTSTART)
    }),
    must("hooks-poststop", "Poststop", "poststop runs before delete returns, in the runtime's namespaces", |cx| {
        runs(cx, &POSTSTOP)
    }),
    must("hooks-order", HOOKS, "the kinds run in the order of the lifecycle, hooks of a kind as listed", order),
    must("hooks-before-program", "StartContainer Hooks", "startContainer runs before the program", before_program),
    must("hooks-start-awaited", "StartContainer Hooks", "start returns when startContainer hooks have", start_awaited),
    must("hooks-args-env", HOOKS, "args and env of a hook are those of the configuration", args_env),
    must("hooks-state", HOOKS, "hooks get the state on standard input: id, bundle and pid", state),
    must("hooks-state-status", "State", "the status in it is creating, created, running, stopped", state_status),
    must("hooks-timeout", HOOKS, "a hook that outlives its timeout fails the operation", timeout),
    must("hooks-fail-prestart", LIFECYCLE, "a prestart hook that fails undoes create", |cx| fails(cx, &PRESTART)),
    must("hooks-fail-create-runtime", LIFECYCLE, "a createRuntime hook that fails undoes create", |cx| {
        fails(cx, &CREATE_RUNTIME)
    }),
    must("hooks-fail-create-container", LIFECYCLE, "a createContainer hook that fails undoes create", |cx| {
        fails(cx, &CREATE_CONTAINER)
    }),
    must("hooks-fail-start-container", LIFECYCLE, "a startContainer hook that fails keeps the program from running", |cx| {
        fails(cx, &START_CONTAINER)
    }),
    must(
        "hooks-fail-poststart",
        LIFECYCLE,
        "a poststart hook that fails ends the container, or is warned of, as up to 1.2.0",
        fail_poststart,
    ),
    must("hooks-fail-poststop", LIFECYCLE, "a poststop hook that fails does not keep delete from its work", fail_poststop),
];

/// A kind of hook.
struct Kind {
    /// Its name in the configuration.
    name: &'static str,
    /// The operation it is part of.
    operation: &'static str,
    /// Whether it runs in the container's namespaces.
    inside: bool,
    /// The status of the container meanwhile (runtime.md, State).
    status: &'static str,
    /// Another one a runtime may call it: version 1.0.0 had no `creating`, and runc and crun differ on it.
    also: Option<&'static str>,
}

const PRESTART: Kind = Kind { name: "prestart", operation: "create", inside: false, status: "creating", also: Some("created") };
const CREATE_RUNTIME: Kind = Kind { name: "createRuntime", also: None, ..PRESTART };
const CREATE_CONTAINER: Kind = Kind { name: "createContainer", inside: true, ..CREATE_RUNTIME };
const START_CONTAINER: Kind = Kind { name: "startContainer", operation: "start", status: "created", ..CREATE_CONTAINER };
const POSTSTART: Kind = Kind { name: "poststart", operation: "start", status: "running", ..CREATE_RUNTIME };
const POSTSTOP: Kind = Kind { name: "poststop", operation: "delete", status: "stopped", ..CREATE_RUNTIME };
const KINDS: [&Kind; 6] = [&PRESTART, &CREATE_RUNTIME, &CREATE_CONTAINER, &START_CONTAINER, &POSTSTART, &POSTSTOP];

/// A bundle for hooks, and the directory they write to.
struct Hooked {
    bundle: Bundle,
    shared: PathBuf,
}

impl Hooked {
    fn new(cx: &Context) -> Outcome<Self> {
        let (bundle, shared) = cx.bundle()?.stays("").share()?;
        Ok(Self { bundle, shared })
    }

    /// A hook that keeps the state it gets (to leave it unread ends crun 1.8 by SIGPIPE, now and then) and then
    /// runs a script, which finds its directory as `$D`; `more` is put into its object.
    fn hook(mut self, kind: &Kind, script: &str, more: Value) -> Self {
        // startContainer is looked up in the container; the others on the host, where the bundle has the same programs.
        let (bin, directory) = if kind.name == START_CONTAINER.name {
            (PathBuf::from("/bin"), PathBuf::from("/shared"))
        } else {
            (self.bundle.rootfs().join("bin"), self.shared.clone())
        };
        let env = json!([format!("D={}", directory.display()), format!("PATH={}", bin.display()), "HOOK=value"]);
        let script = format!("cat > $D/{}.state; {script}", kind.name);
        let mut hook = json!({ "path": bin.join("sh"), "args": ["sh", "-c", script, "name"], "env": env });
        if let (Some(hook), Value::Object(more)) = (hook.as_object_mut(), more) {
            hook.extend(more);
        }
        self.bundle = self.bundle.push(&format!("hooks/{}", kind.name), hook);
        self
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.shared.join(name)).unwrap_or_default()
    }

    fn ran(&self, name: &str) -> bool {
        self.shared.join(name).exists()
    }
}

/// Creates and starts a container, ends and deletes it; `look` is called after each operation.
fn go_through<'a>(cx: &'a Context, bundle: &Bundle, mut look: impl FnMut(&str, &Container<'a>) -> Outcome) -> Outcome {
    let container = cx.create(bundle)?;
    look("create", &container)?;
    container.start()?.must_succeed()?;
    look("start", &container)?;
    container.wait_for_line("ready")?;
    container.end()?;
    look("delete", &container)
}

/// A hook of this kind runs in its operation and not before, in the namespaces it belongs to.
fn runs(cx: &Context, kind: &Kind) -> Outcome {
    let hooked = Hooked::new(cx)?.hook(kind, "readlink /proc/self/ns/mnt > $D/ran.new; mv $D/ran.new $D/ran", json!({}));
    let host = here(namespace_of(std::process::id(), "mnt"), "look at a namespace of the host")?;
    let mut reached = false;
    go_through(cx, &hooked.bundle, |operation, _| {
        reached |= operation == kind.operation;
        if reached && kind.name == START_CONTAINER.name {
            // Whether start waits for it is judged by itself.
            return wait_until("the hook to run", || Ok(hooked.ran("ran")));
        }
        require(hooked.ran("ran") == reached, format_args!("the hook to run as part of {}", kind.operation))
    })?;
    let link = hooked.read("ran");
    let inside = if kind.inside { "the container's" } else { "the runtime's" };
    require((link.trim() != host) == kind.inside, format_args!("the hook to run in {inside} mount namespace, not {link:?}"))
}

fn order(cx: &Context) -> Outcome {
    let mut hooked = Hooked::new(cx)?;
    for kind in KINDS {
        for number in [1, 2] {
            // Long enough for a runtime that does not wait to be found out.
            let wait = if kind.name == START_CONTAINER.name { "sleep 0.2; " } else { "" };
            hooked = hooked.hook(kind, &format!("{wait}echo {} {number} >> $D/order", kind.name), json!({}));
        }
    }
    go_through(cx, &hooked.bundle, |_, _| Ok(()))?;
    let expected: Vec<_> = KINDS.iter().flat_map(|kind| [1, 2].map(|number| format!("{} {number}", kind.name))).collect();
    let found = hooked.read("order");
    require(
        found.lines().eq(expected.iter()),
        format_args!("the order {expected:?}, not {:?}", found.lines().collect::<Vec<_>>()),
    )
}

fn start_awaited(cx: &Context) -> Outcome {
    let hooked = Hooked::new(cx)?.hook(&START_CONTAINER, "sleep 0.3; touch $D/ran", json!({}));
    let container = cx.create(&hooked.bundle)?;
    container.start()?.must_succeed()?;
    require(hooked.ran("ran"), "start to return after the hook has")
}

fn before_program(cx: &Context) -> Outcome {
    let mut hooked = Hooked::new(cx)?.hook(&START_CONTAINER, "echo hook >> $D/order", json!({}));
    hooked.bundle = hooked.bundle.stays("echo program >> /shared/order");
    go_through(cx, &hooked.bundle, |_, _| Ok(()))?;
    require(hooked.read("order") == "hook\nprogram\n", "the hook before the program")
}

fn args_env(cx: &Context) -> Outcome {
    let script = "cat > /dev/null; echo \"$0 $# $1\" > $D/seen; env > $D/env";
    let hooked = Hooked::new(cx)?;
    let args = json!({ "args": ["sh", "-c", script, "zero", "one  more"] });
    let hooked = hooked.hook(&CREATE_RUNTIME, "", args);
    cx.create(&hooked.bundle)?;
    require(hooked.read("seen") == "zero 1 one  more\n", "the arguments as configured")?;
    let env = hooked.read("env");
    require(env.lines().any(|line| line == "HOOK=value"), "HOOK=value in the hook's environment")?;
    require(!env.contains(crate::runtime::command::HOST_VARIABLE), "nothing of the runtime's environment in the hook's")
}

/// What hooks of all kinds got on standard input.
struct States {
    bundle: Bundle,
    /// The process of the container, as `state` showed it after create.
    pid: u32,
    by_kind: Vec<(&'static Kind, Value)>,
}

/// Goes through the life of a container with a hook of each kind.
fn states(cx: &Context) -> Outcome<States> {
    let mut hooked = Hooked::new(cx)?;
    for kind in KINDS {
        hooked = hooked.hook(kind, "", json!({}));
    }
    let mut pid = 0;
    go_through(cx, &hooked.bundle, |operation, container| {
        if operation == "create" {
            pid = container.pid()?;
        }
        Ok(())
    })?;
    let state = |kind: &&'static Kind| {
        let text = hooked.read(&format!("{}.state", kind.name));
        cx.note(format!("{} got: {}\n", kind.name, text.trim()));
        let parsed = serde_json::from_str(&text);
        parsed.map(|state| (*kind, state)).map_err(|error| Finding::Fail(format!("a state in JSON for {} ({error})", kind.name)))
    };
    let by_kind = KINDS.iter().map(state).collect::<Outcome<Vec<_>>>()?;
    Ok(States { bundle: hooked.bundle, pid, by_kind })
}

fn state(cx: &Context) -> Outcome {
    let States { bundle, pid, by_kind } = states(cx)?;
    for (kind, state) in by_kind {
        let name = kind.name;
        require(state["id"] == bundle.id.as_str(), format_args!("id {} for {name}", bundle.id))?;
        let path = bundle.directory.to_string_lossy();
        require(state["bundle"] == path.as_ref(), format_args!("bundle {path} for {name}"))?;
        require(state["ociVersion"].is_string(), format_args!("an ociVersion for {name}"))?;
        if kind.operation == "create" && !kind.inside {
            require(state["pid"] == pid, format_args!("pid {pid} for {name}"))?;
        }
    }
    Ok(())
}

fn state_status(cx: &Context) -> Outcome {
    let States { by_kind, .. } = states(cx)?;
    let wrong = |(kind, state): &(&'static Kind, Value)| {
        let named = state["status"] == kind.status || kind.also.is_some_and(|also| state["status"] == also);
        (!named).then(|| format!("{} for {}, not {}", kind.status, kind.name, state["status"]))
    };
    let wrong: Vec<_> = by_kind.iter().filter_map(wrong).collect();
    require(wrong.is_empty(), format_args!("status {}", wrong.join("; ")))
}

fn timeout(cx: &Context) -> Outcome {
    let hooked = Hooked::new(cx)?.hook(&CREATE_RUNTIME, "exec sleep 20", json!({ "timeout": 1 }));
    let (_, step) = cx.try_create(&hooked.bundle, &[])?;
    require(step.took.as_secs() < 15, "create to give up soon after the second the hook has")?;
    step.must_fail("a hook took too long").map(drop)
}

/// Whether a container is gone, or stopped: what "stop the container, and continue with delete" leaves.
fn must_not_live(container: &Container<'_>) -> Outcome {
    let step = container.query()?;
    let state: Value = serde_json::from_str(&step.stdout).unwrap_or_default();
    require(step.end != End::Code(0) || state["status"] == "stopped", "no such container, or a stopped one")
}

fn fails(cx: &Context, kind: &Kind) -> Outcome {
    let mut hooked = Hooked::new(cx)?.hook(kind, "touch $D/ran; sleep 0.2; exit 3", json!({}));
    hooked.bundle = hooked.bundle.script("touch /shared/program");
    let (container, created) = cx.try_create(&hooked.bundle, &[])?;
    if kind.operation == "create" {
        created.must_fail("a hook failed")?;
    } else {
        created.must_succeed()?;
        container.start()?.must_fail("a hook failed")?;
    }
    require(hooked.ran("ran"), "the hook to have run")?;
    must_not_live(&container)?;
    require(!hooked.ran("program"), "the program not to have run")
}

fn fail_poststart(cx: &Context) -> Outcome {
    let hooked = Hooked::new(cx)?.hook(&POSTSTART, "exit 3", json!({}));
    let container = cx.create(&hooked.bundle)?;
    let started: Step = container.start()?;
    if started.end == End::Code(0) {
        // The version the bundle names asks for a warning, and that the container runs on; 1.2.1 for its end.
        return container.must_be("running");
    }
    must_not_live(&container)
}

fn fail_poststop(cx: &Context) -> Outcome {
    let hooked = Hooked::new(cx)?.hook(&POSTSTOP, "touch $D/first; exit 3", json!({}));
    let hooked = hooked.hook(&POSTSTOP, "touch $D/second", json!({}));
    let container = cx.running(&hooked.bundle)?;
    let pid = container.pid()?;
    container.kill("KILL")?.must_succeed()?;
    container.wait_until_stopped(pid)?;
    container.delete(&[])?;
    require(hooked.ran("first"), "the hook to have run")?;
    require(hooked.ran("second"), "the hook after the one that failed to have run")?;
    container.query()?.must_fail("the container was deleted").map(drop)
}
