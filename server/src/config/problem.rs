//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Line and column count from 1, columns in characters.
    File { path: PathBuf, line: usize, column: usize },
    /// A variable, a flag, a key, a file as a whole.
    Named(String),
}

impl Problem {
    /// A problem of the text of a file, at a byte of it.
    pub(super) fn in_file(path: &Path, text: &str, offset: usize, why: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { place: Place::File { path: path.to_owned(), line, column }, why }
    }

    /// A problem of whatever carries this name.
    pub(super) fn of(name: impl Into<String>, why: String) -> Self {
        Self { place: Place::Named(name.into()), why }
    }

    /// A problem of a key, wherever it was set.
    pub fn of_key(key: &str, why: impl Into<String>) -> Self {
        Self::of(key, why.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}: {}", path.display(), self.why),
            Place::Named(name) => write!(f, "{name}: {}", self.why),
        }
    }
}

/// Everything that is wrong, never nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not usable")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
