//! `rbox system boot` and `rbox system generate-systemd`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::Containers;
use longshore_runtime::{Error, Store};

use super::{Global, Own, for_each, print};
use crate::error::Result;

/// Start the containers whose restart policy wants them to run
///
/// What the unit that `rbox system generate-systemd` prints does when the machine starts: always; unless-stopped, if they
/// were not stopped; on-failure, if they failed.
#[derive(Debug, Args)]
pub(super) struct Boot {}

/// Print a systemd unit that starts containers by their restart policies when the machine starts
///
/// One for all containers of this store. As root:
///   rbox system generate-systemd > /etc/systemd/system/longshore.service && systemctl enable longshore
/// As an ordinary user:
///   rbox system generate-systemd > ~/.config/systemd/user/longshore.service
///   systemctl --user enable longshore && loginctl enable-linger
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GenerateSystemd {}

impl Boot {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let wanted = global.containers()?.to_be_started()?;
        if wanted.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let Own { store, rootless, .. } = global.own_store()?;
        let containers = Containers::open(&store)?;
        for_each(wanted, |config| {
            containers.start(&config.id, rootless, false)?;
            Ok(config.name)
        })
    }
}

impl GenerateSystemd {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let program = std::env::current_exe().map_err(|e| Error::io("find this program's path", e))?;
        let default = Store::default_root().ok();
        let store = global.store()?;
        let root = rustix::process::geteuid().is_root();
        // A store that is found without being named need not be named.
        let named =
            (std::env::var_os("LONGSHORE_ROOT").is_some() || default.as_deref() != Some(store.root())).then(|| store.root());
        let text = unit(&program, named, root)?;
        print(|out| out.write_all(text.as_bytes()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn unit(program: &Path, store: Option<&Path>, root: bool) -> Result<String> {
    let quoted = |path: &Path| -> Result<String> {
        let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
        let text = text.ok_or_else(|| Error::invalid(path.display(), "a unit cannot name it: it has control characters"))?;
        // systemd.syntax(7): backslashes and quotes are escaped, % and $ doubled.
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
        Ok(format!("\"{escaped}\""))
    };
    let store = store.map(|store| Ok::<_, crate::Error>(format!(" --root {}", quoted(store)?))).transpose()?.unwrap_or_default();
    let (after, target) = if root { ("network-online.target", "multi-user.target") } else { ("basic.target", "default.target") };
    let program = quoted(program)?;
    Ok(format!(
        "[Unit]
Description=Containers of Longshore that are to run by their restart policies
Documentation=man:systemd.service(5)
Wants={after}
After={after}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program}{store} system boot
# Containers and their monitors are no processes of this unit's: they go on when it is stopped.
KillMode=process
Delegate=yes

[Install]
WantedBy={target}
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_this_program_and_its_store_in_systemds_quotes() {
        let text = unit(Path::new("/opt/a b/rbox"), Some(Path::new("/srv/100%\"x\"")), true).unwrap();
        assert!(text.contains("ExecStart=\"/opt/a b/rbox\" --root \"/srv/100%%\\\"x\\\"\" system boot\n"), "{text}");
        assert!(text.contains("WantedBy=multi-user.target"));
        assert!(unit(Path::new("/rbox"), None, false).unwrap().contains("ExecStart=\"/rbox\" system boot\n"));
        assert!(unit(Path::new("/a\nExecStart=/evil"), None, true).is_err());
    }
}
