//! What is set for the images below a prefix of their names, whichever file says so.

use std::path::PathBuf;

use longshore_runtime::name::Reference;

use super::spelling::full_name;

/// What is set for a registry, or for a part of it.
#[derive(Debug)]
pub(super) struct Rule {
    /// `HOST[:PORT][/PATH]`, perhaps with a tag or digest, or `*.DOMAIN`, in its one spelling.
    pub(super) prefix: String,
    /// What stands in the prefix's place where the registry is asked.
    pub(super) location: Option<String>,
    pub(super) connection: Connection,
    /// Asked before, in this order.
    pub(super) mirrors: Vec<Mirror>,
    /// Whether nothing may be pulled or pushed.
    pub(super) blocked: bool,
    /// The file that says so.
    pub(super) path: PathBuf,
}

/// Another host that has the same images.
#[derive(Debug)]
pub(super) struct Mirror {
    /// What stands in the prefix's place.
    pub(super) location: String,
    pub(super) connection: Connection,
    pub(super) may: Capabilities,
    pub(super) when: When,
}

/// Which images a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    All,
    ByDigest,
    ByTag,
}

/// What a host is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Content by its digest.
    pub pull: bool,
    /// Which digest a tag stands for.
    pub resolve: bool,
    /// Taking what is pushed.
    pub push: bool,
}

/// How a host is spoken to. What is not set here may be set elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    pub(super) scheme: Option<Scheme>,
    pub(super) ca: Option<PathBuf>,
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// Whoever answers is believed to be the host.
    pub(super) unverified: bool,
    pub(super) credentials: Option<Keeper>,
    /// The host of a token server that may see them, wherever it is.
    pub(super) token_server: Option<String>,
}

/// What a host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP over TLS.
    Https,
    /// HTTP in the clear.
    Http,
    /// The first, or where that fails the second.
    Either,
}

/// Who has the credentials for a host, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// A file like docker's `config.json` or containers' `auth.json`.
    File(PathBuf),
    /// `docker-credential-NAME`
    Helper(String),
}

impl Connection {
    /// This, and where it says nothing, the other.
    pub(super) fn or(self, other: &Self) -> Self {
        Self {
            scheme: self.scheme.or(other.scheme),
            ca: self.ca.or_else(|| other.ca.clone()),
            client: self.client.or_else(|| other.client.clone()),
            unverified: self.unverified || other.unverified,
            credentials: self.credentials.or_else(|| other.credentials.clone()),
            token_server: self.token_server.or_else(|| other.token_server.clone()),
        }
    }
}

impl When {
    /// Whether this image is one of them.
    pub(super) fn includes(self, image: &Reference) -> bool {
        match self {
            Self::All => true,
            Self::ByDigest => image.digest().is_some(),
            Self::ByTag => image.digest().is_none(),
        }
    }
}

/// The rule with the longest prefix that fits an image.
pub(super) fn longest<'a>(rules: &'a [Rule], image: &Reference) -> Option<&'a Rule> {
    let name = full_name(image);
    let fitting = rules.iter().filter(|rule| fit(&rule.prefix, &name).is_some());
    // Of several that are as long, the last: later files overrule earlier ones.
    fitting.max_by_key(|rule| rule.prefix.len())
}

/// How many bytes of an image's full name a prefix stands for; `None` if it does not begin so.
fn fit(prefix: &str, image: &str) -> Option<usize> {
    let host_end = image.find('/')?;
    let length = match prefix.strip_prefix('*') {
        // Some label, and what stands behind the star, before a port or the path.
        Some(domain) => {
            let host = &image[..host_end];
            let name = host.find(':').map_or(host, |colon| &host[..colon]);
            name.strip_suffix(domain).filter(|labels| !labels.is_empty())?;
            name.len()
        }
        None => image.starts_with(prefix).then_some(prefix.len())?,
    };
    let follows = image[length..].chars().next();
    // A colon after a host is a port, and that host another one; after a path it is a tag.
    let ends_name = match follows {
        None | Some('/') => true,
        Some(':') => length > host_end || prefix.starts_with('*'),
        Some('@') => length > host_end,
        Some(_) => false,
    };
    ends_name.then_some(length)
}

