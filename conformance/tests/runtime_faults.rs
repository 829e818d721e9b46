//! Each fault of a runtime is found by the requirements it breaks, and by no other.
//!
//! The broken runtime is a script before `runc` with one fault: it edits config.json before it is read,
//! leaves flags out, or says something else than what came of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../runtime/tests/needs/mod.rs"]
mod needs;
#[path = "support/runtimes.rs"]
mod runtimes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use longshore_conformance::{Verdict, runtime};

/// What a fault does, with the groups judged and the requirements it breaks.
struct Fault {
    name: &'static str,
    /// Shell, before `runc` is called with the same arguments.
    script: &'static str,
    judged: &'static [&'static str],
    broken: &'static [&'static str],
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "run loses the exit code",
        script: r#"if [ "$verb" = run ]; then "$real" "$@" || exit 1; exit 0; fi"#,
        judged: &["command-run-exit-code", "command-run-streams"],
        broken: &["command-run-exit-code"],
    },
    Fault {
        name: "exec loses the exit code",
        script: r#"if [ "$verb" = exec ]; then "$real" "$@"; exit 0; fi"#,
        judged: &["exec-output", "exec-exit-code", "exec-cwd"],
        broken: &["exec-exit-code"],
    },
    Fault {
        name: "state without pid",
        script: r#"if [ "$verb" = state ]; then "$real" "$@" > "$t" && jq 'del(.pid)' "$t"; exit; fi"#,
        judged: &["state"],
        broken: &["state-status", "state-pid"],
    },
    Fault {
        name: "state says running when it is over",
        script: r#"if [ "$verb" = state ]; then "$real" "$@" > "$t" && sed s/stopped/running/ "$t"; exit; fi"#,
        judged: &["state"],
        broken: &["state-status"],
    },
    Fault {
        name: "a state for everybody",
        script: r#"if [ "$verb" = state ]; then "$real" "$@" || echo '{"status":"stopped"}'; exit 0; fi"#,
        judged: &["state"],
        broken: &["state-unknown", "state-without-id"],
    },
    Fault {
        name: "create runs the program",
        script: r#"if [ "$verb" = create ]; then "$real" "$@" && "$real" --root "$root" start "$id"; exit; fi"#,
        judged: &["lifecycle-create", "lifecycle-kill"],
        broken: &[
            "lifecycle-create",
            "lifecycle-create-duplicate",
            "lifecycle-kill",
            "lifecycle-kill-number",
            "lifecycle-kill-created",
            "lifecycle-kill-stopped",
        ],
    },
    Fault {
        name: "kill always kills",
        script: r#"if [ "$verb" = kill ]; then exec "$real" --root "$root" kill "$name" KILL; fi"#,
        judged: &["lifecycle-kill"],
        broken: &["lifecycle-kill", "lifecycle-kill-number"],
    },
    Fault {
        name: "delete of a running container",
        script: r#"if [ "$verb" = delete ]; then exec "$real" --root "$root" delete --force "$id"; fi"#,
        judged: &["lifecycle-delete"],
        broken: &["lifecycle-delete-running", "lifecycle-delete-unknown"],
    },
    Fault {
        name: "no pid-file",
        script: r#"if [ "$verb" = create ]; then "$real" "$@"; code=$?; [ -z "$pid_file" ] || rm -f "$pid_file"; exit $code; fi"#,
        judged: &["command-pid-file", "command-list"],
        broken: &["command-pid-file"],
    },
    Fault {
        name: "the cgroup stays",
        script: r#"if [ "$verb" = delete ]; then
            "$real" "$@"; code=$?
            for d in /sys/fs/cgroup/pids /sys/fs/cgroup; do
                if [ -e $d/cgroup.procs ]; then mkdir -p "$d/${id%-*}/$id"; break; fi
            done
            exit $code
        fi"#,
        judged: &["cgroups-path", "cgroups-removed"],
        broken: &["cgroups-removed"],
    },
    Fault {
        name: "no limits",
        script: "edit 'del(.linux.resources.memory, .linux.resources.pids)'",
        judged: &["cgroups-memory-limit", "cgroups-memory-enforced", "cgroups-pids", "cgroups-cpu"],
        broken: &["cgroups-memory-limit", "cgroups-memory-enforced", "cgroups-pids"],
    },
    Fault {
        name: "devices for all",
        script: r#"edit '.linux.resources.devices = [{"allow": true, "access": "rwm"}]'"#,
        judged: &["cgroups-devices"],
        broken: &["cgroups-devices-deny", "cgroups-devices-allow", "cgroups-devices-order"],
    },
    Fault {
        name: "capabilities are not dropped",
        script: r#"edit '.process.capabilities |= with_entries(select(.key | IN("bounding", "effective", "permitted")) .value += ["CAP_SYS_ADMIN"])'"#,
        judged: &["capabilities"],
        broken: &[
            "capabilities-bounding",
            "capabilities-effective",
            "capabilities-permitted",
            "capabilities-none",
            "capabilities-user",
            "capabilities-unknown",
        ],
    },
    Fault {
        name: "a root file system that is readonly can be written",
        script: "edit '.root.readonly = false'",
        judged: &["paths"],
        broken: &["paths-root-readonly"],
    },
    Fault {
        name: "nothing is masked",
        script: "edit 'del(.linux.maskedPaths)'",
        judged: &["paths"],
        broken: &["paths-masked-file", "paths-masked-directory"],
    },
    Fault {
        name: "bind mounts can be written",
        script: r#"edit '.mounts |= map(if .type == "bind" then .options -= ["ro"] else . end)'"#,
        judged: &["mounts-bind"],
        broken: &["mounts-bind-ro"],
    },
    Fault {
        name: "mounts in another order",
        script: "edit '.mounts |= .[:7] + (.[7:] | reverse)'",
        judged: &["mounts-order", "mounts-bind", "mounts-tmpfs"],
        broken: &["mounts-order"],
    },
    Fault {
        name: "no hooks",
        script: "edit 'del(.hooks)'",
        judged: &["hooks-prestart", "hooks-create-runtime", "hooks-create-container", "hooks-poststop", "hooks-args-env"],
        broken: &["hooks-prestart", "hooks-create-runtime", "hooks-create-container", "hooks-poststop", "hooks-args-env"],
    },
    Fault {
        name: "no profile",
        script: "edit 'del(.linux.seccomp)'",
        judged: &["seccomp-none", "seccomp-filter", "seccomp-errno", "seccomp-kill", "seccomp-allow", "seccomp-args-eq"],
        broken: &[
            "seccomp-filter",
            "seccomp-errno",
            "seccomp-errno-number",
            "seccomp-kill",
            "seccomp-kill-process",
            "seccomp-args-eq",
        ],
    },
    Fault {
        name: "comparisons of arguments are forgotten",
        script: "edit 'if .linux.seccomp then .linux.seccomp.syscalls |= map(del(.args)) else . end'",
        judged: &["seccomp-args-eq", "seccomp-args-masked", "seccomp-errno"],
        broken: &["seccomp-args-eq", "seccomp-args-masked"],
    },
    Fault {
        name: "the environment leaks",
        script: r#"edit '.process.env += ["RCONFORM_HOST_VARIABLE=1"]'"#,
        judged: &["process-env-clean", "process-args"],
        broken: &["process-env-clean"],
    },
    Fault {
        name: "everybody is root",
        script: r#"edit '.process.user = {"uid": 0, "gid": 0}'"#,
        judged: &["process-user", "process-additional-gids", "process-umask", "process-cwd"],
        broken: &["process-user", "process-additional-gids", "process-umask"],
    },
    Fault {
        name: "new privileges",
        script: "edit '.process.noNewPrivileges = false'",
        judged: &["process-no-new-privileges", "process-new-privileges"],
        broken: &["process-no-new-privileges"],
    },
    Fault {
        name: "no resource limits",
        script: "edit 'del(.process.rlimits)'",
        judged: &["process-rlimits", "process-oom-score-adj"],
        broken: &["process-rlimits", "process-rlimits-unknown"],
    },
    Fault {
        name: "the host's network",
        script: r#"edit '.linux.namespaces |= map(select(.type != "network"))'"#,
        judged: &["namespaces-new", "namespaces-join-network"],
        broken: &["namespaces-new-network", "namespaces-new-user", "namespaces-join-network"],
    },
    Fault {
        name: "no message",
        script: "exec 2> /dev/null",
        judged: &["errors-message", "errors-nothing-left", "errors-root-missing"],
        broken: &["errors-message"],
    },
    Fault {
        name: "no log",
        script: r#"if [ -n "$log" ]; then "$real" "$@"; code=$?; : > "$log"; exit $code; fi"#,
        judged: &["errors-log-text", "errors-log-json"],
        broken: &["errors-log-text", "errors-log-json"],
    },
];

