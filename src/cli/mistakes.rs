//! Command lines that clap refuses, told in words of this program: what is wrong, and a line that works.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};
use clap::{ArgAction, Command};

use super::shell_word::shell_word;
use super::values::usage;
use crate::error::Error;
use crate::model::Quoted;
use crate::output::{AdditionalFiles, Target};

/// Words of other programs that run images.
const RUN: [&str; 4] = ["run", "exec", "shell", "start"];

/// The error for `arguments` (the program's name included) that are not a command line of `command`, as clap's `error` says.
pub(super) fn of(error: &clap::Error, arguments: &[OsString], command: &Command) -> Error {
    let words = arguments.get(1..).unwrap_or_default();
    if let Some(error) = after_dashes(words) {
        return error;
    }
    let line = Line::of(words, command);
    match line.operands.first().and_then(|word| word.to_str()).filter(|word| command.find_subcommand(word).is_some()) {
        Some(name) if words.first().is_some_and(|word| word == name) => {
            option_of_others(error, Some(name), command).unwrap_or_else(|| in_command(error, name))
        }
        Some(name) => before_command(name, words),
        _ => option_of_others(error, None, command)
            .or_else(|| misspelt_option(error, words))
            .or_else(|| first_word(&line, words, command))
            .or_else(|| more_than_one(&line))
            .or_else(|| something_missing(error, &line))
            .unwrap_or_else(|| in_words_of_clap(error, "sif-convert")),
    }
}

/// Options before the command.
fn before_command(name: &str, words: &[OsString]) -> Error {
    let at = words.iter().position(|word| word == name).unwrap_or(0);
    let meant = words[at..].iter().chain(&words[..at]).map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
    usage(format!("options stand behind the command, which is \"{name}\""), write(&format!("sif-convert {meant}")))
}

/// Options behind `--`, which are words there.
fn after_dashes(words: &[OsString]) -> Option<Error> {
    let at = words.iter().position(|word| word == "--")?;
    let (source, rest) = words.get(at + 1..)?.split_first()?;
    let option = rest.iter().find(|word| word.as_bytes().starts_with(b"-"))?;
    let meant = words[..at].iter().chain(rest).map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
    let error = format!("{} stands behind \"--\", where nothing is an option", quoted(option));
    Some(usage(error, write(&format!("sif-convert {meant} -- {}", shell_word(source)))))
}

/// A command line, taken apart as far as that can be done.
struct Line<'a> {
    /// Words that are neither options nor values of options.
    operands: Vec<&'a OsStr>,
    /// All others, in their order.
    options: Vec<&'a OsStr>,
    has_format: bool,
    has_output: bool,
}

impl<'a> Line<'a> {
    fn of(words: &'a [OsString], command: &Command) -> Self {
        let takes_value = |word: &str| {
            command.get_arguments().any(|each| {
                let is_meant = match word.strip_prefix("--") {
                    Some(long) => each.get_long() == Some(long),
                    None => each.get_short().is_some_and(|short| word == format!("-{short}")),
                };
                is_meant && matches!(each.get_action(), ArgAction::Set | ArgAction::Append)
            })
        };
        let mut line = Line { operands: Vec::new(), options: Vec::new(), has_format: false, has_output: false };
        let mut words = words.iter().map(OsString::as_os_str);
        while let Some(word) = words.next() {
            if !word.as_bytes().starts_with(b"-") || word == "-" {
                line.operands.push(word);
                continue;
            }
            let text = word.to_str().unwrap_or_default();
            line.has_format |= text == "-t" || text == "--to" || text.starts_with("--to=");
            line.has_output |= text == "-o" || text == "--output" || text.starts_with("--output=");
            line.options.push(word);
            if takes_value(text) {
                line.options.extend(words.next());
            }
        }
        line
    }

