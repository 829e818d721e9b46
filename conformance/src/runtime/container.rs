//! A container of a check: its operations, its state and what it has written.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::bundle::{Bundle, wait_until};
use super::command::{End, Output, Step, refusal, text_of, wait_for_end};
use super::context::Context;
use super::finding::{Finding, Outcome, here, not_offered, require};
use super::machine::namespace_of;
use crate::limits::CONTAINER_TIMEOUT;

/// A container that was created, or is run in the background.
#[derive(Debug)]
pub(super) struct Container<'a> {
    context: &'a Context,
    /// Its name.
    pub(super) id: String,
    output: Output,
    /// The runtime that runs it in the background.
    runner: Option<u32>,
}

impl<'a> Container<'a> {
    pub(super) fn new(context: &'a Context, bundle: &Bundle, output: Output, runner: Option<u32>) -> Self {
        Self { context, id: bundle.id.clone(), output, runner }
    }

    fn ask(&self, verb: &str, flags: &[&str]) -> Outcome<Step> {
        self.context.invoke(&[&[verb], flags, &[&self.id]].concat())
    }

    pub(super) fn start(&self) -> Outcome<Step> {
        self.ask("start", &[])
    }

    pub(super) fn kill(&self, signal: &str) -> Outcome<Step> {
        self.context.invoke(&["kill", &self.id, signal])
    }

    pub(super) fn delete(&self, flags: &[&str]) -> Outcome<Step> {
        let step = self.ask("delete", flags)?;
        if step.end == End::Code(0) {
            self.context.is_gone(&self.id);
        }
        Ok(step)
    }

    /// `state`, whatever comes of it.
    pub(super) fn query(&self) -> Outcome<Step> {
        self.ask("state", &[])
    }

    /// The state as JSON.
    pub(super) fn state(&self) -> Outcome<Value> {
        let step = self.query()?;
        step.must_succeed()?;
        serde_json::from_str(&step.stdout).map_err(|error| Finding::Fail(format!("a state in JSON ({error})")))
    }

    pub(super) fn must_be(&self, status: &str) -> Outcome {
        require(self.state()?["status"] == status, format_args!("status {status}"))
    }

    /// The process of the container, in the host's numbers.
    pub(super) fn pid(&self) -> Outcome<u32> {
        if let Some(runner) = self.runner {
            return self.pid_below(runner);
        }
        let pid = self.state()?["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        pid.ok_or_else(|| Finding::Fail("the pid of the container's process in its state".into()))
    }

    /// The process that runs in the container, found by being below the runtime in another namespace of processes.
    fn pid_below(&self, runner: u32) -> Outcome<u32> {
        let own = here(namespace_of(runner, "pid"), "look at the runtime's namespaces")?;
        let mut open = vec![runner];
        while let Some(pid) = open.pop() {
            // A process that is over by now has no namespaces.
            if namespace_of(pid, "pid").is_ok_and(|other| other != own) {
                return Ok(pid);
            }
            open.extend(children_of(pid));
        }
        Err(not_offered("the container's process is not below the runtime's"))
    }

    /// Waits until the container's process is over and the runtime says so.
    pub(super) fn wait_until_stopped(&self, pid: u32) -> Outcome {
        let over = here(wait_for_end(pid, CONTAINER_TIMEOUT), "wait for the container's process")?;
        require(over, format_args!("the container's process {pid} to end within {} s", CONTAINER_TIMEOUT.as_secs()))?;
        wait_until("status stopped", || Ok(self.state()?["status"] == "stopped"))
    }

    /// What the container has written to standard output so far.
    pub(super) fn written(&self) -> Outcome<String> {
        here(text_of(&self.output.stdout), "read a container's output")
    }

    /// Waits until the container has written this line.
    pub(super) fn wait_for_line(&self, line: &str) -> Outcome {
        let expected = format!("the container to write {line:?}");
        let waited = wait_until(&expected, || {
            // Asked before the output is read: what is over writes no more.
            let over = self.runner.is_some_and(|runner| wait_for_end(runner, Duration::ZERO).unwrap_or(false));
            let found = self.written()?.lines().any(|written| written == line);
            require(found || !over, format_args!("{expected} before it ends"))?;
            Ok(found)
        });
        if waited.is_err() {
            let errors = here(text_of(&self.output.stderr), "read a container's output")?;
            refusal(&errors)?;
            self.context.note(format!("the container wrote:\n| {}\n! {}\n", self.written()?.trim_end(), errors.trim_end()));
        }
        waited
    }

    /// Runs `words` in the container.
    pub(super) fn exec(&self, flags: &[&str], words: &[&str]) -> Outcome<Step> {
        self.context.need(&["exec"])?;
        self.context.invoke(&[&["exec"], flags, &[&self.id], words].concat())
    }

    /// Kills and deletes it, as part of a check.
    pub(super) fn end(&self) -> Outcome {
        let pid = self.pid()?;
        self.kill("KILL")?.must_succeed()?;
        self.wait_until_stopped(pid)?;
        self.delete(&[])?.must_succeed().map(drop)
    }

    /// The directory of its cgroup of `controller`.
    pub(super) fn cgroup(&self, controller: &str) -> Outcome<PathBuf> {
        let directory = self.context.hierarchies.of_process(self.pid()?, controller);
        directory.ok_or_else(|| not_offered(format_args!("a hierarchy of cgroups with {controller} on this machine")))
    }
}

/// The processes that any thread of a process has started.
fn children_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>()).collect()
}
