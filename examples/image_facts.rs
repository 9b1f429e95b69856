//! Prints what an image is, without reading its layers: `cargo run --example image_facts image.tar`.

use std::ffi::OsString;

use sif_convert::{Monitor, OpenOptions, Result, Selection, Spec, open};

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<()> {
    let source = std::env::args_os().nth(1).unwrap_or_else(|| OsString::from("image.tar"));
    let source = open(&Spec::parse(&source)?, &OpenOptions::default(), &Monitor::default())?;
    let image = source.select(&Selection::default())?;

    println!("source:   {}", source.kind());
    println!("image:    {}", image.id());
    println!("platform: {}", image.platform());
    println!("names:    {}", image.names.join(", "));
    println!("layers:   {}", image.layers.len());
    Ok(())
}
