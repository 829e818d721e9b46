//! What a log says of its container beside the output: a tag, labels and variables that were chosen.
//!
//! A tag is one of docker's templates, of which these fields are known: `{{.ID}}` and `{{.ImageID}}`, 12 digits each,
//! `{{.FullID}}`, `{{.ImageFullID}}`, `{{.Name}}`, `{{.FullName}}` and `{{.ImageName}}`.

use std::collections::BTreeMap;

use super::record::Config;

/// How many digits of an ID docker shows.
const SHORT_DIGITS: usize = 12;

/// Expands a template by what `field` knows.
fn expand(template: &str, field: impl Fn(&str) -> Option<String>) -> Result<String, &'static str> {
    let mut expanded = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, behind) = after.split_once("}}").ok_or("a field of a tag ends with }}")?;
        expanded += before;
        expanded += &field(name.trim())
            .ok_or("the fields of a tag are {{.ID}}, {{.FullID}}, {{.Name}}, {{.FullName}}, {{.ImageID}}, {{.ImageFullID}} and {{.ImageName}}")?;
        rest = behind;
    }
    Ok(expanded + rest)
}

/// Whether a text is such a template.
pub(super) fn check(template: &str) -> Result<(), &'static str> {
    let known = [".ID", ".FullID", ".Name", ".FullName", ".ImageID", ".ImageFullID", ".ImageName"];
    expand(template, |field| known.contains(&field).then(String::new)).map(drop)
}

/// A container's tag, if one was asked for.
pub(super) fn tag(config: &Config) -> Option<String> {
    let field = |name: &str| {
        Some(match name {
            ".ID" => short(&config.id).to_owned(),
            ".FullID" => config.id.clone(),
            ".Name" => config.name.clone(),
            ".FullName" => format!("/{}", config.name),
            ".ImageID" => short(config.image_id.hex()).to_owned(),
            ".ImageFullID" => config.image_id.to_string(),
            ".ImageName" => config.image.clone(),
            _ => return None,
        })
    };
    expand(config.log.tag.as_deref()?, field).ok()
}

/// An ID as docker shows it.
pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT_DIGITS).unwrap_or(id)
}

/// The labels and variables that were chosen, as far as the container has them.
pub(super) fn attributes(config: &Config) -> BTreeMap<String, String> {
    let labels = config.labels();
    let chosen = config.log.labels.iter().filter_map(|name| Some((name.clone(), (*labels.get(name.as_str())?).to_owned())));
    let variable = |name: &String| {
        let all = config.image_config.env.iter().chain(&config.options.env);
        // The last of a name is the one that is meant.
        let value = all.filter_map(|one| one.split_once('=')).rfind(|(its, _)| its == name)?.1;
        Some((name.clone(), value.to_owned()))
    };
    chosen.chain(config.log.env.iter().filter_map(variable)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_filled_in_and_unknown_ones_refused() {
        let field = |name: &str| (name == ".Name").then(|| "web".to_owned());
        assert_eq!(expand("a {{.Name}}/{{ .Name }} b", field), Ok("a web/web b".into()));
        assert_eq!(expand("{}}plain", field), Ok("{}}plain".into()));
        assert!(expand("{{.Name", field).is_err() && expand("{{.Other}}", field).is_err());
        assert!(check("{{.ImageName}}/{{.ID}}").is_ok() && check("{{.Secret}}").is_err());
    }

    proptest! {
        #[test]
        fn no_template_is_too_strange(text in "([{}.a]|\\{\\{\\.ID\\}\\}|é){0,12}") {
            let _ = check(&text);
        }
    }
}
