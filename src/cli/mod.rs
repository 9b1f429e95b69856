//! The program around the library: words, exit codes, progress.
//!
//! The idea to hold: `args` is text, a file of `commands` is one command with its arguments, and only one place each
//! prints (`printer`), maps errors to exit codes (`exit`) and reads the clock (`report`). stdout carries data only.
//! Nothing here may hold logic that a user of the library would miss.

mod args;
mod board;
mod changes;
mod commands;
mod completions;
mod encryption;
mod environment;
mod exit;
mod fatal;
mod handover;
mod hints;
mod imagemagick;
mod keys;
mod looking;
mod manual;
mod mistakes;
mod narrator;
mod options;
mod printer;
mod progress;
mod prompt;
mod registry;
mod report;
mod report_file;
mod screen;
mod session;
mod settings;
mod shell_word;
mod signals;
mod signatures;
mod subject;
mod values;

#[cfg(test)]
mod effects_tests;

use std::ffi::OsString;

use args::{Parsed, Word};
use commands::{attach, batch, cache, cat, config, convert, decrypt, diff, inspect, ls, pull, shim, sign, verify};
use environment::Environment;
use printer::Voice;
use settings::Settings;

pub use signals::Quit;

use crate::error::Error;

/// Whether a program reads what is written, even where stderr is a terminal: it calls "build" or "pull", or asks for plain
/// lines. pexpect, for one, gives each program a terminal.
fn has_lines_read(arguments: &[OsString], environment: &Environment) -> bool {
    let words = || arguments.iter().skip(1).filter_map(|word| word.to_str());
    let option = words().zip(words().skip(1)).find_map(|(word, next)| match word.split_once('=') {
        Some(("--progress", value)) => Some(value),
        _ => Some(next).filter(|_| word == "--progress"),
    });
    let option = option.or_else(|| words().next_back()?.strip_prefix("--progress="));
    let progress = option.or_else(|| environment.variable("CONVERT_PROGRESS")?.to_str());
    words().next().is_some_and(|word| ["build", "pull"].contains(&word))
        || progress.is_some_and(|value| !["", "auto", "bar"].contains(&value))
}

/// Runs the program with `arguments` (the program's name included) and returns its exit code. `quit` is called only when
/// a signal arrives and the work does not stop on its own.
#[must_use]
pub fn run(arguments: Vec<OsString>, quit: Quit) -> i32 {
    let mut environment = Environment::of_process();
    registry::remember_secrets(&arguments, &environment);
    exit::install_panic_hook();
    if environment.wants_colour() && !has_lines_read(&arguments, &environment) {
        printer::colour();
    }
    let (parsed, given) = match args::parse(&arguments) {
        Ok(both) => both,
        Err(error) => return misuse(error, &arguments),
    };
    if parsed.heeds_settings() {
        match Settings::load(&environment) {
            Ok(settings) => environment.settings = settings,
            Err(error) => return misuse(error, &arguments),
        }
    }
    let code = match parsed {
        Parsed::Text(text) => session::printed(|| printer::data(text.as_bytes())),
        Parsed::Word(Word::Build(build)) => build.run(given, &arguments, &environment, quit),
        Parsed::Word(Word::Batch(many)) => batch::run(&many, &given, &arguments, &environment, quit),
        Parsed::Word(Word::Pull(pull)) => pull.run(given, &arguments, &environment, quit),
        Parsed::Word(Word::Push(push)) => push.run(&given, &arguments, &environment, quit),
        Parsed::Word(Word::Attach(attach)) => attach::run(*attach, &given, &arguments, &environment, quit),
        Parsed::Word(Word::Shim(arguments)) => session::printed(|| printer::data(shim::page(&arguments)?.as_bytes())),
        Parsed::Word(Word::Verify(arguments)) => verify::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Ls(arguments)) => ls::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Cat(arguments)) => cat::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Diff(arguments)) => diff::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Sign(arguments)) => sign::run(&arguments, &environment, quit),
        Parsed::Word(Word::Decrypt(decrypt)) => decrypt::run(&decrypt, &arguments, &environment, quit),
        Parsed::Word(Word::Inspect(arguments)) => inspect::run(&arguments, &given, &environment, quit),
        Parsed::Word(Word::Cache(cache)) => {
            session::printed(|| printer::data(cache::page(&cache, &environment)?.as_bytes()))
        }
        Parsed::Word(Word::Config) => session::printed(|| printer::data(config::page(&environment).as_bytes())),
        Parsed::Word(Word::Completions { shell }) => {
            session::printed(|| printer::data(&args::completion_script(shell)))
        }
        Parsed::Word(Word::Complete { words }) => {
            session::printed(|| printer::data(args::completed(&words).as_bytes()))
        }
        Parsed::Word(Word::Man { command, directory }) => {
            session::printed(|| printer::data(&args::man(command.as_deref(), directory.as_deref())?))
        }
        Parsed::Convert(convert) => convert::run(&convert, &given, None, &arguments, &environment, quit),
    };
    i32::from(code)
}

/// Ends what cannot begin, in the words of the command that was meant.
fn misuse(error: Error, arguments: &[OsString]) -> i32 {
    i32::from(match arguments.get(1) {
        Some(word) if word == "pull" => pull::misuse(error, arguments),
        _ => session::misuse(error, arguments, Voice::default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_read_lines_without_colour() {
        let read = |line: &str, set: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let mut environment = Environment::bare();
            environment.variables.insert("CONVERT_PROGRESS", set.into());
            has_lines_read(&words, &environment)
        };
        assert!(!read("c x --to sif", "") && !read("c inspect x", "auto") && !read("c x --progress bar", "plain"));
        assert!(read("c build x y", "") && read("c pull x y", "") && read("c x --to sif", "plain"));
        assert!(
            read("c x --progress plain --to sif", "")
                && read("c --progress=json x", "")
                && read("c x --progress=none", "")
        );
    }
}
