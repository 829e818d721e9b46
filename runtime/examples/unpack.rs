//! Unpacks one layer, for measuring: `unpack FILE EMPTY-DIRECTORY`.

use std::fs::File;
use std::os::fd::AsFd;

use longshore_runtime::error::{Attempt, Error};
use longshore_runtime::name::Algorithm;
use longshore_runtime::unpack::{Options, unpack_layer};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(file), Some(dest)) = (arguments.next(), arguments.next()) else {
        return Err(Error::invalid("command line", "usage: unpack FILE EMPTY-DIRECTORY"));
    };
    let layer = File::open(&file).attempt(|| format!("open {}", file.display()))?;
    let dest = File::open(&dest).attempt(|| format!("open {}", dest.display()))?;
    let unpacked = unpack_layer(layer, Algorithm::Sha256, Algorithm::Sha256, dest.as_fd(), &Options::default())?;
    #[allow(clippy::print_stdout)]
    {
        println!("{unpacked:#?}");
    }
    Ok(())
}
