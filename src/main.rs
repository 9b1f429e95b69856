//! The program `sif-convert`.

#[expect(clippy::disallowed_methods, reason = "the one place that ends the process")]
pub(crate) fn main() {
    let quit = std::process::exit;
    quit(sif_convert::cli::run(std::env::args_os().collect(), quit))
}
