//! The verbs, one file each: flags in, one library call, lines out.
//!
//! `rbox VERB` has them all; `rpull`, `rpush` and `rrun` are its three daily verbs by short names.

mod attach;
mod attach_artifact;
mod boot;
mod cat;
mod check;
mod copy;
mod cp;
mod create;
mod delete;
mod diff;
mod digest;
mod doctor;
mod documents;
mod events;
mod exec;
mod explicit_credentials;
mod format;
mod history;
mod images;
mod images_filter;
mod info;
mod inspect;
mod inspect_container;
mod inspect_host;
mod inspect_network;
mod isolation;
mod kill;
mod label;
mod life;
mod limits;
mod load;
mod login;
mod logout;
mod logs;
mod manifest;
mod manifest_inspect;
mod mount_flags;
mod network;
mod network_flags;
mod pause;
mod places;
mod port;
mod prune;
mod ps;
mod ps_filter;
mod pull;
mod push;
mod rate_limit;
mod referrers;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod security;
mod start;
mod stats;
mod stop;
mod sync;
mod system;
mod tag;
mod tags;
mod top;
mod update;
mod verbs;
mod volume;
mod wait;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use longshore_runtime::container::{self, Containers};
use longshore_runtime::download;
use longshore_runtime::userns::{self, Mapping};
use longshore_runtime::{Store, unpack};

use crate::error::Result;
use crate::stderr::say;
use crate::text::printable;

/// What every verb takes.
#[derive(Debug, Args)]
struct Global {
    /// The image store [default: $LONGSHORE_ROOT, /var/lib/longshore for root, ~/.local/share/longshore for users]
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
}

impl Global {
    /// The store, for looking things up.
    fn store(&self) -> Result<Store> {
        let root = self.root.clone().map_or_else(Store::default_root, Ok)?;
        Ok(Store::open(root)?)
    }

    /// The containers, for looking at them and for what needs no user namespace.
    fn containers(&self) -> Result<Containers> {
        Ok(Containers::open(&self.store()?)?)
    }

    /// The store, for changing layers or running containers: an ordinary user enters a user namespace
    /// first, so that everything behind this line is one code path for both.
    ///
    /// Must be called before the first thread is started.
    fn own_store(&self) -> Result<Own> {
        let root = self.root.clone().map_or_else(Store::default_root, Ok)?;
        let rootless = if rustix::process::geteuid().is_root() { None } else { Some(userns::enter_shared(&root)?) };
        Ok(Own { store: Store::open(root)?, unpack: unpack::Options::within(rootless), rootless })
    }
}

