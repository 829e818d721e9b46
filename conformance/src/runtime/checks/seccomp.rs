//! Seccomp: actions, error numbers and comparisons of arguments.
//!
//! Judged by `chmod` and `mkdir`, whose arguments a script chooses. Newer architectures have `fchmodat`
//! and `mkdirat` alone: profiles name both.

use serde_json::{Value, json};

use crate::runtime::bundle::Bundle;
use crate::runtime::finding::{Outcome, require};
use crate::runtime::{Context, Requirement, must, typical};

const SECCOMP: &str = "Seccomp";

pub(super) const TABLE: &[Requirement] = &[
    must("seccomp-none", SECCOMP, "without a profile there is no filter", none),
    must("seccomp-filter", SECCOMP, "with a profile there is a filter, loaded once", filter),
    must("seccomp-errno", SECCOMP, "SCMP_ACT_ERRNO fails with EPERM", errno),
    must("seccomp-errno-number", SECCOMP, "errnoRet is the error number", errno_number),
    must("seccomp-default-errno", SECCOMP, "what is not listed gets the default action", default_errno),
    must(
        "seccomp-default-errno-number",
        SECCOMP,
        "defaultErrnoRet is the error number of the default action",
        default_errno_number,
    ),
    must("seccomp-allow", SECCOMP, "SCMP_ACT_ALLOW allows what the default refuses", allow),
    must("seccomp-kill", SECCOMP, "SCMP_ACT_KILL ends the program by SIGSYS", |cx| kill(cx, "SCMP_ACT_KILL")),
    must("seccomp-kill-process", SECCOMP, "SCMP_ACT_KILL_PROCESS ends the program by SIGSYS", |cx| {
        kill(cx, "SCMP_ACT_KILL_PROCESS")
    }),
    must("seccomp-log", SECCOMP, "SCMP_ACT_LOG allows", log),
    must("seccomp-args-eq", SECCOMP, "arguments compared by EQ", |cx| compares(cx, "EQ", 0o700, 0, ["644", "755"], ["700"])),
    must("seccomp-args-ne", SECCOMP, "arguments compared by NE", |cx| compares(cx, "NE", 0o700, 0, ["700", "0700"], ["755"])),
    must("seccomp-args-lt", SECCOMP, "arguments compared by LT", |cx| compares(cx, "LT", 0o700, 0, ["700", "755"], ["677"])),
    must("seccomp-args-le", SECCOMP, "arguments compared by LE", |cx| compares(cx, "LE", 0o700, 0, ["701", "755"], ["700"])),
    must("seccomp-args-gt", SECCOMP, "arguments compared by GT", |cx| compares(cx, "GT", 0o700, 0, ["700", "644"], ["701"])),
    must("seccomp-args-ge", SECCOMP, "arguments compared by GE", |cx| compares(cx, "GE", 0o700, 0, ["677", "644"], ["700"])),
    must("seccomp-args-masked", SECCOMP, "arguments compared by MASKED_EQ", |cx| {
        compares(cx, "MASKED_EQ", 0o4000, 0o4000, ["755", "2755"], ["4755"])
    }),
    must("seccomp-args-two", SECCOMP, "a rule with two conditions holds when both do", args_two),
    must("seccomp-unknown-action", "Valid values", "an unknown action is refused", unknown_action),
    must("seccomp-unknown-operator", "Valid values", "an unknown operator is refused", unknown_operator),
    must("seccomp-no-privileges", SECCOMP, "a profile is loaded for a user without capabilities", no_privileges),
];

/// A bundle with a profile of these rules.
fn with(cx: &Context, default: &str, syscalls: &Value) -> Outcome<Bundle> {
    let profile = json!({ "defaultAction": default, "architectures": typical::architectures(), "syscalls": syscalls });
    Ok(cx.bundle()?.set("linux/seccomp", profile))
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

fn none(cx: &Context) -> Outcome {
    let step = cx.run(&cx.bundle()?.remove("linux/seccomp").script("grep ^Seccomp /proc/self/status"))?;
    step.must_succeed()?;
    // The judge itself may be under a filter.
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("Seccomp:")).unwrap_or_default().trim();
    require(step.field("Seccomp")? == own, format_args!("Seccomp: {own}, as outside"))
}

fn filter(cx: &Context) -> Outcome {
    let bundle = with(cx, "SCMP_ACT_ALLOW", &json!([{ "names": MKDIR, "action": "SCMP_ACT_ERRNO" }]))?;
    let step = cx.run(&bundle.script("grep ^Seccomp /proc/self/status"))?;
    step.must_succeed()?;
    require(step.field("Seccomp")? == "2", "Seccomp: 2, a filter")
}

fn errno(cx: &Context) -> Outcome {
    let bundle = with(cx, "SCMP_ACT_ALLOW", &json!([{ "names": MKDIR, "action": "SCMP_ACT_ERRNO" }]))?;
    let step = cx.run(&bundle.script("mkdir /new; test -d /new && echo made; touch /file && echo end"))?;
    step.must_print(&["end"])?;
    require(step.stderr.contains("Operation not permitted"), "mkdir to fail with EPERM")
}