    /// The line that was meant, with `words` for its operands.
    fn with<'b>(&self, words: impl IntoIterator<Item = &'b OsStr>) -> String
    where
        'a: 'b,
    {
        let words = words.into_iter().chain(self.options.iter().copied()).map(shell_word);
        std::iter::once("sif-convert".to_string()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Whether a word is the name of a format.
fn is_format(word: &OsStr) -> bool {
    word == AdditionalFiles::NAME || Target::all().iter().any(|target| word == target.name())
}

fn quoted(word: &OsStr) -> Quoted<'_> {
    Quoted(word.as_bytes())
}

fn write(line: &str) -> String {
    format!("write: {line}")
}

/// An option that is none, whose value would count as a word too many.
fn misspelt_option(error: &clap::Error, words: &[OsString]) -> Option<Error> {
    const FORMAT: [&str; 5] = ["-to", "--format", "--type", "--target", "--output-format"];
    let name_of = |word: &OsString| word.to_str().map(|text| text.split('=').next().unwrap_or_default().to_string());
    let is_format = |word: &OsString| name_of(word).is_some_and(|name| FORMAT.contains(&name.as_str()));
    if let Some(wrong) = words.iter().find(|word| is_format(word)) {
        let meant = |word| if is_format(word) { OsString::from("--to") } else { word.clone() };
        let line: Vec<String> = words.iter().map(|word| shell_word(&meant(word))).collect();
        let error = format!("there is no option {}", quoted(wrong));
        return Some(usage(error, write(&format!("sif-convert {}", line.join(" ")))));
    }
    let is_option =
        matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(text)) if text.starts_with('-'));
    (error.kind() == ClapKind::UnknownArgument && is_option).then(|| in_words_of_clap(error, "sif-convert"))
}

/// A first word that was to be a command.
fn first_word(line: &Line<'_>, words: &[OsString], command: &Command) -> Option<Error> {
    let (&first, rest) = line.operands.split_first()?;
    let text = first.to_str().filter(|_| words.first().is_some_and(|word| word == first))?;
    if Path::new(first).exists() {
        return None;
    }
    if text == "convert" && !rest.is_empty() {
        let error = "there is no command \"convert\": to convert is what is done without one".to_string();
        return Some(usage(error, write(&line.with(rest.iter().copied()))));
    }
    if RUN.contains(&text) && !rest.is_empty() {
        let rest: Vec<String> = words[1..].iter().map(|word| shell_word(word)).collect();
        let error = format!("there is no command \"{text}\": images are converted here, and run by Apptainer");
        return Some(usage(error, write(&format!("apptainer {text} {}", rest.join(" ")))));
    }
    let lower = text.to_lowercase();
    let names = command.get_subcommands().filter(|each| !each.is_hide_set()).map(Command::get_name);
    let meant = names
        .filter(|name| distance(&lower, name) <= usize::from(name.len() > 3))
        .min_by_key(|name| distance(&lower, name))?;
    let meant = std::iter::once(OsStr::new(meant)).chain(rest.iter().copied());
    Some(usage(format!("there is no command \"{text}\", and no such file"), write(&line.with(meant))))
}

/// How many letters must be added, taken away, replaced or swapped with their neighbour to make `other` of `one`
/// (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Two words or more where one is expected.
fn more_than_one(line: &Line<'_>) -> Option<Error> {
    let [first, second, ..] = line.operands[..] else { return None };
    let joined = line.operands.join(OsStr::new(" "));
    if Path::new(&joined).exists() {
        let error = format!("{} came as {} words", quoted(&joined), line.operands.len());
        return Some(usage(error, write(&line.with([joined.as_os_str()]))));
    }
    if second == "to" && !line.has_format {
        let format = line.operands.get(2).copied().unwrap_or(OsStr::new("sif"));
        return Some(usage("\"to\" is an option", write(&line.with([first, OsStr::new("--to"), format]))));
    }
    if !line.has_format && is_format(second) {
        let error = format!("the format {} needs an option before it", quoted(second));
        return Some(usage(error, write(&line.with([first, OsStr::new("--to"), second]))));
    }
    if Path::new(second).exists() || line.operands.len() > 2 {
        let all: Vec<String> = line.operands.iter().map(|word| shell_word(word)).collect();
        let options: Vec<String> = line.options.iter().map(|word| shell_word(word)).collect();
        let format = if line.has_format { Vec::new() } else { vec!["--to sif".to_string()] };
        let options = [format, options].concat().join(" ");
        let error = format!("one SOURCE is converted at a time, and {} and {} are two", quoted(first), quoted(second));
        let hint = format!("for each in {}; do sif-convert \"$each\" {options}; done", all.join(" "));
        return Some(usage(error, write(&hint)));
    }
    if line.has_output {
        let error = format!("{} is a word too many: -o names the output already", quoted(second));
        return Some(usage(error, write(&line.with([first]))));
    }
    let error = format!("{} is a word too many: the output is named with -o", quoted(second));
    let mut meant = vec![first];
    if !line.has_format {
        meant.extend([OsStr::new("--to"), OsStr::new(format_of(second))]);
    }
    meant.extend([OsStr::new("-o"), second]);
    Some(usage(error, write(&line.with(meant))))
}

