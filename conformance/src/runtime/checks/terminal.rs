//! Terminals: handed over by the console socket, and what the process has of them.

use serde_json::json;

use crate::runtime::bundle::Bundle;
use crate::runtime::console::{Console, read_terminal};
use crate::runtime::finding::{Finding, Outcome, require};
use crate::runtime::{Context, Requirement, must, should};

const PROCESS: &str = "Process";

pub(super) const TABLE: &[Requirement] = &[
    must("terminal-console-socket", PROCESS, "the terminal is sent to the console socket", console_socket),
    must("terminal-standard-streams", PROCESS, "input, output and error are the terminal, which controls the process", streams),
    should("terminal-console-device", PROCESS, "/dev/console is the terminal", console_device),
    must("terminal-size", PROCESS, "the terminal has the size asked for", size),
    should("terminal-without-socket", "command line", "create with a terminal and no console socket is refused", without_socket),
    must("terminal-none", PROCESS, "without a terminal there is none", none),
];

/// Runs a script on a terminal; what appears on it.
fn on_terminal(cx: &Context, bundle: Bundle, script: &str) -> Outcome<String> {
    cx.need_flag("create", "--console-socket")?;
    let bundle = bundle.set("process/terminal", true).script(script);
    let console = Console::listen(&cx.fresh_path())?;
    let (container, step) = cx.try_create(&bundle, &["--console-socket", &console.path.to_string_lossy()])?;
    step.must_succeed()?;
    let terminal = console.receive()?;
    container.start()?.must_succeed()?;
    let shown = read_terminal(terminal)?;
    cx.note(format!("on the terminal:\n| {}\n", shown.trim_end().replace('\n', "\n| ")));
    Ok(shown)
}

fn console_socket(cx: &Context) -> Outcome {
    let shown = on_terminal(cx, cx.bundle()?, "echo on the terminal")?;
    require(shown == "on the terminal\n", "\"on the terminal\" on the terminal")
}

fn streams(cx: &Context) -> Outcome {
    let script = "for f in 0 1 2; do test -t $f && echo tty $f; done; true < /dev/tty && echo controls";
    let shown = on_terminal(cx, cx.bundle()?, script)?;
    require(shown == "tty 0\ntty 1\ntty 2\ncontrols\n", "three streams on a terminal, and /dev/tty to be it")
}

fn console_device(cx: &Context) -> Outcome {
    let script = "echo through /dev/console > /dev/console; test -c /dev/console && echo device";
    let shown = on_terminal(cx, cx.bundle()?, script)?;
    require(shown == "through /dev/console\ndevice\n", "/dev/console to be the terminal")
}

fn size(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("process/consoleSize", json!({ "height": 33, "width": 111 }));
    let shown = on_terminal(cx, bundle, "stty size")?;
    require(shown == "33 111\n", "33 rows and 111 columns")
}

fn without_socket(cx: &Context) -> Outcome {
    let (_, step) = cx.try_create(&cx.bundle()?.set("process/terminal", true), &[])?;
    step.must_fail("nobody takes the terminal").map(drop)
}

fn none(cx: &Context) -> Outcome {
    let script = "for f in 0 1 2; do test -t $f && echo tty $f; done; ( : < /dev/tty ) 2>/dev/null && echo controls; echo end";
    let step = cx.run_script(script)?;
    let lines: Vec<_> = step.stdout.lines().collect();
    if lines == ["controls", "end"] {
        return Err(Finding::Differs("the process keeps the terminal the runtime was started on".into()));
    }
    step.must_print(&["end"]).map(drop)
}
