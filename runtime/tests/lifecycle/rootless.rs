//! All verbs by an ordinary user, on a container that user made.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use longshore_runtime::userns::Mapping;

use crate::bundle::{Bundle, ROCI, Run};
use crate::container::SERVICE;
use crate::needs::{installed, root};

/// The user the tests run as; no account of the host needs to exist.
const UID: u32 = 61_235;

/// A bundle of the user's own, and `script` with `$roci` run as that user in it.
fn as_user(bundle: &Bundle, subids: &str, script: &str) -> Run {
    let directory = bundle.directory.path();
    let own = |path: &std::path::Path| chown(path, Some(UID), Some(UID)).unwrap();
    own(directory);
    own(&bundle.root());
    for entry in fs::read_dir(bundle.root()).unwrap() {
        own(&entry.unwrap().path());
    }
    let roci = directory.join("roci");
    fs::copy(ROCI, &roci).unwrap();
    fs::set_permissions(&roci, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(directory.join("subids"), subids).unwrap();
    fs::write(directory.join("passwd"), format!("root:x:0:0::/:\ntester:x:{UID}:{UID}::/:\n")).unwrap();
    let runtime_directory = directory.join("xdg");
    fs::create_dir(&runtime_directory).unwrap();
    own(&runtime_directory);
    fs::set_permissions(&runtime_directory, PermissionsExt::from_mode(0o700)).unwrap();
    let enter = "mount --bind $1/passwd /etc/passwd && mount --bind $1/subids /etc/subuid && mount --bind $1/subids /etc/subgid && \
                 cd $1 && export XDG_RUNTIME_DIR=$1/xdg roci=$1/roci id=$3 && \
                 exec setpriv --reuid $2 --regid $2 --clear-groups sh -c \"$4\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", enter, "sh"]).arg(directory).arg(UID.to_string()).arg(&bundle.id).arg(script);
    Run::of(command.output().unwrap())
}

const LIFE: &str = "set -e
    $roci create --pid-file pid $id >out 2>err </dev/null
    $roci state $id | grep -c '\"status\": \"created\"'
    $roci start $id
    until grep -q up out; do sleep 0.02; done
    $roci list -q
    $roci exec $id sh -c 'id -u; hostname; touch /inside; echo hello' </dev/null
    ! $roci exec $id sh -c 'exit 7' || exit 1
    $roci kill $id TERM
    until $roci state $id | grep -q stopped; do sleep 0.02; done
    $roci delete $id
    $roci list -q
    $roci run -d $id >out 2>err </dev/null
    $roci delete --force $id
    ls xdg/roci";

#[test]
fn an_ordinary_user_has_every_verb_with_a_range_of_ids_and_without() {
    for (subids, mapping) in
        [("tester:200000:1000\n", Mapping::Full { uids: 1001, gids: 1001 }), ("", Mapping::Single { advice: "" })]
    {
        let Some(mut bundle) = Bundle::sh(SERVICE) else { return };
        if !root() || !installed("newuidmap") || !installed("setpriv") {
            return;
        }
        bundle.options.rootless = Some(mapping);
        bundle.write(|_| {});
        let run = as_user(&bundle, subids, LIFE);
        let hostname: String = bundle.id.chars().take(12).collect();
        assert_eq!(run.ok(), format!("1\n{}\n0\n{hostname}\nhello", bundle.id), "{subids:?}");
        assert!(bundle.root().join("inside").exists());
    }
}

#[test]
fn processes_of_other_ids_inside_can_be_signalled_and_joined() {
    let Some(mut bundle) = Bundle::sh(SERVICE) else { return };
    if !root() || !installed("newuidmap") || !installed("setpriv") {
        return;
    }
    bundle.options.rootless = Some(Mapping::Full { uids: 1001, gids: 1001 });
    bundle.options.user = Some("5:6".into());
    bundle.write(|_| {});
    let script = "set -e
        $roci run -d $id >out 2>err </dev/null
        until grep -q up out; do sleep 0.02; done
        $roci exec $id id -u </dev/null
        $roci exec --user 9 $id id -u </dev/null
        $roci kill $id TERM
        until $roci state $id | grep -q stopped; do sleep 0.02; done
        $roci delete $id";
    assert_eq!(as_user(&bundle, "tester:200000:1000\n", script).ok(), "5\n9");
}

#[test]
fn the_example_for_an_ordinary_user_runs() {
    let Some(bundle) = Bundle::sh("true") else { return };
    if !root() || !installed("setpriv") {
        return;
    }
    let script = "mkdir b && mv rootfs b && rm -f config.json && $roci spec --rootless --bundle b && \
                  sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"sh\", \"-c\", \"id -u; ls -d \\/sys\\/class; cat \\/proc\\/self\\/uid_map\"/' b/config.json && \
                  $roci run --bundle b $id";
    let run = as_user(&bundle, "", script);
    assert_eq!(run.ok().split_whitespace().collect::<Vec<_>>(), ["0", "/sys/class", "0", &UID.to_string(), "1"]);
}