/// The format that an output of this name is likely to be of.
fn format_of(output: &OsStr) -> &'static str {
    match Path::new(output).extension().and_then(OsStr::to_str) {
        Some("sqsh" | "sqfs" | "squashfs") => "squashfs",
        Some("oci") => "oci",
        Some("tar" | "gz" | "tgz" | "zst") => "docker-archive",
        _ => "sif",
    }
}

/// The error for a call of `program` whose OUTPUT and SOURCE changed places: the output looks like a source, and what should
/// be the source is not there.
pub(super) fn swapped(output: &OsStr, source: &OsStr, program: &str) -> Option<Error> {
    let has_transport = |word: &OsStr| {
        let word = word.as_bytes();
        let transports = ["docker://", "oras://", "docker-archive:", "oci-archive:", "docker-daemon:", "library://"];
        transports.iter().any(|transport| word.starts_with(transport.as_bytes()))
    };
    let is_source = has_transport(output) || Path::new(output).exists();
    if !is_source || has_transport(source) || source.as_bytes().contains(&b':') || Path::new(source).exists() {
        return None;
    }
    let error =
        format!("the output comes first: {} would be written, and {} is not there", quoted(output), quoted(source));
    Some(usage(error, write(&format!("{program} {} {}", shell_word(source), shell_word(output)))))
}

/// No SOURCE, or no format.
fn something_missing(error: &clap::Error, line: &Line<'_>) -> Option<Error> {
    if error.kind() != ClapKind::MissingRequiredArgument {
        return None;
    }
    match line.operands.first() {
        Some(source) if !line.has_format => {
            let hint = write(&line.with([source, OsStr::new("--to"), OsStr::new("sif")]));
            Some(usage("option --to is missing: what is to be written", hint))
        }
        Some(_) => None,
        None if line.options.is_empty() => {
            Some(usage("SOURCE and --to FORMAT are missing", "\"sif-convert -h\" shows how it is called"))
        }
        None => Some(usage("SOURCE is missing: what is to be converted", write("sif-convert SOURCE --to sif"))),
    }
}

/// An option that only other commands have: a similar one of this command's may do something else altogether, or nothing for
/// whoever wanted a check. `name` is the command's.
fn option_of_others(error: &clap::Error, name: Option<&str>, command: &Command) -> Option<Error> {
    let (ClapKind::UnknownArgument, Some(ContextValue::String(given))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let option = given.split(['=', ' ']).next().filter(|option| option.starts_with("--"))?;
    let has = |command: &Command, option: &str| {
        command.get_arguments().any(|each| each.get_long() == option.strip_prefix("--"))
    };
    let here = name.map_or(Some(command), |name| command.find_subcommand(name))?;
    let message = match name {
        Some(name) => format!("sif-convert {name} has no option {option}"),
        None => format!("a conversion has no option {option}"),
    };
    if option.ends_with("-key") && has(here, "--key") {
        return Some(usage(message, "did you mean --key?"));
    }
    let main = (name.is_some() && has(command, option)).then(|| "\"sif-convert SOURCE --to FORMAT\"".to_string());
    let others = command.get_subcommands().filter(|each| !each.is_hide_set() && name != Some(each.get_name()));
    let others = others.filter(|each| has(each, option)).map(|each| format!("\"sif-convert {}\"", each.get_name()));
    let places: Vec<String> = main.into_iter().chain(others).collect();
    if let Some(own) = same_ending(option, here).filter(|_| !places.is_empty()) {
        return Some(usage(message, format!("did you mean --{own}?")));
    }
    (!places.is_empty()).then(|| usage(message, format!("it is an option of {}", places.join(", "))))
}

/// The option of this command whose name another command's ends in, after a dash: `--decrypt-pem` is `--pem` of what decrypts. What
/// begins with "no" is the opposite.
fn same_ending<'c>(option: &str, here: &'c Command) -> Option<&'c str> {
    let names = here.get_arguments().filter_map(|each| each.get_long());
    let is_meant = |name: &&str| option.strip_suffix(name).is_some_and(|rest| rest.len() > 3 && rest.ends_with('-'));
    names.filter(is_meant).max_by_key(|name| name.len()).filter(|_| !option.starts_with("--no-"))
}

/// A command that is called wrongly.
fn in_command(error: &clap::Error, name: &str) -> Error {
    in_words_of_clap(error, &format!("sif-convert {name}"))
}