/// What comes before every fault: what the arguments say, and how config.json is edited.
const PROLOGUE: &str = r#"
case " $* " in *" --help "*) exec "$real" "$@" ;; esac
verb= bundle= root= pid_file= log= previous= id= name=
for word in "$@"; do
    case $previous in
        --bundle) bundle=$word ;;
        --root) root=$word ;;
        --pid-file) pid_file=$word ;;
        --log) log=$word ;;
        kill) name=$word ;;
    esac
    case $word in
        create | start | state | kill | delete | run | exec) [ -n "$verb" ] || verb=$word ;;
    esac
    previous=$word id=$word
done
t=/tmp/rconform-fault-$$
trap 'rm -f "$t"' EXIT
edit() {
    [ -n "$bundle" ] || return 0
    if jq "$1" "$bundle/config.json" > "$t" 2> /dev/null; then cat "$t" > "$bundle/config.json"; fi
}
"#;

fn broken_runtime(directory: &Path, real: &Path, fault: &Fault) -> PathBuf {
    let path = directory.join("runtime");
    let text = format!("#!/bin/sh\nreal={}\n{PROLOGUE}\n{}\nrm -f \"$t\"\nexec \"$real\" \"$@\"\n", real.display(), fault.script);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn each_fault_is_found_by_the_requirements_it_breaks() {
    let needed = [needs::root(), needs::installed("jq"), needs::installed("busybox")];
    let Some(runc) = runtimes::peer("runc").filter(|_| !needed.contains(&false)) else { return };
    let mut wrong = Vec::new();
    for fault in FAULTS {
        let directory = tempfile::tempdir().unwrap();
        let program = broken_runtime(directory.path(), &runc, fault);
        let only: Vec<_> = fault.judged.iter().map(ToString::to_string).collect();
        let skip: Vec<_> = runtimes::RUNC_FAILS.iter().map(ToString::to_string).collect();
        let report = runtime::run(&program, None, &runtime::choose(&only, &skip).unwrap()).unwrap();
        let found = report.with(Verdict::Fail);
        if found != fault.broken {
            wrong.push(format!("{}: found {found:?}, expected {:?}", fault.name, fault.broken));
        }
        if !report.left_behind.is_empty() {
            wrong.push(format!("{}: left behind {:?}", fault.name, report.left_behind));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
