//! `--mount KEY=VALUE,...`: docker's keys.

use super::mount::{Propagation, Source, Tmpfs, Volume, destination, host_path};
use super::store::check_name;
use crate::error::{Error, Result};
use crate::spec::parse_size;

/// What `--mount` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// A volume, or a path of the host.
    Volume(Volume),
    /// A filesystem in memory.
    Tmpfs(Tmpfs),
}

/// Reads what `--mount` is given: a line of CSV with `KEY=VALUE` in each field, or `KEY` for what is true or false.
///
/// # Errors
///
/// [`Error::Invalid`] names the field that is none, or does not belong to this type of mount.
pub fn parse_mount(text: &str) -> Result<Mounted> {
    parse(text).map_err(|why| match why {
        Refused::Why(why) => Error::invalid(format!("mount {text:?}"), why),
        Refused::Error(error) => error,
    })
}

enum Refused {
    Why(String),
    Error(Error),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn parse(text: &str) -> Result<Mounted, Refused> {
    let fields = fields(text)?;
    let fields: Vec<(&str, Option<&str>)> = fields
        .iter()
        .map(|field| field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value))))
        .collect();
    let value = |key: &str| fields.iter().rev().find(|(other, _)| *other == key).and_then(|(_, value)| *value);
    let kind = value("type").unwrap_or("volume");
    if !matches!(kind, "volume" | "bind" | "tmpfs") {
        return Err(format!("type {kind:?} is none of volume, bind and tmpfs").into());
    }
    let mut volume = Volume::default();
    let mut options = Vec::new();
    let mut source = None;
    let mut target = None;
    for (key, value) in fields {
        let text = || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} needs a value"));
        match (key.split_once('-').map_or("", |(of, _)| of), key) {
            (_, "type" | "consistency") => drop(text()?),
            (_, "source" | "src") => source = Some(text()?),
            (_, "target" | "dst" | "destination") => target = Some(destination(text()?)?),
            (_, "readonly" | "ro") => volume.read_only = truth(key, value)?,
            (of @ ("bind" | "volume" | "tmpfs"), _) if of != kind => {
                return Err(format!("{key} is for type={of}, and this one is type={kind}").into());
            }
            (_, "bind-propagation") => {
                let word = text()?;
                volume.propagation = Propagation::from_word(word).ok_or_else(|| format!("{word:?} is no propagation"))?;
            }
            (_, "bind-nonrecursive") => volume.non_recursive = truth(key, value)?,
            (_, "bind-recursive") => match text()? {
                "enabled" | "readonly" => {}
                "disabled" => volume.non_recursive = true,
                "writable" => volume.writable_below = true,
                other => return Err(format!("bind-recursive={other:?} is none of enabled, disabled, writable, readonly").into()),
            },
            (_, "volume-nocopy") => volume.no_copy = truth(key, value)?,
            (_, "volume-label") => volume.labels.push(text()?.to_owned()),
            (_, "volume-driver") => match text()? {
                "local" => {}
                other => return Err(format!("volume driver {other:?} is not supported; there is local").into()),
            },
            (_, "tmpfs-size") => {
                let bytes =
                    parse_size(text()?).ok_or_else(|| "tmpfs-size is a number of bytes, with k, m or g behind it".to_owned())?;
                options.push(format!("size={bytes}"));
            }
            (_, "tmpfs-mode") => {
                let mode = u32::from_str_radix(text()?, 8).ok().filter(|mode| *mode <= 0o7777);
                options.push(format!("mode={:o}", mode.ok_or_else(|| "tmpfs-mode is octal, 1777 for example".to_owned())?));
            }
            _ => return Err(format!("{key:?} is not supported").into()),
        }
    }
    let target = target.ok_or_else(|| "it needs a target".to_owned())?;
    match (kind, source) {
        ("tmpfs", Some(_)) => Err("a tmpfs has no source".to_owned().into()),
        ("tmpfs", None) => {
            options.extend(volume.read_only.then(|| "ro".to_owned()));
            Ok(Mounted::Tmpfs(Tmpfs { destination: target, options }))
        }
        ("bind", None) => Err("type=bind needs a source".to_owned().into()),
        ("bind", Some(path)) if !path.starts_with(['/', '.']) => {
            Err(format!("the source of type=bind is a path of this machine that begins with / or ., and {path:?} does not")
                .into())
        }
        ("bind", Some(path)) => {
            Ok(Mounted::Volume(Volume { source: Source::Host(host_path(path)?), destination: target, ..volume }))
        }
        (_, name) => {
            name.map_or(Ok(()), check_name)?;
            let source = name.map_or_else(Source::default, |name| Source::Volume { volume: name.into(), anonymous: false });
            Ok(Mounted::Volume(Volume { source, destination: target, ..volume }))
        }
    }
}

