//! The process: arguments, environment, directory, user, limits and what it inherits.

use serde_json::json;

use crate::runtime::bundle::write_program;
use crate::runtime::command::HOST_VARIABLE;
use crate::runtime::finding::{Finding, Outcome, here, not_offered, require};
use crate::runtime::{Context, Requirement, must, should};

const PROCESS: &str = "Process";
const POSIX: &str = "POSIX process";
const LINUX: &str = "Linux Process";
const USER: &str = "POSIX-platform User";

pub(super) const TABLE: &[Requirement] = &[
    must("process-args", POSIX, "the arguments arrive as they are", args),
    must("process-path", POSIX, "a program is looked for in the PATH of env", path),
    must("process-env", POSIX, "the environment is that of the configuration", env),
    must("process-env-clean", POSIX, "the runtime's own environment does not get in", env_clean),
    must("process-cwd", PROCESS, "the working directory", cwd),
    must("process-cwd-relative", PROCESS, "a working directory that is relative is refused", cwd_relative),
    must("process-user", USER, "uid and gid", user),
    must("process-additional-gids", USER, "additional groups, and no others", additional_gids),
    must("process-umask", USER, "the umask", umask),
    must("process-no-new-privileges", LINUX, "noNewPrivileges", |cx| no_new_privileges(cx, true)),
    must("process-new-privileges", LINUX, "no noNewPrivileges unless asked for", |cx| no_new_privileges(cx, false)),
    must("process-rlimits", POSIX, "resource limits, soft and hard", rlimits),
    must("process-rlimits-unknown", POSIX, "an unknown resource limit is refused", rlimits_unknown),
    must("process-rlimits-duplicate", POSIX, "two limits of one type are refused", rlimits_duplicate),
    must("process-oom-score-adj", LINUX, "oomScoreAdj", oom_score_adj),
    must("process-oom-score-adj-kept", LINUX, "oom_score_adj is not changed unless asked for", oom_score_adj_kept),
    must("process-files", "File descriptors", "only standard input, output and error are open", files),
    should("process-scheduler", LINUX, "the scheduler's policy and nice value", scheduler),
    should("process-io-priority", LINUX, "the priority of input and output", io_priority),
];

fn args(cx: &Context) -> Outcome {
    let words = ["two  blanks", "", "quote\"'\\", "new\nline", "$HOME *", "übung"];
    let bundle = cx.bundle()?.args(&[&["/bin/printf", "<%s>\\n"], &words[..]].concat());
    let step = cx.run(&bundle)?;
    step.must_succeed()?;
    let expected: String = words.iter().map(|word| format!("<{word}>\n")).collect();
    require(step.stdout == expected, format_args!("{expected:?}"))
}

fn path(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("process/env", json!(["PATH=/nowhere:/opt/tools"])).args(&["say", "found"]);
    let tools = bundle.rootfs().join("opt/tools");
    here(std::fs::create_dir_all(&tools), "make a directory")?;
    write_program(&tools.join("say"), "echo found")?;
    let step = cx.run(&bundle)?;
    step.must_succeed()?;
    step.must_print(&["found"]).map(drop)
}

fn env(cx: &Context) -> Outcome {
    let list = ["PATH=/bin", "HOME=/somewhere", "EMPTY=", "BLANKS=a  b", "EQUALS=a=b"];
    let step = cx.run(&cx.bundle()?.set("process/env", json!(list)).args(&["/bin/env"]))?;
    step.must_succeed()?;
    let missing: Vec<_> = list.iter().filter(|entry| !step.stdout.lines().any(|line| line == **entry)).collect();
    require(missing.is_empty(), format_args!("{missing:?} in the environment"))?;
    let other = step.stdout.lines().find(|line| !list.contains(line));
    other.map_or(Ok(()), |line| Err(Finding::Differs(format!("the runtime adds {line:?} to the environment"))))
}

fn env_clean(cx: &Context) -> Outcome {
    let step = cx.run(&cx.bundle()?.args(&["/bin/env"]))?;
    step.must_succeed()?;
    require(!step.stdout.contains(HOST_VARIABLE), format_args!("no {HOST_VARIABLE}: it is the runtime's own"))
}

fn cwd(cx: &Context) -> Outcome {
    let step = cx.run(&cx.bundle()?.set("process/cwd", "/etc").args(&["/bin/pwd"]))?;
    step.must_succeed()?;
    step.must_print(&["/etc"]).map(drop)
}

fn cwd_relative(cx: &Context) -> Outcome {
    cx.run(&cx.bundle()?.set("process/cwd", "etc"))?.must_fail("cwd is no absolute path").map(drop)
}

fn user(cx: &Context) -> Outcome {
    cx.need_root("other users")?;
    let bundle = cx.bundle()?.set("process/user", json!({ "uid": 1000, "gid": 1001 }));
    let step = cx.run(&bundle.script("grep -E '^(Uid|Gid):' /proc/self/status"))?;
    step.must_succeed()?;
    step.must_print(&["Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001\t1001\t1001"]).map(drop)
}

