//! The program around the library: words, exit codes, progress.
//!
//! The idea to hold: `args` is text, a file of `commands` is one command with its arguments, and only one place each
//! prints (`printer`), maps errors to exit codes (`exit`) and reads the clock (`report`). stdout carries data only.
//! Nothing here may hold logic that a user of the library would miss.

mod args;
mod changes;
mod commands;
mod environment;
mod exit;
mod fatal;
mod handover;
mod hints;
mod imagemagick;
mod options;
mod printer;
mod progress;
mod registry;
mod report;
mod report_file;
mod session;
mod settings;
mod signals;
mod subject;
mod values;

#[cfg(test)]
mod effects_tests;

use std::ffi::OsString;

use args::{Parsed, Word};
use commands::{cache, config, convert, inspect, pull, shim, verify};
use environment::Environment;
use printer::Voice;
use settings::Settings;

pub use signals::Quit;

/// Runs the program with `arguments` (the program's name included) and returns its exit code. `quit` is called only when
/// a signal arrives and the work does not stop on its own.
#[must_use]
pub fn run(arguments: Vec<OsString>, quit: Quit) -> i32 {
    let mut environment = Environment::of_process();
    registry::remember_secrets(&arguments, &environment);
    exit::install_panic_hook();
    let (parsed, given) = match args::parse(&arguments) {
        Ok(both) => both,
        Err(error) if arguments.get(1).is_some_and(|word| word == "pull") => {
            return i32::from(pull::misuse(error, &arguments));
        }
        Err(error) => return i32::from(session::misuse(error, &arguments, Voice::default())),
    };
    if parsed.heeds_settings() {
        match Settings::load(&environment) {
            Ok(settings) => environment.settings = settings,
            Err(error) => return i32::from(session::misuse(error, &arguments, Voice::default())),
        }
    }
    let code = match parsed {
        Parsed::Text(text) => session::printed(|| printer::data(text.as_bytes())),
        Parsed::Word(Word::Build(build)) => build.run(given, &arguments, &environment, quit),
        Parsed::Word(Word::Pull(pull)) => pull.run(given, &arguments, &environment, quit),
        Parsed::Word(Word::Shim(arguments)) => session::printed(|| printer::data(shim::page(&arguments)?.as_bytes())),
        Parsed::Word(Word::Verify(arguments)) => verify::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Inspect(arguments)) => inspect::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Cache(cache)) => session::printed(|| printer::data(cache::page(&cache)?.as_bytes())),
        Parsed::Word(Word::Config) => session::printed(|| printer::data(config::page(&environment).as_bytes())),
        Parsed::Word(Word::Completions { shell }) => session::printed(|| printer::data(&args::completions(shell))),
        Parsed::Word(Word::Man { directory }) => session::printed(|| printer::data(&args::man(directory.as_deref())?)),
        Parsed::Convert(convert) => convert::run(&convert, &given, None, &arguments, &environment, quit),
    };
    i32::from(code)
}
