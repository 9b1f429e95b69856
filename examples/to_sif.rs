//! Writes a SIF that Apptainer and SingularityCE run: `cargo run --example to_sif image.tar image.sif`.

use std::ffi::OsString;

use sif_convert::output::Sif;
use sif_convert::{Destination, Monitor, OpenOptions, Result, Selection, Spec, Target, WriteOptions, open};

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let source = arguments.next().unwrap_or_else(|| OsString::from("image.tar"));
    let output = arguments.next().unwrap_or_else(|| OsString::from("image.sif"));

    let monitor = Monitor::default();
    // Prepared first: an output that exists is refused before anything is read.
    let prepared =
        Target::from(Sif::new()).prepare(&Destination::Path(output.clone().into()), &WriteOptions::default())?;
    let image = open(&Spec::parse(&source)?, &OpenOptions::default(), &monitor)?.select(&Selection::default())?;
    let outcome = prepared.write(&image, &monitor)?;

    println!("{}: {} bytes, image {}", output.display(), outcome.size, image.id());
    for note in outcome.notes {
        println!("note: {}", note.message);
    }
    Ok(())
}
