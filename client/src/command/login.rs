//! `rbox login`

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::DEFAULT_REGISTRY;
use longshore_runtime::{Error, name};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::print;
use crate::config::{Place, Registries};
use crate::credentials::{self, Credentials};
use crate::error::Result;
use crate::registry;
use crate::stderr::{say, say_part};

/// The longest password, in bytes; access tokens are some thousand.
const PASSWORD_LIMIT_BYTES: u64 = 64 << 10;

/// Log in to a registry
///
/// The credentials are kept where docker and podman find them, too: by the credential helper that their file names, else
/// in that file. Where registries.toml says who keeps them, that does.
#[derive(Debug, Args)]
pub(super) struct Login {
    /// The user's name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password or access token; others on this machine can see it: better --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// HOST[:PORT]
    #[arg(value_name = "REGISTRY", value_parser = parse_registry, default_value = DEFAULT_REGISTRY)]
    registry: String,
}

/// A registry as people write it when they log in, which may be an URL.
pub(super) fn parse_registry(text: &str) -> std::result::Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = host.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    if matches!(host, "index.docker.io" | "registry-1.docker.io") {
        return Ok(DEFAULT_REGISTRY.into());
    }
    // A host is good if it can stand in a reference.
    let reference = format!("{host}/a/b").parse::<name::Reference>().map_err(|e| e.to_string())?;
    if reference.registry() == host { Ok(host.into()) } else { Err("HOST or HOST:PORT".into()) }
}

impl Login {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let registries = Registries::load()?;
        let place = registries.registry(&self.registry)?;
        if self.username.is_none() && self.password.is_none() && self.known(&registries, &place)? {
            return Ok(ExitCode::SUCCESS);
        }
        if self.password.is_some() {
            say("WARNING! A password on the command line can be seen by others. Use --password-stdin.");
        }
        let user = self.username.map_or_else(|| ask("Username: ", false), Ok)?;
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin => from_stdin()?,
            None => ask("Password: ", true)?,
        };
        if user.is_empty() || password.is_empty() {
            return Err(Error::invalid("log in", "a user name and a password are needed").into());
        }
        let credentials = Credentials::Basic { user, password };
        registry::log_in(&registries, &self.registry, &credentials)?;
        // Under the name by which pulls will look for them.
        let (account, keeper) = place.account();
        let kept = credentials::store(account, &credentials, keeper)?;
        if account != self.registry {
            say(format_args!("The images of {} are at {account}: the credentials are kept for that.", self.registry));
        }
        if kept.in_the_clear {
            say(format_args!("WARNING! Your credentials are stored unencrypted in '{}'.", kept.path.display()));
        }
        print(|out| writeln!(out, "Login Succeeded"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Whether what is kept already still does.
    fn known(&self, registries: &Registries, place: &Place) -> Result<bool> {
        let (account, keeper) = place.account();
        let found = credentials::look_up(account, "", keeper)?;
        let Some(credentials) = found.map(|found| found.credentials) else { return Ok(false) };
        say("Authenticating with existing credentials...");
        match registry::log_in(registries, &self.registry, &credentials) {
            Ok(()) => print(|out| writeln!(out, "Login Succeeded")).map(|()| true),
            Err(crate::Error::Denied { .. }) => {
                say("The existing credentials are not taken any more.");
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }
}

/// The whole of standard input, without the newline that `echo` puts there.
fn from_stdin() -> Result<String> {
    let attempted = "read the password from standard input";
    let mut text = String::new();
    io::stdin().take(PASSWORD_LIMIT_BYTES + 1).read_to_string(&mut text).map_err(|e| Error::io(attempted, e))?;
    if text.len() as u64 > PASSWORD_LIMIT_BYTES {
        return Err(Error::invalid(attempted, format_args!("it is longer than {PASSWORD_LIMIT_BYTES} bytes")).into());
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The password of a private key, from where cosign takes it, too.
pub(super) fn key_password() -> Result<String> {
    match std::env::var("COSIGN_PASSWORD") {
        Ok(password) => Ok(password),
        Err(_) => ask("Password of the private key: ", true),
    }
}

/// Asks on the terminal; what is typed is not shown if it is `secret`.
fn ask(question: &str, secret: bool) -> Result<String> {
    let stdin = io::stdin();
    let attempted = || format!("ask for {}", question.trim_end_matches([' ', ':']).to_lowercase());
    if !stdin.is_terminal() {
        let why = "there is no terminal: a login takes --username and --password-stdin, a key COSIGN_PASSWORD";
        return Err(Error::invalid(attempted(), why).into());
    }
    say_part(question);
    let shown = tcgetattr(&stdin).map_err(|e| Error::io(attempted(), e))?;
    if secret {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| Error::io(attempted(), e))?;
    }
    let mut line = String::new();
    let read = stdin.lock().take(PASSWORD_LIMIT_BYTES).read_line(&mut line);
    if secret {
        tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(|e| Error::io(attempted(), e))?;
        say("");
    }
    read.map_err(|e| Error::io(attempted(), e))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_written_in_several_ways() {
        for (text, registry) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://reg.example/", "reg.example"),
            ("https://reg.example:8443/v2/", "reg.example:8443"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(parse_registry(text).as_deref(), Ok(registry));
        }
        for bad in ["", "reg.example/team", "a b", "user@reg.example", "https://"] {
            assert!(parse_registry(bad).is_err(), "{bad}");
        }
    }
}
