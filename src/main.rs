//! The program `sif-convert`.

/// What the static program allocates with: musl's own allocator is slow where an image has many files.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::disallowed_methods, reason = "the one place that ends the process")]
pub(crate) fn main() {
    let quit = std::process::exit;
    quit(sif_convert::cli::run(std::env::args_os().collect(), quit))
}
