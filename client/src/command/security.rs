//! `--security-opt` of `rrun` and `rbox create`.

use longshore_runtime::files::read_bounded;
use longshore_runtime::spec::{RunOptions, Seccomp};

/// The longest seccomp profile read, in bytes.
const PROFILE_LIMIT_BYTES: u64 = 1 << 20;

/// What is to be other than usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecurityOption {
    NoNewPrivileges(bool),
    Seccomp(Seccomp),
    /// What is so here in any case.
    Nothing,
}

impl SecurityOption {
    /// As docker writes it, with an equals sign or, of old, a colon.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(['=', ':']).map_or((text, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", Some("unconfined")) => Ok(Self::Seccomp(Seccomp::Unconfined)),
            ("seccomp", Some("builtin")) => Ok(Self::Seccomp(Seccomp::Builtin)),
            ("seccomp", Some(path)) => profile(path).map(Self::Seccomp),
            // There is no such profile and no such label on anything here.
            ("apparmor", Some("unconfined")) | ("label", Some("disable")) => Ok(Self::Nothing),
            ("apparmor" | "label", _) => {
                Err("containers have no AppArmor profile and no SELinux label here: leave it out".into())
            }
            _ => Err("it is no-new-privileges, seccomp=unconfined, seccomp=builtin or seccomp=FILE".into()),
        }
    }

    pub(super) fn apply(self, options: &mut RunOptions) {
        match self {
            Self::NoNewPrivileges(wanted) => options.no_new_privileges = wanted,
            Self::Seccomp(seccomp) => options.seccomp = seccomp,
            Self::Nothing => {}
        }
    }
}

fn profile(path: &str) -> Result<Seccomp, String> {
    let bytes = read_bounded(path.as_ref(), PROFILE_LIMIT_BYTES).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?;
    Seccomp::profile(text).map_err(|e| format!("{path}: {e}"))
}

/// As `inspect` shows it.
pub(super) fn described(options: &RunOptions) -> Vec<String> {
    let seccomp = match &options.seccomp {
        Seccomp::Builtin => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(text) => Some(format!("seccomp={text}")),
    };
    options.no_new_privileges.then(|| "no-new-privileges".to_owned()).into_iter().chain(seccomp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_dockers_and_what_is_not_enforced_is_refused() {
        use SecurityOption::{NoNewPrivileges, Nothing};
        for (text, expected) in [
            ("no-new-privileges", NoNewPrivileges(true)),
            ("no-new-privileges:false", NoNewPrivileges(false)),
            ("seccomp=unconfined", SecurityOption::Seccomp(Seccomp::Unconfined)),
            ("seccomp:builtin", SecurityOption::Seccomp(Seccomp::Builtin)),
            ("apparmor=unconfined", Nothing),
            ("label=disable", Nothing),
        ] {
            assert_eq!(SecurityOption::parse(text), Ok(expected), "{text}");
        }
        for bad in ["", "seccomp", "seccomp=/nowhere", "apparmor=mine", "label=type:x_t", "no-new-privileges=maybe", "x=y"] {
            assert!(SecurityOption::parse(bad).is_err(), "{bad}");
        }
    }
}
