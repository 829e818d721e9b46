//! `rbox cp`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::{CopyOptions, Files, Side, copy};

use super::Global;
use crate::error::Result;
use crate::stderr::say;
use crate::text;

/// Copy files between a container and this machine
///
/// CONTAINER:PATH is a path in a container, whether it runs or not; a path of this machine with a colon in it begins
/// with / or `.`. With - a tar stream is read from standard input or written to standard output. DIR/. is what is in
/// a directory; a directory that is not there is made, one that is there gets the source in it.
#[derive(Debug, Args)]
pub(super) struct Cp {
    /// Keep owners and groups, else what is made in a container belongs to its root, and here to you; and here keep
    /// set-id bits, capabilities and device nodes
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link as the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
    /// What to copy
    #[arg(value_name = "[CONTAINER:]SOURCE|-")]
    source: String,
    /// Where to
    #[arg(value_name = "[CONTAINER:]TARGET|-")]
    target: String,
}

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named<'a> {
    Host(&'a str),
    Container(&'a str, &'a str),
    Stream,
}

impl<'a> Named<'a> {
    /// docker's rule: what begins with a slash or a dot is no container.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((container, path)) if !text.starts_with(['/', '.']) => Self::Container(container, path),
            _ => Self::Host(text),
        }
    }

    fn side(self, files: &'a Files) -> Side<'a> {
        match self {
            Self::Host(path) => Side::Host(path),
            Self::Container(_, path) => Side::Container(files, path),
            Self::Stream => Side::Stream,
        }
    }
}

impl Cp {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let (from, to) = (Named::parse(&self.source), Named::parse(&self.target));
        let name = match (from, to) {
            (Named::Container(..), Named::Container(..)) => {
                return Err(
                    Error::invalid("copy", "copying between containers is not supported; copy to this machine first").into()
                );
            }
            (Named::Container(name, _), _) | (_, Named::Container(name, _)) => name,
            _ => return Err(Error::invalid("copy", "one of the two must be CONTAINER:PATH").into()),
        };
        let containers = global.containers()?;
        let files = containers.files(&containers.get(name)?)?;
        let options = CopyOptions { archive: self.archive, follow_link: self.follow_link };
        let bytes = copy(&from.side(&files), &to.side(&files), options)?;
        if !self.quiet && to != Named::Stream {
            say(format_args!("Successfully copied {} to {}", text::size(bytes), text::printable(&self.target)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_what_is_no_path_before_a_colon() {
        for (text, named) in [
            ("web:/etc", Named::Container("web", "/etc")),
            ("web:", Named::Container("web", "")),
            ("web:a:b", Named::Container("web", "a:b")),
            ("-", Named::Stream),
            ("./web:x", Named::Host("./web:x")),
            ("/web:x", Named::Host("/web:x")),
            ("plain", Named::Host("plain")),
        ] {
            assert_eq!(Named::parse(text), named);
        }
    }
}
