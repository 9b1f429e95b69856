//! `convert FOLDER --to additional-files`: what a MedPerf submission calls additional files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::args::{Convert, WhenThere};
use super::environment::Environment;
use super::job;
use super::printer::{self, Bytes, Grouped, Voice};
use super::report::{OutputRecord, Recorder, SourceRecord};
use super::values::{self, usage};
use crate::error::Result;
use crate::folder::is_inside;
use crate::io::Monitor;
use crate::model::Quoted;
use crate::output::{self, Compression, Destination, IfExists, PackRequest};

/// What `--to` takes besides the formats of images.
pub(super) const WORD: &str = "additional-files";

/// What the output is called where nobody says so: what MedPerf calls it.
const DEFAULT_NAME: &str = "additional_files.tar.gz";

/// Whether a folder is to be packed, and no image to be converted.
pub(super) fn is_asked(arguments: &Convert) -> bool {
    arguments.to.as_deref() == Some(WORD)
}

/// Every choice made.
pub(super) fn resolve(arguments: &Convert, environment: &Environment) -> Result<PackRequest> {
    refuse_options_of_images(arguments)?;
    let folder = Path::new(arguments.source.as_deref().unwrap_or_default());
    let output = &arguments.output_options;
    let destination = match arguments.output.as_deref() {
        Some(output) => job::given_destination(output, environment)?,
        None => Destination::Path(DEFAULT_NAME.into()),
    };
    let report = arguments.checks.report.as_deref();
    job::refuse_one_place(report, &destination)?;
    let request = PackRequest {
        folder: folder.to_path_buf(),
        level: level(output.compression.as_deref())?,
        jobs: values::jobs(output, environment)?,
        if_exists: match output.if_exists {
            _ if output.force => IfExists::Replace,
            None | Some(WhenThere::Fail) => IfExists::Fail,
            Some(WhenThere::Reuse) => IfExists::Reuse,
            // What is there is replaced by the same bytes, or by others.
            Some(WhenThere::Replace | WhenThere::Update) => IfExists::Replace,
        },
        output_mode: values::mode(output.mode.as_deref(), 0o666, environment)?,
        source_date_epoch: values::source_date_epoch(environment)?,
        destination,
    };
    if let Destination::Path(path) = &request.destination {
        refuse_inside(folder, path, "the output", "-o")?;
    }
    match report {
        Some(report) if report != "-" => refuse_inside(folder, Path::new(report), "the report", "--report")?,
        _ => {}
    }
    Ok(request)
}

/// An option without an effect is a mistake.
fn refuse_options_of_images(arguments: &Convert) -> Result<()> {
    let (choice, output, checks) = (&arguments.choice, &arguments.output_options, &arguments.checks);
    let given = [
        ("--image", choice.image.is_some()),
        ("--platform", choice.platform.is_some()),
        ("--tmpdir", choice.tmpdir.is_some()),
        ("--block-size", output.block_size.is_some()),
        ("--expect-digest", checks.expect_digest.is_some()),
        ("--expect-sha256", checks.expect_sha256.is_some()),
    ];
    let given = given.into_iter().find(|(_, given)| *given).map(|(option, _)| option);
    match given.or_else(|| job::first_root_option(&arguments.root)) {
        Some(option) => Err(usage(format!("option {option} has no meaning for {WORD}"), format!("leave {option} out"))),
        None => Ok(()),
    }
}

fn level(compression: Option<&str>) -> Result<u32> {
    let Some(text) = compression else { return Ok(output::PACK_LEVEL_DEFAULT) };
    match text.parse() {
        Ok(Compression::Gzip(None)) => Ok(output::PACK_LEVEL_DEFAULT),
        Ok(Compression::Gzip(Some(level))) if level <= 9 => Ok(level),
        _ => Err(usage(
            format!("option --compression: {text:?} is not for {WORD}, which MedPerf reads as a .tar.gz"),
            "write gzip, or gzip:1 to gzip:9",
        )),
    }
}

fn refuse_inside(folder: &Path, path: &Path, what: &str, option: &str) -> Result<()> {
    if is_inside(folder, path)? {
        let path = Quoted(path.as_os_str().as_bytes());
        let message = format!("{what} {path} would lie in the folder that is packed");
        return Err(usage(message, format!("name a file outside of the folder with {option}")));
    }
    Ok(())
}

/// Packs, records, prints.
pub(super) fn attempt(request: &PackRequest, voice: Voice, recorder: &Recorder, monitor: &Monitor) -> Result<()> {
    recorder.record(|report| {
        let mut source = SourceRecord::of(request.folder.as_os_str(), Some(&request.folder));
        source.kind = Some("folder".to_string());
        report.source = Some(source);
    });
    let packed = output::pack(request, monitor)?;
    let record = OutputRecord::packed(request, WORD, &packed);
    recorder.record(|report| {
        report.output = Some(record.clone());
        report.notes.extend(packed.notes.iter().cloned());
    });
    let (place, sum) = match &request.destination {
        Destination::Stdout => ("standard output".to_string(), None),
        Destination::Path(path) => {
            let path = path.as_os_str();
            // Where the report takes standard output, it says the same.
            (
                Quoted(path.as_bytes()).to_string(),
                (!recorder.takes_stdout()).then(|| sum_line(&packed.sha256.hex(), path)),
            )
        }
    };
    let seconds = recorder.seconds();
    if voice.json {
        printer::event(&super::run::Done { event: "done", output: &record, seconds });
    } else {
        let (size, entries, hex) = (Bytes(packed.size), Grouped(packed.entries), packed.sha256.hex());
        voice.summary(&format!("wrote {place}: {size}, {entries} entries, {seconds:.1} s, sha256 {hex}"));
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
    use crate::error::{Error, ErrorKind};

    #[test]
    fn sums_are_written_as_sha256sum_writes_them() {
        assert_eq!(sum_line("ab", OsStr::new("x y")), b"ab  x y\n");
        assert_eq!(sum_line("ab", OsStr::new("x\\y\nz")), b"\\ab  x\\\\y\\nz\n");
    }

    #[test]
    fn only_gzip_is_a_tar_gz() {
        assert_eq!(level(None).unwrap(), 6);
        assert_eq!(level(Some("gzip")).unwrap(), 6);
        assert_eq!(level(Some("gzip:9")).unwrap(), 9);
        for wrong in ["none", "zstd", "gzip:12", "lz4", ""] {
            let error: Error = level(Some(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
