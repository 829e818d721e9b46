//! `rhub user`: who may log in. The registry takes a change up within a moment, without a restart.

use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use longshore_server::access::htpasswd::{add, check_user_name, list, remove, set_password};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use super::{Common, say};

/// The longest password read, in bytes; what is too long for bcrypt is refused by name later.
const READ_LIMIT_BYTES: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(subcommand)]
    verb: Verb,
    /// File of users and bcrypt hashes [default: access.htpasswd of the configuration].
    #[arg(long, value_name = "FILE", global = true)]
    htpasswd: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a user. Makes the file if there is none.
    Add(User),
    /// Give a user another password.
    Passwd(User),
    /// Remove a user.
    Rm {
        /// The user.
        name: String,
    },
    /// List the users.
    List,
}

#[derive(Debug, Args)]
struct User {
    /// The user.
    name: String,
    /// Read the password from standard input, to its end or the end of its first line.
    #[arg(long)]
    password_stdin: bool,
}

pub(super) fn run(common: &Common, flags: &Flags) -> anyhow::Result<()> {
    let path = htpasswd(common, flags)?;
    let file = path.display();
    match &flags.verb {
        Verb::Add(user) => {
            // Before anybody types a password for nothing.
            check_user_name(&user.name).map_err(|why| anyhow::anyhow!("user name {:?}: {why}", user.name))?;
            add(&path, &user.name, &user.password()?)?;
            say(&format!("added {} to {file}", user.name))
        }
        Verb::Passwd(user) => {
            set_password(&path, &user.name, &user.password()?)?;
            say(&format!("{} has another password in {file}", user.name))
        }
        Verb::Rm { name } => {
            remove(&path, name)?;
            say(&format!("removed {name} from {file}"))
        }
        Verb::List => list(&path)?.iter().try_for_each(|name| say(name)),
    }
}

fn htpasswd(common: &Common, flags: &Flags) -> anyhow::Result<PathBuf> {
    let own = flags.htpasswd.clone().map(|path| ("--htpasswd", "access.htpasswd", path));
    let config = common.load(own.into_iter().collect())?.config;
    let path = config.access.and_then(|access| access.htpasswd);
    path.context("no file of users is configured; set access.htpasswd, or name it with --htpasswd FILE")
}

impl User {
    fn password(&self) -> anyhow::Result<String> {
        if self.password_stdin {
            return first_line(std::io::stdin().lock());
        }
        if !isatty(std::io::stdin()) {
            bail!("there is no terminal to ask for the password; say --password-stdin to read it from standard input");
        }
        let password = ask(&format!("Password for {}: ", self.name))?;
        if ask("And again: ")? != password {
            bail!("the two passwords differ; nothing is changed");
        }
        Ok(password)
    }
}

fn first_line(input: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    input.take(READ_LIMIT_BYTES).read_to_string(&mut text).context("read the password from standard input")?;
    let line = text.split('\n').next().unwrap_or_default();
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Asks on the terminal, without an echo.
fn ask(prompt: &str) -> anyhow::Result<String> {
    let input = std::io::stdin();
    let _silent = Silent::begin(input.as_fd())?;
    let mut out = std::io::stderr();
    write!(out, "{prompt}").and_then(|()| out.flush()).context("write to the terminal")?;
    let typed = read_typed(input.lock());
    let _ = writeln!(out);
    typed
}

/// What is typed up to the end of the line. The terminal hands on every key: were it to end the
/// process at Ctrl-C, it would stay without an echo.
fn read_typed(input: impl BufRead) -> anyhow::Result<String> {
    let mut typed = Vec::new();
    for byte in input.bytes() {
        match byte.context("read from the terminal")? {
            b'\n' | b'\r' => return String::from_utf8(typed).context("the password is not UTF-8"),
            // Ctrl-C, Ctrl-D, Ctrl-\
            3 | 4 | 28 => break,
            // Backspace takes a character back, which may be several bytes.
            8 | 127 => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U
            21 => typed.clear(),
            _ if typed.len() as u64 >= READ_LIMIT_BYTES => bail!("the password is too long"),
            byte => typed.push(byte),
        }
    }
    bail!("interrupted; nothing is changed")
}

/// A terminal without echo, until this is dropped.
struct Silent<'a> {
    terminal: rustix::fd::BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(terminal: rustix::fd::BorrowedFd<'a>) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal).context("look at the terminal")?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(terminal, OptionalActions::Flush, &silent).context("turn off the terminal's echo")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // It was possible a moment ago.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_as_a_terminal_takes_them() {
        let typed = |keys: &str| read_typed(keys.as_bytes()).ok();
        assert_eq!(typed("secret\r").as_deref(), Some("secret"));
        assert_eq!(typed("sä\u{7f}ecret\n").as_deref(), Some("secret"));
        assert_eq!(typed("\u{7f}a\u{15}b\n").as_deref(), Some("b"));
        assert_eq!((typed("secret\u{3}\n"), typed("\u{4}"), typed("secret")), (None, None, None));
    }

    #[test]
    fn the_first_line_is_the_password() {
        let read = |text: &str| first_line(text.as_bytes()).unwrap();
        assert_eq!((read("a b\n"), read("a\r\nb"), read("a"), read("\n")), ("a b".into(), "a".into(), "a".into(), String::new()));
    }
}
