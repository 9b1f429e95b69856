//! `convert FOLDER --to additional-files`: what a MedPerf submission calls additional files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::convert::{Convert, given_destination, refuse_one_place, write_options};
use crate::cli::environment::Environment;
use crate::cli::options::Given;
use crate::cli::printer::{self, Bytes, Voice, counted};
use crate::cli::report::{Done, Recorder};
use crate::cli::values::{parsed, usage};
use crate::error::Result;
use crate::folder::is_inside;
use crate::io::{Event, Monitor};
use crate::model::Quoted;
use crate::output::{AdditionalFiles, Destination, WriteOptions};
use crate::report::{OutputRecord, SourceRecord};

/// What has an effect on a folder that is packed; everything else is refused.
const OPTIONS: [&str; 11] =
    ["compression", "force", "if_exists", "jobs", "mode", "output", "progress", "quiet", "report", "to", "verbose"];

/// One folder to be packed, with every choice made.
#[derive(Debug)]
pub(in crate::cli) struct Packing {
    folder: PathBuf,
    target: AdditionalFiles,
    destination: Destination,
    options: WriteOptions,
}

/// Whether a folder is to be packed, and no image to be converted.
pub(in crate::cli) fn is_asked(arguments: &Convert) -> bool {
    arguments.to.as_deref() == Some(AdditionalFiles::NAME)
}

/// Resolves text.
pub(in crate::cli) fn resolve(arguments: &Convert, given: &Given, environment: &Environment) -> Result<Packing> {
    given.expect(AdditionalFiles::NAME, |id| Ok(OPTIONS.contains(&id)))?;
    let folder = PathBuf::from(arguments.source.as_deref().unwrap_or_default());
    let destination = match arguments.output.as_deref() {
        Some(output) => given_destination(output)?,
        None => Destination::from(AdditionalFiles::DEFAULT_NAME),
    };
    let report = arguments.checks.report.as_deref();
    refuse_one_place(report, &destination)?;
    if let Some(report) = report.filter(|report| *report != "-")
        && is_inside(&folder, Path::new(report))?
    {
        let message = format!("the report {} would lie in the folder that is packed", Quoted(report.as_bytes()));
        return Err(usage(message, "name a file outside of the folder with --report"));
    }
    let mut target = AdditionalFiles::new();
    target.compression = parsed("--compression", arguments.output_options.compression.as_deref())?;
    Ok(Packing { folder, target, destination, options: write_options(arguments, environment)? })
}

/// Packs, records, prints.
pub(in crate::cli) fn attempt(packing: &Packing, voice: Voice, recorder: &Recorder, monitor: &Monitor) -> Result<()> {
    let Packing { folder, target, destination, options } = packing;
    recorder.record(|report| {
        let mut source = SourceRecord::of(folder.as_os_str(), Some(folder));
        source.kind = Some("folder".to_string());
        report.source = Some(source);
    });
    let packed = target.prepare(folder, destination, options)?.write(folder, monitor)?;
    monitor.tell(Event::Done);
    let record = OutputRecord::of(AdditionalFiles::NAME, destination, &packed);
    let hex = packed.sha256.map(|sha256| sha256.hex()).unwrap_or_default();
    recorder.record(|report| {
        report.output = Some(record.clone());
        report.notes.extend(packed.notes.iter().cloned());
    });
    let (place, sum) = match destination.path() {
        None => ("standard output".to_string(), None),
        Some(path) => {
            let path = path.as_os_str();
            // Where the report takes standard output, it says the same.
            (Quoted(path.as_bytes()).to_string(), (!recorder.takes_stdout()).then(|| sum_line(&hex, path)))
        }
    };
    let seconds = recorder.seconds();
    if voice.json {
        printer::event(&Done { event: "done", output: &record, seconds });
    } else {
        let (size, entries) = (Bytes(packed.size), counted(packed.entries, "entry", "entries"));
        let wrote = if packed.is_reused() { "reused" } else { "wrote" };
        voice.summary(&format!("{wrote} {place}: {size}, {entries}, {seconds:.1} s, sha256 {hex}"));
    }
    sum.map_or(Ok(()), |line| printer::data(&line))
}

/// A line that `sha256sum --check` takes.
fn sum_line(hex: &str, path: &OsStr) -> Vec<u8> {
    let mut line = Vec::new();
    let mut name = Vec::new();
    for &byte in path.as_bytes() {
        match byte {
            b'\\' => name.extend_from_slice(b"\\\\"),
            b'\n' => name.extend_from_slice(b"\\n"),
            b'\r' => name.extend_from_slice(b"\\r"),
            _ => name.push(byte),
        }
    }
    // A backslash before the sum says that there are some in the name.
    if name.len() > path.len() {
        line.push(b'\\');
    }
    line.extend_from_slice(hex.as_bytes());
    line.extend_from_slice(b"  ");
    line.extend_from_slice(&name);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_sha256sum_writes_them() {
        assert_eq!(sum_line("ab", OsStr::new("x y")), b"ab  x y\n");
        assert_eq!(sum_line("ab", OsStr::new("x\\y\nz")), b"\\ab  x\\\\y\\nz\n");
    }
}
