//! Unpacks one layer, for measuring: `unpack FILE EMPTY-DIRECTORY`, or `unpack FILE NEW-IMAGE`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use longshore_runtime::error::{Attempt, Error};
use longshore_runtime::name::Algorithm;
use longshore_runtime::unpack::{Options, unpack_image, unpack_layer};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(file), Some(dest)) = (arguments.next(), arguments.next()) else {
        return Err(Error::invalid("command line", "usage: unpack FILE EMPTY-DIRECTORY|NEW-IMAGE"));
    };
    let layer = File::open(&file).attempt(|| format!("open {}", file.display()))?;
    let unpacked = if Path::new(&dest).is_dir() {
        let dest = File::open(&dest).attempt(|| format!("open {}", dest.display()))?;
        unpack_layer(layer, Algorithm::Sha256, Algorithm::Sha256, dest.as_fd(), &Options::default())?
    } else {
        let image = File::create_new(&dest).attempt(|| format!("create {}", dest.display()))?;
        let (unpacked, pending) = unpack_image(layer, Algorithm::Sha256, Algorithm::Sha256, image, &Options::default())?;
        pending.finish(&unpacked.diff_id, b"")?;
        unpacked
    };
    #[allow(clippy::print_stdout)]
    {
        println!("{unpacked:#?}");
    }
    Ok(())
}
