//! The `convert` program.

#[expect(clippy::disallowed_methods, reason = "the one place that ends the process")]
fn main() {
    let quit = std::process::exit;
    quit(sif_convert::cli::run(std::env::args_os().collect(), quit))
}