fn additional_gids(cx: &Context) -> Outcome {
    cx.need_root("other groups")?;
    let bundle = cx.bundle()?.set("process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 2000] }));
    let step = cx.run(&bundle.script("grep Groups: /proc/self/status"))?;
    step.must_succeed()?;
    let mut groups: Vec<_> = step.field("Groups")?.split_whitespace().filter(|gid| *gid != "1001").collect();
    groups.sort_unstable();
    require(groups == ["2000", "5"], "the groups 5 and 2000, besides 1001 or not")
}

fn umask(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("process/user/umask", 0o027);
    let step = cx.run(&bundle.script("grep Umask: /proc/self/status"))?;
    step.must_succeed()?;
    require(step.field("Umask")? == "0027", "Umask: 0027")
}

fn no_new_privileges(cx: &Context, asked: bool) -> Outcome {
    // Without a profile: a runtime that may not load it otherwise has to set the flag anyway.
    let bundle = cx.bundle()?.set("process/noNewPrivileges", asked).remove("linux/seccomp");
    let step = cx.run(&bundle.script("grep NoNewPrivs: /proc/self/status"))?;
    step.must_succeed()?;
    let expected = if asked { "1" } else { "0" };
    require(step.field("NoNewPrivs")? == expected, format_args!("NoNewPrivs: {expected}"))
}

fn rlimits(cx: &Context) -> Outcome {
    // Below what any process has: nobody needs a capability to get there.
    let limit = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    let limits =
        json!([limit("RLIMIT_NOFILE", 100, 200), limit("RLIMIT_CORE", 0, 4096), limit("RLIMIT_FSIZE", 1 << 20, 1 << 21)]);
    let step = cx.run(&cx.bundle()?.set("process/rlimits", limits).script("cat /proc/self/limits"))?;
    step.must_succeed()?;
    for (name, expected) in
        [("Max open files", "100 200"), ("Max core file size", "0 4096"), ("Max file size", "1048576 2097152")]
    {
        let line = step.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let found: Vec<_> = line.split_whitespace().take(2).collect();
        require(found.join(" ") == expected, format_args!("{name}: {expected}"))?;
    }
    Ok(())
}

fn rlimits_unknown(cx: &Context) -> Outcome {
    let limits = json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]);
    cx.run(&cx.bundle()?.set("process/rlimits", limits))?.must_fail("there is no RLIMIT_NONSENSE").map(drop)
}

fn rlimits_duplicate(cx: &Context) -> Outcome {
    let limit = |value: u64| json!({ "type": "RLIMIT_NOFILE", "soft": value, "hard": value });
    cx.run(&cx.bundle()?.set("process/rlimits", json!([limit(200), limit(100)])))?
        .must_fail("RLIMIT_NOFILE is there twice")
        .map(drop)
}

/// The value that a process of ours has.
fn own_score() -> Outcome<i32> {
    let text = here(std::fs::read_to_string("/proc/self/oom_score_adj"), "read oom_score_adj")?;
    text.trim().parse().map_err(|_| not_offered("oom_score_adj on this machine"))
}

fn oom_score_adj(cx: &Context) -> Outcome {
    // Higher than ours: lowering it takes a capability.
    let score = (own_score()? + 100).min(1000);
    let bundle = cx.bundle()?.set("process/oomScoreAdj", score).script("cat /proc/self/oom_score_adj");
    let step = cx.run(&bundle)?;
    step.must_succeed()?;
    step.must_print(&[&score.to_string()]).map(drop)
}

fn oom_score_adj_kept(cx: &Context) -> Outcome {
    let step = cx.run_script("cat /proc/self/oom_score_adj")?;
    step.must_succeed()?;
    step.must_print(&[&own_score()?.to_string()]).map(drop)
}

fn files(cx: &Context) -> Outcome {
    // The shell opens the directory itself to list it: by one descriptor that is closed again.
    let step = cx.run_script("cd /proc/self/fd; for f in *; do if readlink $f > /dev/null; then echo $f; fi; done")?;
    step.must_succeed()?;
    step.must_print(&["0", "1", "2"]).map(drop)
}

fn scheduler(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    // Fields 19 and 41 of proc_pid_stat(5): the nice value and the policy (3: SCHED_BATCH).
    let step = cx.run(&bundle.script("cut -d ' ' -f 19,41 /proc/self/stat"))?;
    step.or_not_offered("scheduler")?;
    cx.must_since((1, 1), step.stdout == "7 3\n", "nice value 7 and policy SCHED_BATCH (3)")
}

fn io_priority(cx: &Context) -> Outcome {
    let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    let step = cx.run(&cx.bundle()?.set("process/ioPriority", priority).script("ionice"))?;
    step.or_not_offered("ioPriority")?;
    cx.must_since((1, 1), step.stdout.contains("prio 6"), "best-effort: prio 6")
}