/// Does `each` for all, whatever becomes of the others, and prints what it gives; as docker does.
fn for_each<T>(list: impl IntoIterator<Item = T>, mut each: impl FnMut(T) -> Result<String>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for item in list {
        match each(item) {
            Ok(line) => print(|out| writeln!(out, "{line}"))?,
            Err(e) => {
                say(format_args!("rbox: {}", printable(&e.to_string())));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The store, opened to be changed.
struct Own {
    store: Store,
    /// How layers are written here.
    unpack: unpack::Options,
    /// The user namespace this process is in now, if it is not root's.
    rootless: Option<Mapping>,
}

/// Images and containers without a daemon.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Rbox {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    OfImage(verbs::OfImage),
    #[command(flatten)]
    OfContainer(verbs::OfContainer),
    #[command(flatten)]
    OfRegistry(verbs::OfRegistry),
    Ps(ps::Ps),
    Events(events::Events),
    Images(images::Images),
    Rmi(rmi::Rmi),
    Copy(Box<copy::Copy>),
    Sync(Box<sync::Sync>),
    Completion(documents::Completion),
    Login(login::Login),
    Logout(logout::Logout),
    Inspect(inspect::Inspect),
    Network(network::Network),
    Container(verbs::Container),
    Image(verbs::Image),
    System(system::System),
    Volume(volume::Volume),
    Info(info::Info),
    Version(info::Version),
}

// A verb by its own name. Its help begins with what the verb says of itself: a doc comment would win.
#[derive(Debug, Parser)]
#[command(version)]
struct Short<V: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    verb: V,
}

/// `rbox`
pub fn rbox() -> ExitCode {
    if let Some(code) = container::enter_monitor() {
        return ExitCode::from(code);
    }
    program("rbox", None, |Rbox { global, verb }| match verb {
        Verb::OfImage(verb) => verb.execute(&global),
        Verb::OfContainer(verb) => verb.execute(&global),
        Verb::OfRegistry(verb) => verb.execute(&global),
        Verb::Ps(verb) => verb.execute(&global),
        Verb::Events(verb) => verb.execute(&global),
        Verb::Images(verb) => verb.execute(&global),
        Verb::Rmi(verb) => verb.execute(&global),
        Verb::Copy(verb) => verb.execute(&global),
        Verb::Sync(verb) => verb.execute(),
        Verb::Completion(verb) => verb.execute(),
        Verb::Login(verb) => verb.execute(),
        Verb::Logout(verb) => verb.execute(),
        Verb::Inspect(verb) => verb.execute(&global),
        Verb::Network(verb) => verb.execute(&global),
        Verb::Container(verb) => verb.execute(&global),
        Verb::Image(verb) => verb.execute(&global),
        Verb::System(verb) => verb.execute(&global),
        Verb::Volume(verb) => verb.execute(&global),
        Verb::Info(verb) => verb.execute(&global),
        Verb::Version(verb) => verb.execute(),
    })
}

/// `rpull`, which is `rbox pull`
pub fn rpull() -> ExitCode {
    program("rpull", Some("pull"), |Short::<pull::Pull> { global, verb }| verb.execute(&global))
}

/// `rpush`, which is `rbox push`
pub fn rpush() -> ExitCode {
    program("rpush", Some("push"), |Short::<push::Push> { global, verb }| verb.execute(&global))
}

/// `rrun`, which is `rbox run`
pub fn rrun() -> ExitCode {
    if let Some(code) = container::enter_monitor() {
        return ExitCode::from(code);
    }
    program("rrun", Some("run"), |Short::<run::Run> { global, verb }| verb.execute(&global))
}

/// The one place where a command line becomes a verb, and an error a message and an exit code. `verb` is the one that
/// the program is another name of.
fn program<P: Parser>(name: &'static str, verb: Option<&str>, execute: impl FnOnce(P) -> Result<ExitCode>) -> ExitCode {
    download::prepare();
    let words = std::env::args_os().skip(1);
    let launches = verb.map_or_else(|| launches(words), |verb| LAUNCHING.contains(&verb));
    let parsed = P::command().name(name).try_get_matches().and_then(|matches| P::from_arg_matches(&matches));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            // Nothing is left to do if the stream is closed.
            let _ = e.print();
            return ExitCode::from(if launches && e.use_stderr() { 125 } else { e.exit_code() as u8 });
        }
    };
    let code = execute(parsed).unwrap_or_else(|e| {
        say(format_args!("{name}: {}", printable(&e.to_string())));
        ExitCode::from(e.exit_code(launches))
    });
    userns::leave();
    code
}

/// The verbs whose failures must not be taken for the container's own 1 and 2.
const LAUNCHING: [&str; 3] = ["create", "exec", "run"];

/// Whether the verb of a command line, which may be wrong otherwise, is one of these: the first word that is no option,
/// or the one behind `container`.
fn launches(words: impl IntoIterator<Item = OsString>) -> bool {
    let mut words = words.into_iter();
    let mut verb = || loop {
        let word = words.next()?;
        if word == "--root" {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            return Some(word);
        }
    };
    let first = verb();
    let verb = if first.as_ref().is_some_and(|word| word == "container") { verb() } else { first };
    verb.is_some_and(|verb| LAUNCHING.iter().any(|launching| verb == *launching))
}

/// Prints to standard output; a reader that closed its end early has what it wanted.
fn print(write: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'static>>) -> io::Result<()>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(longshore_runtime::Error::io("write to standard output", e).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_is_what_the_verb_says_and_no_word_behind_it() {
        let launches = |line: &str| launches(line.split(' ').map(OsString::from));
        for line in
            ["run", "run --bad", "--root run create x", "container exec -it", "--root=x container --root y run", "--bad exec"]
        {
            assert!(launches(line), "{line}");
        }
        for line in
            ["", "ps run", "volume create a", "network create", "container ls run", "--root run ps", "image run", "rm exec"]
        {
            assert!(!launches(line), "{line}");
        }
    }
}