/// clap's complaint in our form: its first paragraph is the message, its tips are the hint.
fn in_words_of_clap(error: &clap::Error, program: &str) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(all)) if !all.is_empty() => Some(all.join(", ")),
        _ => None,
    };
    let usage_hint = format!("\"{program} --help\" explains all options");
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let option = argument.split(' ').next().unwrap_or_default().to_string();
    match error.kind() {
        ClapKind::InvalidValue => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            if value.is_empty() {
                return usage(
                    format!("option {option} lacks its value"),
                    format!("write {}", without_marks(&argument)),
                );
            }
            invalid_value(error, &option, &value)
        }
        ClapKind::UnknownArgument => {
            let hint = match text(ContextKind::SuggestedArg) {
                Some(similar) => format!("did you mean {}?", similar.split(' ').next().unwrap_or_default()),
                None => usage_hint,
            };
            let name = Quoted(option.as_bytes());
            let is_option = option.starts_with('-');
            usage(
                if is_option { format!("there is no option {name}") } else { format!("{name} is a word too many") },
                hint,
            )
        }
        ClapKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg).unwrap_or_default();
            let name = |text: &str| text.split([' ', '[', '=']).next().unwrap_or_default().to_string();
            match (name(&option), name(&other)) {
                (option, other) if option == other => {
                    usage(format!("option {option} is given twice"), format!("leave one {option} out"))
                }
                (option, other) => usage(
                    format!("options {option} and {other} exclude each other"),
                    format!("leave {option} or {other} out"),
                ),
            }
        }
        ClapKind::MissingRequiredArgument => usage(
            format!("{} is missing", without_marks(&argument)),
            write(&without_marks(&usage_line(error, program))),
        ),
        ClapKind::InvalidSubcommand
        | ClapKind::MissingSubcommand
        | ClapKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let hint = match text(ContextKind::SuggestedSubcommand) {
                Some(similar) => format!("did you mean \"{program} {similar}\"?"),
                None => format!("\"{program} --help\" lists its commands"),
            };
            let message = if word.is_empty() {
                "a command is missing".to_string()
            } else {
                format!("there is no command {:?}", format!("{program} {word}"))
            };
            usage(message, hint)
        }
        _ => {
            let text = error.render().to_string();
            let message = text.split("\n\n").next().unwrap_or_default();
            let message = message.strip_prefix("error: ").unwrap_or(message);
            usage(message.lines().map(str::trim).collect::<Vec<_>>().join(" "), usage_hint)
        }
    }
}

/// `<FILE>...` is FILE.
fn without_marks(text: &str) -> String {
    text.replace(['<', '>'], "").replace("...", "")
}

/// How the command is called, as clap has it.
fn usage_line(error: &clap::Error, program: &str) -> String {
    let text = error.render().to_string();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ").map(str::to_string));
    line.unwrap_or_else(|| format!("{program} --help"))
}

/// A value that is none of those that there are.
fn invalid_value(error: &clap::Error, option: &str, value: &str) -> Error {
    let all = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => Vec::new(),
    };
    let same = |each: &&String| each.eq_ignore_ascii_case(value);
    let known = match (option, value.to_lowercase().as_str()) {
        ("--to", "singularity" | "apptainer" | "simg" | "image" | "img") => Some("sif"),
        ("--to", "docker" | "podman" | "docker-image") => Some("docker-archive"),
        ("--to", "tar" | "tar.gz" | "tgz" | "flat" | "filesystem") => Some("rootfs"),
        ("--to", "squash" | "sqsh" | "sqfs") => Some("squashfs"),
        ("--to", "oci-layout" | "oci-dir") => Some("oci"),
        _ => None,
    };
    let suggested = match error.get(ContextKind::SuggestedValue) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let suggested = suggested.filter(|_| option.starts_with('-'));
    let meant = known.or_else(|| all.iter().find(same).map(String::as_str)).or(suggested);
    let hint = match meant {
        Some(meant) if option.starts_with('-') => format!("write {option} {meant}"),
        Some(meant) => format!("write {meant}"),
        None => format!("it is one of {}", all.join(", ")),
    };
    let value = Quoted(value.as_bytes());
    let message = match option.strip_prefix('<') {
        Some(name) => format!("{} cannot be {value}", without_marks(name)),
        None => format!("option {option} does not take {value}"),
    };
    usage(message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        for (one, other, letters) in [
            ("inspect", "inspect", 0),
            ("inspct", "inspect", 1),
            ("isnpect", "inspect", 1),
            ("run", "man", 2),
            ("", "man", 3),
        ] {
            assert_eq!(distance(one, other), letters, "{one}");
        }
    }
}
