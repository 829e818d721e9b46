//! What is configured: where the images of a registry really are, and how one speaks to who has them.
//!
//! `registries.toml` is this project's own; where nothing in it is about an image, podman's `registries.conf` counts, then
//! docker's `daemon.json`.
//! Certificates are found where docker and podman find them.

mod certificates;
mod daemon_json;
mod docker;
mod paths;
mod proxy;
mod registries_conf;
mod registries_toml;
mod rule;
mod short_name;
mod spelling;

use std::path::PathBuf;
use std::sync::Arc;

use longshore_runtime::name::{DEFAULT_REGISTRY, Reference};
use reqwest::Url;

pub(crate) use self::certificates::advised_directory;
use self::docker::DockerConfig;
pub(crate) use self::paths::{config_home, docker_config, find_file, read_text, set};
pub(crate) use self::proxy::{Proxies, Proxy};
use self::registries_conf::RegistriesConf;
pub use self::rule::{Capabilities, Keeper, Scheme};
use self::rule::{Connection, Rule, longest, rewrite};
pub use self::short_name::{image_name, name_here};
pub(crate) use self::spelling::one_spelling;
use crate::error::{Error, Result};

/// The host that serves Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// What a registry itself may be asked.
const EVERYTHING: Capabilities = Capabilities { pull: true, resolve: true, push: true };

/// What all files say.
#[derive(Debug, Default)]
pub struct Registries {
    /// Those of `registries.toml`.
    own: Vec<Rule>,
    containers: RegistriesConf,
    /// Those of docker's daemon.
    docker: Vec<Rule>,
    pub(crate) network: Network,
}

