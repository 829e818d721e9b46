//! `rbox completion` and `rbox system generate-man`: what shells and `man` know of these programs, made of their flags.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use longshore_runtime::Error;

use super::{Rbox, Short, print, pull, push, run};
use crate::error::Result;

/// Print a script that completes what is typed, for a shell
///
/// For bash, once the package bash-completion is installed:
///   rbox completion bash > /etc/bash_completion.d/rbox
/// For zsh, in ~/.zshrc:
///   source <(rbox completion zsh)
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Completion {
    /// Whose
    shell: Shell,
}

/// Write manual pages of all programs and verbs
///
///   rbox system generate-man /usr/local/share/man/man1
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GenerateMan {
    /// Where to
    directory: PathBuf,
}

/// The programs of this crate, as they are called.
fn programs() -> [clap::Command; 4] {
    [
        Rbox::command().name("rbox"),
        Short::<pull::Pull>::command().name("rpull"),
        Short::<push::Push>::command().name("rpush"),
        Short::<run::Run>::command().name("rrun"),
    ]
}

impl Completion {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let mut script = Vec::new();
        for mut command in programs() {
            let name = command.get_name().to_owned();
            clap_complete::generate(self.shell, &mut command, name, &mut script);
        }
        print(|out| std::io::Write::write_all(out, &script))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl GenerateMan {
    pub(super) fn execute(self) -> Result<ExitCode> {
        std::fs::create_dir_all(&self.directory)
            .map_err(|e| Error::io(format!("create directory {}", self.directory.display()), e))?;
        let failed = |e| Error::io(format!("write manual pages to {}", self.directory.display()), e);
        programs().into_iter().try_for_each(|command| clap_mangen::generate_to(command, &self.directory)).map_err(failed)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent_and_every_program_and_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        programs().into_iter().for_each(clap::Command::debug_assert);
        GenerateMan { directory: directory.path().join("man1") }.execute().unwrap();
        for page in ["rpull", "rpush", "rrun", "rbox", "rbox-run", "rbox-network-create"] {
            let text = std::fs::read_to_string(directory.path().join(format!("man1/{page}.1"))).unwrap();
            assert!(text.contains(".SH DESCRIPTION"), "{page}: {text}");
        }
    }
}