fn errno_number(cx: &Context) -> Outcome {
    let rule = json!([{ "names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]);
    let step = cx.run(&with(cx, "SCMP_ACT_ALLOW", &rule)?.script("mkdir /new"))?;
    require(step.stderr.contains("No space left on device"), "mkdir to fail with errno 28, no space left on device")
}

/// The typical list without the system calls that make directories.
fn all_but_mkdir() -> Value {
    let mut profile = typical::seccomp();
    if let Some(names) = profile["syscalls"][0]["names"].as_array_mut() {
        names.retain(|name| !MKDIR.iter().any(|mkdir| name == mkdir));
    }
    profile
}

fn default_errno(cx: &Context) -> Outcome {
    let step = cx.run(&cx.bundle()?.set("linux/seccomp", all_but_mkdir()).script("mkdir /new; echo end"))?;
    step.must_print(&["end"])?;
    require(step.stderr.contains("Operation not permitted"), "mkdir to fail with EPERM")
}

fn default_errno_number(cx: &Context) -> Outcome {
    let mut profile = all_but_mkdir();
    profile["defaultErrnoRet"] = json!(28);
    let step = cx.run(&cx.bundle()?.set("linux/seccomp", profile).script("mkdir /new; echo end"))?;
    step.must_print(&["end"])?;
    let held = step.stderr.contains("No space left on device");
    cx.must_since((1, 1), held, "mkdir to fail with errno 28, no space left on device")
}

fn allow(cx: &Context) -> Outcome {
    let step = cx.run_script("mkdir /new && test -d /new && echo made")?;
    step.must_print(&["made"]).map(drop)
}

fn kill(cx: &Context, action: &str) -> Outcome {
    let bundle = with(cx, "SCMP_ACT_ALLOW", &json!([{ "names": MKDIR, "action": action }]))?;
    // 128 + SIGSYS; `mkdir` is a process of its own to the shell.
    let step = cx.run(&bundle.script("/bin/busybox mkdir /new; echo $?; test -d /new && echo made"))?;
    step.must_print(&["159"]).map(drop)
}

fn log(cx: &Context) -> Outcome {
    let bundle = with(cx, "SCMP_ACT_ALLOW", &json!([{ "names": MKDIR, "action": "SCMP_ACT_LOG" }]))?;
    let step = cx.run(&bundle.script("mkdir /new && echo made"))?;
    step.or_not_offered("SCMP_ACT_LOG")?;
    step.must_print(&["made"]).map(drop)
}

/// Rules that refuse `chmod` when its mode compares so.
fn chmod_rules(conditions: &[Value]) -> Value {
    let rule = |name: &str, index: u64| {
        let at = |condition: &Value| {
            let mut condition = condition.clone();
            condition["index"] = json!(index);
            condition
        };
        let args: Vec<_> = conditions.iter().map(at).collect();
        json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "args": args })
    };
    json!([rule("chmod", 1), rule("fchmodat", 2), rule("fchmodat2", 2)])
}

/// Modes that the profile lets pass, and those it refuses.
fn compares(cx: &Context, operator: &str, value: u64, second: u64, pass: [&str; 2], refused: [&str; 1]) -> Outcome {
    let condition = json!({ "value": value, "valueTwo": second, "op": format!("SCMP_CMP_{operator}") });
    let bundle = with(cx, "SCMP_ACT_ALLOW", &chmod_rules(&[condition]))?;
    let modes: Vec<_> = pass.iter().chain(&refused).copied().collect();
    let script = format!("touch /file; for mode in {}; do chmod $mode /file && echo $mode; done; echo end", modes.join(" "));
    let expected: Vec<_> = pass.iter().copied().chain(["end"]).collect();
    cx.run(&bundle.script(&script))?.must_print(&expected).map(drop)
}

fn args_two(cx: &Context) -> Outcome {
    let args = json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 0, "op": "SCMP_CMP_NE" }]);
    let rule = json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": args }]);
    // kill(1, not 0) is refused; kill(1, 0) and kill(own pid, 0 or CHLD) pass.
    let script = "kill -0 1 && echo one; kill -CHLD 1 || echo refused; sh -c 'kill -CHLD $$' && echo other";
    cx.run(&with(cx, "SCMP_ACT_ALLOW", &rule)?.script(script))?.must_print(&["one", "refused", "other"]).map(drop)
}

fn unknown_action(cx: &Context) -> Outcome {
    let bundle = with(cx, "SCMP_ACT_ALLOW", &json!([{ "names": MKDIR, "action": "SCMP_ACT_NONSENSE" }]))?;
    cx.run(&bundle)?.must_fail("there is no SCMP_ACT_NONSENSE").map(drop)
}

fn unknown_operator(cx: &Context) -> Outcome {
    let bundle = with(cx, "SCMP_ACT_ALLOW", &chmod_rules(&[json!({ "value": 1, "op": "SCMP_CMP_NONSENSE" })]))?;
    cx.run(&bundle)?.must_fail("there is no SCMP_CMP_NONSENSE").map(drop)
}

fn no_privileges(cx: &Context) -> Outcome {
    cx.need_root("other users")?;
    // Without noNewPrivileges the filter must be loaded before the capability to do so is gone.
    let bundle = cx.bundle()?.set("process/noNewPrivileges", false).set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    let step = cx.run(&bundle.script("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"))?;
    step.must_succeed()?;
    require(step.field("Seccomp")? == "2", "Seccomp: 2, a filter")?;
    require(step.field("NoNewPrivs")? == "0", "NoNewPrivs: 0")
}
