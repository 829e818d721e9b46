//! What keeps this machine, or a registry, from working, found out before anything is asked of them: each check says what
//! it found and what to do.
//!
//! Nothing is changed but a file that is made in the store and goes at once.

mod machine;
mod registry;

use std::path::Path;

pub use self::machine::machine;
pub use self::registry::registry;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Ok,
    /// Something will not work, or not for long.
    Warn,
    /// Nothing will work.
    Fail,
}

impl Verdict {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if all is well.
    pub advice: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), advice: advice.into() }
    }
}

/// Whether a program is in one of the directories where programs are.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
    std::env::split_paths(&path).chain(usual).any(|directory: std::path::PathBuf| directory.join(program).is_file())
}

/// A small file of the kernel's or the machine's, if it can be read.
fn read(path: impl AsRef<Path>) -> Option<String> {
    /// The longest one.
    const LIMIT_BYTES: u64 = 4 << 20;
    String::from_utf8(longshore_runtime::files::read_bounded(path.as_ref(), LIMIT_BYTES).ok()?).ok()
}
