//! What the checks share: the runtime, a place for bundles, a transcript, and the removal of what was made.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, getegid, geteuid, kill_process};

use super::bundle::{Bundle, cgroups_path, make_directory, make_template};
use super::command::{End, Output, Started, Step, start};
use super::container::Container;
use super::finding::{Finding, Outcome, here, not_offered};
use super::machine::{Hierarchies, mounts_below};
use super::typical;
use crate::limits::{SHOWN_STEPS_LIMIT, STEP_TIMEOUT};

/// One run against one runtime.
#[derive(Debug)]
pub struct Context {
    program: PathBuf,
    /// Where everything made here is.
    work: PathBuf,
    /// Part of every name.
    run: String,
    /// Flags before the verb.
    globals: Vec<String>,
    pub(super) hierarchies: Hierarchies,
    /// What each verb says of itself; empty when there is none of that name.
    help: RefCell<BTreeMap<String, String>>,
    /// The version of the specification the runtime claims.
    version: Option<(u32, u32)>,
    counter: Cell<u32>,
    transcript: RefCell<Vec<String>>,
    /// Containers that may exist.
    containers: RefCell<Vec<String>>,
    /// Commands in the background.
    background: RefCell<Vec<Started>>,
}

impl Context {
    /// A run against `program`, with root filesystems made of `rootfs` or of busybox.
    pub(super) fn new(program: &Path, rootfs: Option<&Path>) -> anyhow::Result<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let run = format!("rconform-{:x}{:x}", since_epoch.as_nanos() & 0xff_ffff_ffff, std::process::id());
        let work = std::env::temp_dir().join(&run);
        make_directory(&work).with_context(|| format!("make the directory {}", work.display()))?;
        let mut context = Self {
            program: program.to_owned(),
            work,
            run,
            globals: Vec::new(),
            hierarchies: Hierarchies::here().context("read /proc/self/mountinfo")?,
            help: RefCell::default(),
            version: None,
            counter: Cell::new(0),
            transcript: RefCell::default(),
            containers: RefCell::default(),
            background: RefCell::default(),
        };
        let prepared = context.prepare(rootfs);
        if prepared.is_err() {
            let _ = fs::remove_dir_all(&context.work);
        }
        prepared.map(|()| context)
    }

    fn prepare(&mut self, rootfs: Option<&Path>) -> anyhow::Result<()> {
        make_template(&self.work.join("template"), rootfs)?;
        let version = match self.execute(&["--version"], None) {
            Ok(step) => step,
            Err(finding) => bail!("cannot run {}: {finding:?}; is it a program?", self.program.display()),
        };
        self.version = version.stdout.lines().find_map(|line| version_of(line.strip_prefix("spec: ")?));
        // Containers of this run alone are in a directory of their own, where the runtime can be told one.
        let root = format!("{}/state", self.work.display());
        let told = self.execute(&["--root", &root, "--version"], None);
        if told.is_ok_and(|step| step.end == End::Code(0)) {
            self.globals = vec!["--root".into(), root];
        }
        self.forget_steps();
        Ok(())
    }

    /// A name never used before.
    pub(super) fn fresh_name(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("{}-{}", self.run, self.counter.get())
    }

    /// A path never used before, below a directory that is removed at the end.
    pub(super) fn fresh_path(&self) -> PathBuf {
        self.work.join(self.fresh_name())
    }

    /// A bundle with the typical configuration.
    pub(super) fn bundle(&self) -> Outcome<Bundle> {
        let id = self.fresh_name();
        let mut config = typical::config();
        if self.is_root() {
            config["linux"]["cgroupsPath"] = cgroups_path(&id).into();
        } else {
            typical::make_rootless(&mut config, geteuid().as_raw(), getegid().as_raw());
        }
        let directory = self.work.join(&id);
        here(Bundle::new(id, directory, &self.work.join("template"), config), "make a bundle")
    }

    /// Whether the judge, and so the runtime, is root.
    pub(super) fn is_root(&self) -> bool {
        geteuid().is_root()
    }

    pub(super) fn need_root(&self, what: &str) -> Outcome {
        if self.is_root() { Ok(()) } else { Err(not_offered(format_args!("{what}: that takes root"))) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.globals).args(arguments);
        command
    }

    fn begin(&self, command: Command, stdin: Option<&[u8]>) -> Outcome<Started> {
        let output = Output::at(&self.fresh_path());
        let attempt = format!("start {}", self.program.display());
        here(start(command, stdin, output), attempt)
    }

    fn execute(&self, arguments: &[&str], stdin: Option<&[u8]>) -> Outcome<Step> {
        self.conclude(self.begin(self.command(arguments), stdin)?)
    }

    fn conclude(&self, started: Started) -> Outcome<Step> {
        let step = here(started.finish(STEP_TIMEOUT), "wait for a command")?;
        self.note(step.to_string());
        Ok(step)
    }

    pub(super) fn note(&self, text: String) {
        self.transcript.borrow_mut().push(text);
    }

    /// Runs the runtime with `arguments` and waits for it.
    pub(super) fn invoke(&self, arguments: &[&str]) -> Outcome<Step> {
        self.execute(arguments, None)
    }

    /// The same with more flags before the verb, in a directory.
    pub(super) fn invoke_with(&self, globals: &[&str], directory: &Path, arguments: &[&str]) -> Outcome<Step> {
        let mut command = Command::new(&self.program);
        command.args(&self.globals).args(globals).args(arguments).current_dir(directory);
        self.conclude(self.begin(command, None)?)
    }

    fn help(&self, verb: &str) -> String {
        if let Some(known) = self.help.borrow().get(verb) {
            return known.clone();
        }
        let words: &[&str] = if verb.is_empty() { &["--help"] } else { &[verb, "--help"] };
        let asked = self.execute(words, None);
        // What is asked once for all checks is no step of one of them.
        self.transcript.borrow_mut().pop();
        let text = match asked {
            Ok(step) if step.end == End::Code(0) => format!("{}{} ", step.stdout, step.stderr),
            _ => String::new(),
        };
        self.help.borrow_mut().insert(verb.to_owned(), text.clone());
        text
    }

    /// Whether the runtime has a verb.
    pub(super) fn offers(&self, verb: &str) -> bool {
        !self.help(verb).is_empty()
    }

    /// Not offered unless the runtime has all of these verbs.
    pub(super) fn need(&self, verbs: &[&str]) -> Outcome {
        verbs.iter().try_for_each(
            |verb| {
                if self.offers(verb) { Ok(()) } else { Err(not_offered(format_args!("the verb {verb}"))) }
            },
        )
    }

    /// Not offered unless the verb (or, for "", the command itself) knows a flag.
    pub(super) fn need_flag(&self, verb: &str, flag: &str) -> Outcome {
        let help = self.help(verb);
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        let known = help.match_indices(flag).any(|(at, _)| ends(&help[at + flag.len()..]));
        if known { Ok(()) } else { Err(not_offered(format_args!("the flag {flag} {verb}"))) }
    }

    /// What a version of the specification later than the bundles' added: a runtime that does not claim
    /// this version, and does nothing, does not offer it.
    pub(super) fn must_since(&self, version: (u32, u32), held: bool, expected: &str) -> Outcome {
        match self.version {
            _ if held => Ok(()),
            Some(claimed) if claimed >= version => Err(Finding::Fail(expected.to_owned())),
            _ => Err(not_offered(format_args!("{expected}: it came with version {}.{}", version.0, version.1))),
        }
    }

    /// Runs a bundle in the foreground.
    pub(super) fn run(&self, bundle: &Bundle) -> Outcome<Step> {
        self.run_with(bundle, &[], None)
    }

    /// The same with more flags and something to read.
    pub(super) fn run_with(&self, bundle: &Bundle, flags: &[&str], stdin: Option<&[u8]>) -> Outcome<Step> {
        self.need(&["run"])?;
        self.conclude(self.begin_run(bundle, flags, stdin)?).inspect(|step| {
            if step.end != End::TimedOut && !flags.contains(&"--detach") {
                self.is_gone(&bundle.id);
            }
        })
    }

    fn begin_run(&self, bundle: &Bundle, flags: &[&str], stdin: Option<&[u8]>) -> Outcome<Started> {
        bundle.write()?;
        self.note(bundle.edits());
        self.may_exist(&bundle.id);
        let directory = bundle.directory.to_string_lossy();
        let words = [&["run"], flags, &["--bundle", &directory, &bundle.id]].concat();
        self.begin(self.command(&words), stdin)
    }

    /// Runs a script in a container that is otherwise typical.
    pub(super) fn run_script(&self, script: &str) -> Outcome<Step> {
        self.run(&self.bundle()?.script(script))
    }

    /// `create`, whatever comes of it.
    pub(super) fn try_create<'a>(&'a self, bundle: &Bundle, flags: &[&str]) -> Outcome<(Container<'a>, Step)> {
        self.need(&["create", "start", "state", "kill", "delete"])?;
        bundle.write()?;
        self.note(bundle.edits());
        self.may_exist(&bundle.id);
        let directory = bundle.directory.to_string_lossy();
        let started = self.begin(self.command(&[&["create"], flags, &["--bundle", &directory, &bundle.id]].concat()), None)?;
        let output = started.output().clone();
        let step = self.conclude(started)?;
        Ok((Container::new(self, bundle, output, None), step))
    }

    /// A container that is created and not started.
    pub(super) fn create<'a>(&'a self, bundle: &Bundle) -> Outcome<Container<'a>> {
        let (container, step) = self.try_create(bundle, &[])?;
        step.must_succeed()?;
        Ok(container)
    }

    /// A container whose script has said `ready`: by `create` and `start`, or by `run` where there is no more.
    pub(super) fn running<'a>(&'a self, bundle: &Bundle) -> Outcome<Container<'a>> {
        let container = if self.offers("create") {
            let container = self.create(bundle)?;
            container.start()?.must_succeed()?;
            container
        } else {
            self.run_behind(bundle)?
        };
        container.wait_for_line("ready")?;
        Ok(container)
    }

    /// `run` in the background.
    pub(super) fn run_behind<'a>(&'a self, bundle: &Bundle) -> Outcome<Container<'a>> {
        self.need(&["run"])?;
        let started = self.begin_run(bundle, &[], None)?;
        self.note(format!("$ {} &\n", started.line()));
        let container = Container::new(self, bundle, started.output().clone(), Some(started.pid()));
        self.background.borrow_mut().push(started);
        Ok(container)
    }

    /// Waits for the `run` in the background that was begun last.
    pub(super) fn finish_run(&self) -> Outcome<Step> {
        let last = self.background.borrow_mut().pop();
        last.map_or_else(|| Err(not_offered("nothing runs in the background")), |started| self.conclude(started))
    }

    /// Sends a signal to the `run` in the background that was begun last.
    pub(super) fn signal_run(&self, signal: Signal) -> Outcome {
        let pid = self.background.borrow().last().and_then(|started| Pid::from_raw(started.pid().cast_signed()));
        let sent = pid.map(|pid| kill_process(pid, signal).map_err(Into::into));
        sent.map_or_else(|| Err(not_offered("nothing runs in the background")), |sent| here(sent, "send a signal"))
    }

    pub(super) fn may_exist(&self, id: &str) {
        self.containers.borrow_mut().push(id.to_owned());
    }

    pub(super) fn is_gone(&self, id: &str) {
        self.containers.borrow_mut().retain(|other| other != id);
    }

    /// The steps of the check that failed.
    pub(super) fn steps(&self) -> String {
        let steps = self.transcript.borrow();
        let from = steps.len().saturating_sub(SHOWN_STEPS_LIMIT);
        steps[from..].concat()
    }

    pub(super) fn forget_steps(&self) {
        self.transcript.take();
    }

    /// Ends and removes what the last check made.
    pub(super) fn clean(&self) {
        for mut started in self.background.take() {
            started.kill();
        }
        if self.offers("delete") {
            for id in self.containers.take() {
                let _ = self.execute(&["delete", "--force", &id], None);
            }
        }
        self.forget_steps();
    }

    /// Removes everything; what could not be removed.
    pub(super) fn clean_up(self) -> Vec<String> {
        self.clean();
        let mut left = Vec::new();
        if self.offers("list") {
            let listed = self.execute(&["list", "-q"], None).map(|step| step.stdout).unwrap_or_default();
            for id in listed.split_whitespace().filter(|id| id.starts_with(&self.run)) {
                let removed = self.execute(&["delete", "--force", id], None);
                if !removed.is_ok_and(|step| step.end == End::Code(0)) {
                    left.push(format!("container {id}"));
                }
            }
        }
        left.extend(self.hierarchies.remove(&self.run));
        for place in mounts_below(&self.work).unwrap_or_default() {
            let _ = rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH);
        }
        // Below a mount that stays there may be the host's own files.
        match mounts_below(&self.work).as_deref() {
            Ok([]) => {
                if let Err(error) = fs::remove_dir_all(&self.work) {
                    left.push(format!("directory {}: {error}", self.work.display()));
                }
            }
            Ok(mounts) => left.extend(mounts.iter().map(|place| format!("mount {}", place.display()))),
            Err(error) => left.push(format!("directory {}: {error}", self.work.display())),
        }
        left
    }
}

/// `1.2` of `1.2.0+dev`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_what_follows_them() {
        assert_eq!(version_of("1.0.2-dev"), Some((1, 0)));
        assert_eq!(version_of(" 1.2.1+x"), Some((1, 2)));
        assert_eq!(version_of("one"), None);
    }
}
