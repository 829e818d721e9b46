//! `rbox diff`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Store;
use longshore_runtime::container::Containers;
use longshore_runtime::difference::{Change, Layer, Same, compare};
use longshore_runtime::files::read_bounded;
use longshore_runtime::image::CONFIG_LIMIT_BYTES;
use longshore_runtime::store::Image;
use serde_json::Value;

use super::{Global, Own, print};
use crate::config::name_here;
use crate::error::Result;
use crate::text::printable;

/// Show what a container has changed of its image's files, or how two images differ
///
/// A is added, C changed, D deleted. Of two images: the layers they have in common, what their configurations say
/// otherwise, and which files differ in content, permissions or owners from the first to the second.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// A container, or the first image
    #[arg(value_name = "CONTAINER|IMAGE")]
    first: String,
    /// The second image
    #[arg(value_name = "IMAGE")]
    second: Option<String>,
}

impl Diff {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let Own { store, .. } = global.own_store()?;
        let Some(second) = &self.second else {
            let containers = Containers::open(&store)?;
            return show(&[], &containers.changes(&containers.get(&self.first)?)?);
        };
        // Neither may be removed meanwhile.
        let lease = store.lease()?;
        let find = |text: &str| -> Result<Image> {
            let name = &name_here(&store, text)?;
            Ok(store.find_leased(name, &lease)?.map_or_else(|| store.get(name), Ok)?)
        };
        let (first, second) = (find(&self.first)?, find(second)?);
        let common = first.diff_ids().iter().zip(second.diff_ids()).take_while(|(one, other)| one == other).count();
        let own = |image: &Image| image.diff_ids().len() - common;
        let mut said = vec![format!("Layers: {common} in common, {} of the first, {} of the second", own(&first), own(&second))];
        said.extend(differing("", &config(&store, &first)?, &config(&store, &second)?));
        // What both have is opened once: so it is known to be the same.
        let below = first.diff_ids()[..common].iter().map(|diff_id| Layer::open(&store.layer_path(diff_id)));
        let below = below.collect::<std::result::Result<Vec<_>, _>>()?;
        let tree = |image: &Image| -> Result<Vec<Layer>> {
            let above = image.diff_ids()[common..].iter().map(|diff_id| Layer::open(&store.layer_path(diff_id)));
            let mut layers = below.iter().cloned().map(Ok).chain(above).collect::<std::result::Result<Vec<_>, _>>()?;
            layers.reverse();
            Ok(layers)
        };
        show(&said, &compare(&tree(&first)?, &tree(&second)?, Same::Content, &|_| false)?)
    }
}

fn show(said: &[String], changes: &[Change]) -> Result<ExitCode> {
    print(|out| {
        said.iter().try_for_each(|line| writeln!(out, "{}", printable(line)))?;
        changes.iter().try_for_each(|change| writeln!(out, "{}", printable(&change.to_string())))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A configuration without what its layers and the steps it was made by say, which differ wherever anything does.
fn config(store: &Store, image: &Image) -> Result<Value> {
    let bytes = read_bounded(&store.blob_path(image.id()), CONFIG_LIMIT_BYTES)?;
    let mut config: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if let Some(keys) = config.as_object_mut() {
        for left_out in ["rootfs", "history", "container_config", "container", "id", "parent"] {
            keys.remove(left_out);
        }
    }
    Ok(config)
}

/// The values that differ, each by its path in the document.
fn differing(path: &str, first: &Value, second: &Value) -> Vec<String> {
    match (first, second) {
        (first, second) if first == second => Vec::new(),
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key))).collect();
            keys.sort();
            let value = |map: &serde_json::Map<String, Value>, key: &String| map.get(key).cloned().unwrap_or_default();
            keys.into_iter().flat_map(|key| differing(&format!("{path}.{key}"), &value(one, key), &value(other, key))).collect()
        }
        (first, second) => vec![format!("Config: {path}: {first} -> {second}")],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_configurations_say_otherwise_is_named_by_its_path() {
        let one = json!({ "config": { "Cmd": ["a"], "User": "x", "Labels": null }, "os": "linux" });
        let other = json!({ "config": { "Cmd": ["b"], "User": "x" }, "os": "linux", "author": "me" });
        assert_eq!(differing("", &one, &other), ["Config: .author: null -> \"me\"", "Config: .config.Cmd: [\"a\"] -> [\"b\"]"]);
        assert!(differing("", &one, &one).is_empty());
    }
}
