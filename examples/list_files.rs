//! Prints every file of an image after all its layers were merged: `cargo run --example list_files image.tar`.

use std::ffi::OsString;
use std::sync::Arc;

use sif_convert::io::Spool;
use sif_convert::layers::{Options, flatten};
use sif_convert::{ErrorKind, IoResultExt as _, Monitor, OpenOptions, Result, Selection, Spec, open};

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<()> {
    let source = std::env::args_os().nth(1).unwrap_or_else(|| OsString::from("image.tar"));
    let monitor = Monitor::default();
    let image = open(&Spec::parse(&source)?, &OpenOptions::default(), &monitor)?.select(&Selection::default())?;

    // Contents of compressed layers are decoded once, into a file that is gone when it is closed.
    let spool = || Ok(Spool::new(Arc::new(tempfile::tempfile().or_kind(ErrorKind::NoSpace)?), 0));
    // Nothing is printed of layers that are not what the image says: their digests are checked first.
    let options = Options::new(&monitor, &spool);
    let (text, summary) = flatten(&image, &options, |flattened| Ok(flattened.tree.dump()))?;

    print!("{text}");
    println!("{} entries in {} layers", summary.entries, summary.diff_ids.len());
    Ok(())
}
