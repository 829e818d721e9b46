//! `roci spec`.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use longshore_runtime::error::{Attempt, Error, Result};
use longshore_runtime::image::ContainerConfig;
use longshore_runtime::spec::{RunOptions, default_spec};

/// Write a config.json that runs a shell in ./rootfs
#[derive(Debug, Args)]
pub(crate) struct WriteSpec {
    /// Where it is written
    #[arg(short, long, default_value = ".", hide_default_value = true, value_name = "DIR")]
    bundle: PathBuf,
}

impl WriteSpec {
    pub(crate) fn call(self) -> Result<u8> {
        let bundle = &self.bundle;
        let options =
            RunOptions { id: "roci".into(), args: vec!["sh".into()], tty: true, read_only: true, ..RunOptions::default() };
        let directory = File::open(bundle).attempt(|| format!("open {bundle:?}"))?;
        let spec = default_spec(&ContainerConfig::default(), directory.as_fd(), &options)?;
        let path = bundle.join("config.json");
        let mut text = serde_json::to_vec_pretty(&spec).map_err(|error| Error::invalid("config.json", error))?;
        text.push(b'\n');
        let mut file = File::create_new(&path).attempt(|| format!("create {path:?} (an old one is not overwritten)"))?;
        file.write_all(&text).attempt(|| format!("write {path:?}")).map(|()| 0)
    }
}
