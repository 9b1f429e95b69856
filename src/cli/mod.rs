//! The program around the library: words, exit codes, progress.
//!
//! The idea to hold: `args` is text, `job` is what the text means, and only one place each prints (`printer`), maps
//! errors to exit codes (`exit`) and reads the clock (`report`). stdout carries data only. Nothing here may hold logic
//! that a user of the library would miss.

mod args;
mod commands;
mod environment;
mod exit;
mod hashing;
mod imagemagick;
mod job;
mod names;
mod open;
mod pack;
mod printer;
mod progress;
mod registry;
mod report;
mod reuse;
mod run;
mod signals;
mod values;

use std::ffi::OsString;

use args::{Parsed, Word};
use commands::cache;
use environment::Environment;
use printer::Voice;

/// What ends the process at once; `main` owns it.
pub type Quit = fn(i32) -> !;

/// Runs the program with `arguments` (the program's name included) and returns its exit code. `quit` is called only when
/// a signal arrives and the work does not stop on its own.
#[must_use]
pub fn run(arguments: Vec<OsString>, quit: Quit) -> i32 {
    let environment = Environment::of_process();
    exit::install_panic_hook();
    let code = match args::parse(&arguments) {
        Ok(Parsed::Text(text)) => run::printed(|| printer::data(text.as_bytes())),
        Ok(Parsed::Word(Word::Build(build))) => run::build(*build, &arguments, &environment, quit),
        Ok(Parsed::Word(Word::Verify(verify))) => run::verify(&verify, &environment, quit),
        Ok(Parsed::Word(Word::Inspect(inspect))) => run::inspect(&inspect, &environment, quit),
        Ok(Parsed::Word(Word::Cache(cache))) => run::printed(|| printer::data(cache::page(&cache)?.as_bytes())),
        Ok(Parsed::Word(Word::Completions { shell })) => run::printed(|| printer::data(&args::completions(shell))),
        Ok(Parsed::Word(Word::Man)) => run::printed(|| printer::data(&args::man()?)),
        Ok(Parsed::Convert(convert)) => run::convert(&convert, None, &arguments, &environment, quit),
        Err(error) => run::misuse(error, &arguments, Voice::default()),
    };
    i32::from(code)
}
