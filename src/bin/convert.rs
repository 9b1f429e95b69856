//! `sif-convert` under the name that its callers use.

#[path = "../main.rs"]
mod sif_convert_program;

fn main() {
    sif_convert_program::main();
}