/// An image's full name with `location` in the place of the prefix; what is wrong, if that is no name.
pub(super) fn rewrite(prefix: &str, location: &str, image: &Reference) -> Result<Reference, String> {
    let name = full_name(image);
    let length = fit(prefix, &name).unwrap_or_default();
    let rewritten = format!("{location}{}", &name[length..]);
    let parsed: Reference = rewritten.parse().map_err(|e: longshore_runtime::Error| e.to_string())?;
    match names_host(location, &parsed) {
        true => Ok(parsed),
        false => Err(format!("{location:?} names no host: one has a dot, a port, or is localhost")),
    }
}

/// Whether an image's registry is the one its location begins with.
fn names_host(location: &str, image: &Reference) -> bool {
    let host = location.split('/').next().unwrap_or_default();
    host == image.registry() || matches!(host, "index.docker.io" | "registry-1.docker.io")
}

/// Whether a text is `HOST[:PORT][/PATH]`, where images can be.
pub(super) fn is_location(text: &str) -> bool {
    // With a path behind it, it is an image's name.
    let image = format!("{text}/a/a").parse::<Reference>();
    !text.ends_with('/') && image.is_ok_and(|image| names_host(text, &image) && image.digest().is_none())
}

/// Whether a text is a prefix: a location, such with a tag or digest, or `*.DOMAIN`.
pub(super) fn is_prefix(text: &str) -> bool {
    let domain = text.strip_prefix("*.");
    let whole = || text.contains('/') && text.parse::<Reference>().is_ok_and(|image| names_host(text, &image));
    domain.map_or_else(
        || is_location(text) || whole(),
        |domain| !domain.contains(['/', ':']) && is_location(&format!("x.{domain}")),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_ends_where_a_part_of_the_name_does() {
        let image = "r.example:5000/team/app:1";
        for prefix in ["r.example:5000", "r.example:5000/team", "r.example:5000/team/app", image] {
            assert_eq!(fit(prefix, image), Some(prefix.len()), "{prefix}");
        }
        for prefix in ["r.example", "r.example:50", "r.example:5000/te", "r.example:5000/team/ap", "example:5000", "*.r.example"]
        {
            assert_eq!(fit(prefix, image), None, "{prefix}");
        }
        assert_eq!(fit("*.example", image), Some("r.example".len()));
        assert_eq!(fit("*.example", "a.b.example/x:1"), Some("a.b.example".len()));
        assert_eq!(fit("*.example", "example/x:1"), None);
        assert_eq!(fit("*.example", "evilexample/x:1"), None);
        assert_eq!(fit("[::1]:5000", "[::1]:5000/a:1"), Some(10));
    }

    #[test]
    fn what_follows_the_prefix_follows_the_location() {
        let moved = |prefix: &str, location: &str, image: &str| {
            rewrite(prefix, location, &image.parse().unwrap()).map(|image| image.to_string())
        };
        assert_eq!(moved("docker.io", "localhost:5000", "alpine").unwrap(), "localhost:5000/library/alpine:latest");
        assert_eq!(moved("docker.io", "m.example/hub", "a/b:1").unwrap(), "m.example/hub/a/b:1");
        assert_eq!(moved("q.example/team", "m.example/other", "q.example/team/x:1").unwrap(), "m.example/other/x:1");
        assert_eq!(moved("q.example/team/x", "[::1]:5000/y", "q.example/team/x:1").unwrap(), "[::1]:5000/y:1");
        assert!(moved("q.example/team", "m.example", "q.example/team:1").is_err(), "no repository is left");
        assert!(moved("docker.io", "mirror", "alpine").unwrap_err().contains("names no host"));
    }

    #[test]
    fn locations_and_prefixes_are_told_from_what_is_neither() {
        for good in ["r.example", "localhost", "127.0.0.1:5000/a/b", "[::1]:5000", "docker.io/library"] {
            assert!(is_location(good) && is_prefix(good), "{good}");
        }
        for good in ["*.example.com", "r.example/a:1"] {
            assert!(is_prefix(good) && !is_location(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "r.example/",
            "name",
            "https://r.example",
            "*.",
            "*.r.example/a",
            "r.*.example",
            "a b.example",
            "r.example/A",
        ] {
            assert!(!is_location(bad) && !is_prefix(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn fitting_and_rewriting_never_panic(prefix in "[*.a-z:/@0-9\\[\\]é]{0,20}", location in "[.a-z:/é]{0,20}") {
            let _ = (is_prefix(&prefix), is_location(&location));
            for image in ["docker.io/library/a:1", "r.example:5000/é/a", "x"] {
                let _ = fit(&prefix, image);
            }
            let image: Reference = "r.example:5000/team/app:1".parse().unwrap();
            let _ = rewrite(&prefix, &location, &image);
        }
    }
}