/// What is the same for every host.
#[derive(Debug, Default, Clone)]
pub(crate) struct Network {
    pub(crate) proxies: Arc<Proxies>,
    /// Headers that every request has.
    pub(crate) headers: Vec<(String, String)>,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]`
    pub host: String,
    /// Whether requests go over plain HTTP.
    pub plain: bool,
}

/// An image at a host that may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `host[:port]`
    pub host: String,
    /// What it speaks.
    pub scheme: Scheme,
    /// The image's name there. Credentials are kept for that.
    pub image: Reference,
    /// What it may be asked.
    pub may: Capabilities,
    /// By what certificates one knows another.
    pub tls: Tls,
    /// Where the credentials are; not set, where docker and podman have them.
    pub credentials: Option<Keeper>,
    /// The host of a token server that may see the credentials, wherever it is.
    pub token_server: Option<String>,
}

/// The certificates of one host. The machine's authorities count, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Files of authorities' certificates.
    pub authorities: Vec<PathBuf>,
    /// The file of the certificate that is shown to it, and that of its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whoever answers is believed to be the host.
    pub unverified: bool,
}

impl Endpoint {
    /// The beginning of every URL, without a slash at its end.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.plain { "http" } else { "https" }, self.host)
    }

    /// Where a URL leads; the port only where the URL names one that is not the usual one.
    pub(crate) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Self { host, plain: url.scheme() == "http" }
    }

    /// Whether a URL is at this very host, port and scheme, however they are written.
    pub(crate) fn serves(&self, url: &Url) -> bool {
        Url::parse(&self.base()).is_ok_and(|base| base.origin() == url.origin())
    }
}

impl Place {
    /// The name that credentials for it are kept under, and who keeps them.
    pub(crate) fn account(&self) -> (&str, Option<&Keeper>) {
        (self.image.registry(), self.credentials.as_ref())
    }
}

impl Tls {
    /// The certificates that are kept for a host.
    pub(crate) fn of_host(host: &str) -> Result<Self> {
        let found = certificates::find(host)?.unwrap_or_default();
        Ok(Self { authorities: found.authorities, client: found.client, unverified: false })
    }
}

impl Registries {
    /// Reads the configuration files that exist; none is fine.
    pub fn load() -> Result<Self> {
        let own = find_file("LONGSHORE_REGISTRIES", "registries.toml");
        let own = own.map_or_else(|| Ok(Vec::new()), |path| registries_toml::read(&path))?;
        let config = DockerConfig::load()?;
        let proxies = Arc::new(Proxies::load(&config.proxies())?);
        let network = Network { proxies, headers: config.headers() };
        Ok(Self { own, containers: RegistriesConf::load()?, docker: daemon_json::load()?, network })
    }

    /// Where an image may be: the mirrors come first and the registry last.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] for an image that is blocked.
    pub fn places(&self, image: &Reference) -> Result<Vec<Place>> {
        let Some(rule) = [&self.own, &self.containers.rules, &self.docker].into_iter().find_map(|rules| longest(rules, image))
        else {
            return Ok(vec![place(image, Connection::default(), EVERYTHING)?]);
        };
        if rule.blocked {
            let why = format!("{} blocks {}; take blocked = true out of it to use it", rule.path.display(), rule.prefix);
            return Err(Error::Policy { image: image.familiar(), why });
        }
        let mirrors = rule.mirrors.iter().filter(|mirror| mirror.when.includes(image));
        let mirrors = mirrors.map(|mirror| self.moved(rule, &mirror.location, &mirror.connection, mirror.may, image));
        let last = match &rule.location {
            Some(location) => self.moved(rule, location, &rule.connection, EVERYTHING, image),
            None => place(image, rule.connection.clone(), EVERYTHING),
        };
        mirrors.chain([last]).collect()
    }

    /// An image where `location` stands in the place of the rule's prefix.
    fn moved(&self, rule: &Rule, location: &str, connection: &Connection, may: Capabilities, image: &Reference) -> Result<Place> {
        let bad =
            |why| paths::bad(&rule.path, format_args!("{:?}: {} cannot be at {location}: {why}", rule.prefix, image.familiar()));
        let there = rewrite(&rule.prefix, location, image).map_err(bad)?;
        // What that host needs may be said where the host is.
        let of_host = longest(&self.own, &there).map(|rule| &rule.connection);
        let connection = of_host.map_or_else(|| connection.clone(), |other| connection.clone().or(other));
        place(&there, connection, may)
    }

    /// Where one logs in to a registry.
    pub fn registry(&self, registry: &str) -> Result<Place> {
        // Any image will do.
        let image: Reference = format!("{registry}/login/login").parse()?;
        let mut places = self.places(&image)?;
        places.pop().ok_or_else(|| Error::Config { path: registry.into(), why: "it is nowhere".into() })
    }
}

fn place(image: &Reference, connection: Connection, may: Capabilities) -> Result<Place> {
    let registry = image.registry();
    let kept = certificates::find(registry)?;
    let has_certificates = kept.is_some() || connection.ca.is_some() || connection.client.is_some();
    // Over HTTPS, except to this machine itself where it has no certificates.
    let usual = if is_loopback(registry) && !has_certificates && !connection.unverified { Scheme::Http } else { Scheme::Https };
    let kept = kept.unwrap_or_default();
    let authorities = connection.ca.map_or(kept.authorities, |file| vec![file]);
    Ok(Place {
        host: if registry == DEFAULT_REGISTRY { DOCKER_HUB_API.into() } else { registry.into() },
        scheme: connection.scheme.unwrap_or(usual),
        image: image.clone(),
        may,
        tls: Tls { authorities, client: connection.client.or(kept.client), unverified: connection.unverified },
        credentials: connection.credentials,
        token_server: connection.token_server,
    })
}

/// Whether a `host[:port]` is this machine by name or address.
pub fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What `registries.toml` says, and what `registries.conf` does.
    fn registries(own: &str, containers: &str) -> Registries {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), own).unwrap();
        let mut conf = RegistriesConf::default();
        conf.add(Path::new("/x.conf"), containers).unwrap();
        Registries {
            own: registries_toml::read(file.path()).unwrap(),
            containers: conf,
            docker: Vec::new(),
            network: Network::default(),
        }
    }

    /// Scheme, host and name of each place.
    fn places(registries: &Registries, image: &str) -> Vec<String> {
        let places = registries.places(&image.parse().unwrap()).unwrap();
        places.iter().map(|place| format!("{:?} {} {}", place.scheme, place.host, place.image)).collect()
    }

    #[test]
    fn mirrors_are_asked_in_order_and_the_registry_last_each_with_its_own_credentials() {
        let own = "[\"docker.io\"]\nmirrors = [\"https://m.example/hub\", \"http://127.0.0.1:1\"]\n[\"quay.io\"]\nuse = \"https://q.example\"\n";
        let registries = registries(own, "");
        assert_eq!(
            places(&registries, "alpine"),
            [
                "Https m.example m.example/hub/library/alpine:latest",
                "Http 127.0.0.1:1 127.0.0.1:1/library/alpine:latest",
                "Https registry-1.docker.io docker.io/library/alpine:latest",
            ]
        );
        assert_eq!(places(&registries, "quay.io/a:1"), ["Https q.example q.example/a:1"]);
        assert_eq!(places(&registries, "ghcr.io/a:1"), ["Https ghcr.io ghcr.io/a:1"]);
    }

    #[test]
    fn the_longest_prefix_counts_and_this_projects_own_file_before_the_other() {
        let own = "[\"r.x\"]\nrewrite = \"a.x\"\n[\"r.x/team\"]\nrewrite = \"b.x/t\"";
        let containers =
            "[[registry]]\nprefix = \"r.x/team/app\"\nlocation = \"c.x\"\n[[registry]]\nprefix = \"*.s.x\"\nlocation = \"d.x\"";
        let registries = registries(own, containers);
        assert_eq!(places(&registries, "r.x/team/app:1"), ["Https b.x b.x/t/app:1"]);
        assert_eq!(places(&registries, "r.x/teams/app:1"), ["Https a.x a.x/teams/app:1"]);
        assert_eq!(places(&registries, "q.s.x/app:1"), ["Https d.x d.x/app:1"]);
    }

    #[test]
    fn what_a_moved_host_needs_may_be_said_where_the_host_is() {
        let own =
            "[\"r.x\"]\nrewrite = \"a.x\"\nmirrors = [\"https://m.x\"]\n[\"a.x\"]\nplain-http = true\n[\"m.x\"]\nca = \"/m.pem\"";
        let places = registries(own, "").places(&"r.x/app".parse().unwrap()).unwrap();
        assert_eq!(places[0].tls.authorities, [Path::new("/m.pem")]);
        assert_eq!(places[1].scheme, Scheme::Http);
    }

    #[test]
    fn a_host_is_found_however_it_is_written_here_or_there() {
        let own = "[\"R.x:443/team\"]\nrewrite = \"a.x/t\"\n[\"docker.io\"]\nmirrors = [\"https://m.x\"]";
        let registries = registries(own, "[[registry]]\nprefix = \"bad.X\"\nblocked = true");
        for image in ["r.x/team/app:1", "R.X/team/app:1", "r.x:443/team/app:1"] {
            assert_eq!(places(&registries, image), ["Https a.x a.x/t/app:1"], "{image}");
        }
        assert_eq!(places(&registries, "r.x:80/team/app:1"), ["Https r.x:80 r.x:80/team/app:1"]);
        assert_eq!(places(&registries, "Index.docker.io:443/library/a:1")[0], "Https m.x m.x/library/a:1");
        assert!(registries.places(&"BAD.x:443/a".parse().unwrap()).is_err());
    }

    #[test]
    fn a_url_is_at_a_host_however_both_are_written() {
        let serves = |host: &str, plain: bool, url: &str| Endpoint { host: host.into(), plain }.serves(&url.parse().unwrap());
        assert!(serves("r.x:443", false, "https://r.x/v2/") && serves("R.x", false, "https://r.x:443/v2/"));
        assert!(serves("r.x:80", true, "http://r.x/v2/") && serves("[::1]:5000", true, "http://[0::1]:5000/"));
        for other in ["http://r.x/", "https://r.x:80/", "https://r.x.y/", "https://s.x/"] {
            assert!(!serves("r.x", false, other), "{other}");
        }
    }

    #[test]
    fn mirrors_by_digest_are_asked_for_digests_only() {
        let containers = "[[registry]]\nlocation = \"r.x\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.x\"\ninsecure = true";
        let registries = registries("", containers);
        let digest = longshore_runtime::name::Digest::of(b"x");
        assert_eq!(places(&registries, "r.x/a:1"), ["Https r.x r.x/a:1"]);
        let pinned = format!("r.x/a@{digest}");
        assert_eq!(places(&registries, &pinned), [format!("Either m.x m.x/a@{digest}"), format!("Https r.x {pinned}")]);
    }

    #[test]
    fn what_is_blocked_is_an_error_that_names_the_file() {
        let registries = registries("", "[[registry]]\nprefix = \"r.x/bad\"\nblocked = true");
        let error = registries.places(&"r.x/bad/app".parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Policy { .. }) && error.to_string().contains("/x.conf blocks r.x/bad"), "{error}");
        assert!(registries.places(&"r.x/badapp".parse().unwrap()).is_ok());
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let registries = Registries::default();
        let scheme = |host: &str| registries.registry(host).unwrap().scheme;
        for host in ["localhost:5000", "localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(scheme(host), Scheme::Http, "{host}");
        }
        for host in ["localhost.evil.example", "10.0.0.1:5000", "docker.io", "[::2]:5000"] {
            assert_eq!(scheme(host), Scheme::Https, "{host}");
        }
        assert_eq!(registries.registry("docker.io").unwrap().host, DOCKER_HUB_API);
    }
}