fn truth(key: &str, value: Option<&str>) -> std::result::Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{key} is true or false, and not {other:?}")),
    }
}

/// The fields of a line of CSV: one in double quotes may hold commas, and double quotes twice each.
fn fields(text: &str) -> std::result::Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut characters = text.chars().peekable();
    let mut at_start = true;
    while let Some(c) = characters.next() {
        match c {
            ',' => {
                fields.push(String::new());
                at_start = true;
                continue;
            }
            '"' if at_start => {
                let Some(field) = fields.last_mut() else { break };
                loop {
                    match characters.next() {
                        Some('"') if characters.peek() == Some(&'"') => field.extend(characters.next()),
                        Some('"') => break,
                        Some(c) => field.push(c),
                        None => return Err("a quoted field has no end".into()),
                    }
                }
                if characters.peek().is_some_and(|next| *next != ',') {
                    return Err("a quoted field ends in front of a comma".into());
                }
            }
            '"' => return Err("only a whole field can stand in double quotes".into()),
            c => fields.iter_mut().last().into_iter().for_each(|field| field.push(c)),
        }
        at_start = false;
    }
    match fields.iter().any(String::is_empty) {
        true => Err("it is KEY=VALUE, separated by commas".into()),
        false => Ok(fields),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn volume(text: &str) -> Volume {
        match parse_mount(text) {
            Ok(Mounted::Volume(volume)) => volume,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn mounts_mean_what_dockers_do() {
        assert_eq!(volume("source=data,target=/d"), "data:/d".parse().unwrap());
        assert_eq!(volume("type=volume,dst=/d"), "/d".parse().unwrap());
        assert_eq!(volume("type=volume,src=data,destination=/d,volume-nocopy,ro"), "data:/d:nocopy,ro".parse().unwrap());
        assert_eq!(volume("type=bind,src=/a,dst=/d,readonly=1,bind-propagation=rslave"), "/a:/d:ro,rslave".parse().unwrap());
        assert_eq!(volume(r#"type=bind,"src=/a,""b""",dst=/d"#).source, Source::Host(r#"/a,"b""#.into()));
        assert!(volume("type=bind,src=/a,dst=/d,bind-nonrecursive").non_recursive);
        assert!(volume("type=bind,src=/a,dst=/d,bind-recursive=writable,ro").writable_below);
        assert_eq!(volume("src=data,dst=/d,volume-label=a=b,volume-driver=local").labels, ["a=b"]);
        let Ok(Mounted::Tmpfs(tmpfs)) = parse_mount("type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1770,ro=false") else { panic!() };
        assert_eq!(tmpfs.options(), "size=1048576,mode=1770");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (bad, part) in [
            ("", "KEY=VALUE"),
            ("type=bind,dst=/d", "needs a source"),
            ("type=bind,src=/a", "needs a target"),
            ("type=bind,src=a,dst=/d", "begins with"),
            ("type=npipe,src=a,dst=/d", "npipe"),
            ("type=tmpfs,src=/a,dst=/d", "no source"),
            ("type=tmpfs,dst=/d,tmpfs-size=x", "tmpfs-size"),
            ("type=tmpfs,dst=/d,tmpfs-mode=8", "octal"),
            ("type=tmpfs,dst=/d,volume-nocopy", "for type=volume"),
            ("src=data,dst=/d,bind-propagation=rslave", "for type=bind"),
            ("type=bind,src=/a,dst=/d,bind-propagation=x", "propagation"),
            ("src=data,dst=/d,volume-opt=type=nfs", "volume-opt"),
            ("src=data,dst=/d,volume-driver=nfs", "nfs"),
            ("src=data,dst=/d,ro=maybe", "maybe"),
            ("src=d/x,dst=/d", "name"),
            ("src=data,dst=d", "absolute"),
            ("src=data,dst=/", "root"),
            ("src=,dst=/d", "source needs"),
            ("nonsense", "nonsense"),
            ("\"src=a,dst=/d", "no end"),
            ("src=data,,dst=/d", "commas"),
        ] {
            let said = parse_mount(bad).unwrap_err().to_string();
            assert!(said.contains(part) || part == "source needs" && said.contains("src needs"), "{bad}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_has_a_target(text in "(type=(bind|volume|tmpfs),)?[a-d=,\"/]{0,20}(,dst=/[a-d\"/.]{1,5})?") {
            if let Ok(Mounted::Volume(volume)) = parse_mount(&text) {
                prop_assert!(volume.destination.is_absolute() && volume.destination.components().count() > 1);
            }
        }
    }
}
