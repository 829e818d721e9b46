//! Labels on the command line, and filters of lists, of which labels are a kind of their own.

use std::fmt::Display;

/// `NAME=VALUE`, or `NAME` for an empty value.
pub(super) fn parse(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() { Err("a label is NAME=VALUE, or NAME".into()) } else { Ok((name.to_owned(), value.to_owned())) }
}

/// As docker shows several: `NAME=VALUE` each.
pub(super) fn joined(labels: impl IntoIterator<Item = (impl Display, impl Display)>, between: &str) -> String {
    labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(between)
}

/// A label that something is to have, with this value or any; or is not to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    name: String,
    value: Option<String>,
    there: bool,
}

impl Wanted {
    /// Reads the `NAME[=VALUE]` of a `label=` filter, or with `there` false of a `label!=` one.
    pub(super) fn parse(text: &str, there: bool) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.is_empty() {
            return Err("a label has a name".into());
        }
        Ok(Self { name: name.to_owned(), value: value.map(str::to_owned), there })
    }

    /// Whether something whose labels `label` knows fits.
    pub(super) fn fits<'a>(&self, label: impl FnOnce(&str) -> Option<&'a str>) -> bool {
        let has = label(&self.name).is_some_and(|its| self.value.as_deref().is_none_or(|value| value == its));
        has == self.there
    }
}

/// docker's rule for several filters: of each kind that was given one must fit, but all of those about labels.
pub(super) fn all_fit<F>(filters: &[F], is_label: impl Fn(&F) -> bool, fits: impl Fn(&F) -> bool) -> bool {
    let same = |a: &F, b: &F| std::mem::discriminant(a) == std::mem::discriminant(b);
    filters.iter().all(|one| match is_label(one) {
        true => fits(one),
        false => filters.iter().any(|other| same(one, other) && fits(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_names() {
        assert_eq!(parse("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse("a"), Ok(("a".into(), String::new())));
        assert!(parse("=x").is_err() && parse("").is_err() && Wanted::parse("=x", true).is_err());
        assert_eq!(joined([("a", "1"), ("b", "")], ","), "a=1,b=");
    }

    #[test]
    fn all_labels_must_fit_and_one_of_each_other_kind() {
        enum Filter {
            Name(&'static str),
            Label(Wanted),
        }
        let label = |name: &str| (name == "a").then_some("1");
        let fits = |filters: &[Filter]| {
            all_fit(
                filters,
                |one| matches!(one, Filter::Label(_)),
                |one| match one {
                    Filter::Name(name) => *name == "x",
                    Filter::Label(wanted) => wanted.fits(label),
                },
            )
        };
        let wanted = |text, there| Filter::Label(Wanted::parse(text, there).unwrap());
        assert!(fits(&[]) && fits(&[Filter::Name("y"), Filter::Name("x"), wanted("a", true), wanted("a=1", true)]));
        assert!(fits(&[wanted("b", false), wanted("a=2", false)]));
        assert!(!fits(&[Filter::Name("y")]) && !fits(&[wanted("a", true), wanted("b", true)]));
        assert!(!fits(&[wanted("a=2", true)]) && !fits(&[wanted("a", false)]));
    }
}
