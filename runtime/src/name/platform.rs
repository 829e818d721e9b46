//! Platforms: `os/architecture[/variant]` (image-spec image-index.md#image-index-property-descriptions).

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A platform an image is made for, in GOOS/GOARCH terms.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// `linux`, ...
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7`, `v8`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// Whether content made for `offered` runs on `self`. A variant counts only where both name one;
    /// `arm64` without a variant is `v8`.
    pub fn accepts(&self, offered: &Self) -> bool {
        let variant = |p: &Self| p.variant.clone().or_else(|| (p.architecture == "arm64").then(|| "v8".into()));
        self.os == offered.os
            && self.architecture == offered.architecture
            && match (variant(self), variant(offered)) {
                (Some(wanted), Some(offered)) => wanted == offered,
                _ => true,
            }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Name { what: "platform", input: s.into(), why };
        let parts: Vec<&str> = s.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))) {
            return Err(invalid("it must read os/architecture[/variant]"));
        }
        match parts[..] {
            [os, architecture] => Ok(Self { os: os.into(), architecture: architecture.into(), variant: None }),
            [os, architecture, variant] => {
                Ok(Self { os: os.into(), architecture: architecture.into(), variant: Some(variant.into()) })
            }
            _ => Err(invalid("it must read os/architecture[/variant]")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_counts_only_where_both_name_one() {
        let parse = |s: &str| s.parse::<Platform>().unwrap();
        assert!(parse("linux/arm64").accepts(&parse("linux/arm64/v8")));
        assert!(parse("linux/arm").accepts(&parse("linux/arm/v6")));
        assert!(!parse("linux/arm/v7").accepts(&parse("linux/arm/v6")));
        assert!(!parse("linux/amd64").accepts(&parse("linux/arm64")));
        assert!("linux".parse::<Platform>().is_err() && "linux//v8".parse::<Platform>().is_err());
    }
}
