//! Reading a `config.json`.
//!
//! Mostly that is one pass of the types for it. What the specification knows and they do not is put right
//! first, and only if they have failed: a second pass costs nothing where the first does.

use std::path::Path;

use oci_spec::runtime::{Capability, Process, Spec};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::warning::warn;

/// Reads a configuration. Sources of bind mounts that are relative are made absolute: they are relative
/// to the bundle (runtime-spec config.md, "Mounts"). `bundle` is absolute.
pub fn parse_spec(text: &[u8], bundle: &Path) -> Result<Spec> {
    let mut spec = match serde_json::from_slice(text) {
        Ok(spec) => spec,
        Err(error) => again(text).ok_or_else(|| Error::invalid("config.json", error))?,
    };
    resolve_sources(&mut spec, bundle);
    Ok(spec)
}

fn again(text: &[u8]) -> Option<Spec> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    put_right(&mut value);
    serde_json::from_value(value).ok()
}

fn put_right(value: &mut Value) {
    if let Some(process) = value.get_mut("process") {
        fill_in_user(process);
    }
    forget_unknown_capabilities(value);
    rename_scheduler_flags(value);
}

/// Reads a process document, as `exec` takes it.
pub(crate) fn parse_process(text: &[u8]) -> Result<Process> {
    let fail = |error| Error::invalid("process document", error);
    let process: Value = serde_json::from_slice(text).map_err(fail)?;
    let mut value = json!({ "process": process });
    put_right(&mut value);
    serde_json::from_value(value["process"].take()).map_err(fail)
}

/// Without a user it is user 0: so it is with runc and crun.
fn fill_in_user(process: &mut Value) {
    if let Some(process) = process.as_object_mut() {
        process.entry("user").or_insert_with(|| json!({ "uid": 0, "gid": 0 }));
    }
}

/// "Any value which cannot be mapped to a relevant kernel interface MUST be logged as a warning"
/// (config.md, `capabilities`).
fn forget_unknown_capabilities(value: &mut Value) {
    let Some(sets) = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) else { return };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                warn(&format!("process.capabilities.{set}: {name} is no capability and left out"));
            }
            known
        });
    }
}

/// The specification's names of these flags, as the types spell them.
fn rename_scheduler_flags(value: &mut Value) {
    let Some(flags) = value.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut) else { return };
    for flag in flags {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
}

fn resolve_sources(spec: &mut Spec, bundle: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let words = mount.options().iter().flatten();
        let bind =
            mount.typ().as_deref() == Some("bind") || words.into_iter().any(|word| matches!(word.as_str(), "bind" | "rbind"));
        if let (true, Some(source)) = (bind, mount.source().as_deref().filter(|source| source.is_relative())) {
            let absolute = bundle.join(source);
            mount.set_source(Some(absolute));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(process: &str, mounts: &str) -> Result<Spec> {
        let text = format!(
            r#"{{"ociVersion":"1.2.0","process":{{"user":{{"uid":0,"gid":0}},"args":["x"],"cwd":"/"{process}}},"mounts":{mounts}}}"#
        );
        parse_spec(text.as_bytes(), Path::new("/bundle"))
    }

    #[test]
    fn an_unknown_capability_is_no_error_and_the_rest_stays() {
        let spec = parse(r#","capabilities":{"bounding":["CAP_KILL","CAP_FROM_THE_FUTURE"]}"#, "[]").unwrap();
        let bounding = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap().bounding().clone().unwrap();
        assert_eq!(bounding, [Capability::Kill].into());
    }

    #[test]
    fn every_flag_of_the_scheduler_is_read() {
        for flag in ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX"] {
            let scheduler = format!(r#","scheduler":{{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_{flag}"]}}"#);
            parse(&scheduler, "[]").unwrap_or_else(|error| panic!("{flag}: {error}"));
        }
        assert!(parse(r#","scheduler":{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_X"]}"#, "[]").is_err());
    }

    #[test]
    fn a_relative_source_of_a_bind_mount_is_the_bundle_s() {
        let mounts = r#"[{"destination":"/a","source":"here","options":["rbind"]},{"destination":"/b","type":"tmpfs","source":"tmpfs"},
            {"destination":"/c","type":"bind","source":"/there"}]"#;
        let spec = parse("", mounts).unwrap();
        let sources = spec.mounts().clone().unwrap().iter().map(|mount| mount.source().clone().unwrap()).collect::<Vec<_>>();
        assert_eq!(sources, [Path::new("/bundle/here"), Path::new("tmpfs"), Path::new("/there")]);
    }
}
