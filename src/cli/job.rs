//! The command line as meaning: every choice made, once, before anything is opened.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::args::{
    Attributes, Checks, Choice, Convert, Feedback, ImageOptions, OutputOptions, ProgressMode, RootOptions, WhenThere,
};
use super::environment::Environment;
use super::names::default_output;
use super::open::{EngineSettings, OpenOptions, Selection, Spec, StreamHash};
use super::printer::Voice;
use super::registry;
use super::values::{bind_targets, entry_paths, expected, jobs, label, mode, parsed, source_date_epoch, tag, usage};
use crate::error::{Error, Result};
use crate::io::directory_of;
use crate::model::{Digest, Quoted};
use crate::output::{Compression, Destination, Format, IfExists, Request, XattrPolicy};

/// One conversion, ready to run.
#[derive(Debug)]
pub(super) struct Job {
    /// Where the image comes from.
    pub(super) source: Spec,
    /// How it is opened.
    pub(super) open: OpenOptions,
    /// Which image of it.
    pub(super) selection: Selection,
    /// What is made of it.
    pub(super) request: Request,
    /// What its manifest, index or config must hash to.
    pub(super) expect_digest: Option<Digest>,
    /// What the input file must hash to.
    pub(super) expect_sha256: Option<Digest>,
}

impl Job {
    /// Resolves text.
    pub(super) fn resolve(arguments: &Convert, environment: &Environment) -> Result<Job> {
        let spec = source(arguments.source.as_deref().unwrap_or_default(), environment)?;
        let format: Format = arguments.to.as_deref().unwrap_or_default().parse()?;
        refuse_root_options(format, &arguments.root)?;
        refuse_image_options(format, &arguments.image)?;
        let output = &arguments.output_options;
        let compression: Option<Compression> = parsed("--compression", output.compression.as_deref())?;
        let destination = match arguments.output.as_deref() {
            Some(output) => given_destination(output, environment)?,
            None => Destination::Path(
                default_output(&spec, format, compression).ok_or_else(|| no_default_name(&spec))?.into(),
            ),
        };
        refuse_clashes(&spec, &destination, arguments.output.is_some(), &arguments.checks)?;
        let expect_sha256 = expected("--expect-sha256", arguments.checks.expect_sha256.as_deref())?;
        if expect_sha256.is_some() && matches!(spec, Spec::DockerDaemon(_) | Spec::Registry(_)) {
            return Err(no_sha256(&spec));
        }
        let stream_hash = match expect_sha256 {
            Some(expected) => StreamHash::Expected(expected),
            None if arguments.checks.report.is_some() => StreamHash::Wanted,
            None => StreamHash::Unneeded,
        };
        Ok(Job {
            open: OpenOptions {
                adopting: adopting(format, &destination, arguments.image.flatten),
                stream_hash,
                registry: registry::settings(&arguments.registry, &spec, environment)?,
                ..open_options(&arguments.choice, true, environment)?
            },
            selection: selection(&arguments.choice)?,
            request: request(format, destination, compression, arguments, environment)?,
            expect_digest: expected("--expect-digest", arguments.checks.expect_digest.as_deref())?,
            expect_sha256,
            source: spec,
        })
    }
}

/// Where layers of a stream may be put so that they need not be written twice: on the file system of a layout that takes
/// them as they are.
fn adopting(format: Format, destination: &Destination, flatten: bool) -> Option<PathBuf> {
    match destination {
        Destination::Path(path) if format == Format::Oci && !flatten => {
            Some(if path.is_dir() { path.clone() } else { directory_of(path).to_path_buf() })
        }
        _ => None,
    }
}

/// Parses the SOURCE word.
pub(super) fn source(word: &OsStr, environment: &Environment) -> Result<Spec> {
    let spec = Spec::parse(word)?;
    if spec == Spec::Stdin && environment.stdin_is_terminal {
        return Err(usage("standard input is a terminal", "pipe an archive into it, or name a file as SOURCE"));
    }
    Ok(spec)
}

/// How a source is opened, but for registries. `want_layers` says whether layers will be read, or documents only.
pub(super) fn open_options(choice: &Choice, want_layers: bool, environment: &Environment) -> Result<OpenOptions> {
    Ok(OpenOptions {
        tmpdir: tmpdir(choice, environment),
        want_layers,
        stream_hash: StreamHash::Unneeded,
        platform: selection(choice)?.platform,
        engine: engine(environment)?,
        ..OpenOptions::default()
    })
}

/// How the local engine is found.
fn engine(environment: &Environment) -> Result<EngineSettings> {
    let text = |name: &str| match environment.variable(name).map(OsStr::to_str) {
        None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_string())),
        Some(None) => Err(usage(format!("environment {name} is not UTF-8"), format!("set {name} again, or unset it"))),
    };
    let path = |name: &str| environment.variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Ok(EngineSettings {
        docker_host: text("DOCKER_HOST")?,
        docker_context: text("DOCKER_CONTEXT")?,
        docker_tls_verify: environment.variable("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()),
        docker_cert_path: path("DOCKER_CERT_PATH"),
        docker_config: path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker"))),
        container_host: text("CONTAINER_HOST")?,
        runtime_dir: path("XDG_RUNTIME_DIR"),
    })
}

/// Why a source has no SHA-256 that could be expected.
pub(super) fn no_sha256(spec: &Spec) -> Error {
    usage(
        format!("option --expect-sha256: {spec} is not one file, so it has no SHA-256"),
        "use --expect-digest, which checks the image itself",
    )
}

/// Which image is meant by options; what the SOURCE word itself says is the source's to know.
pub(super) fn selection(choice: &Choice) -> Result<Selection> {
    let platform = parsed("--platform", choice.platform.as_deref())?;
    Ok(Selection { image: choice.image.clone(), platform })
}

/// Where temporaries go: the option, then what Apptainer, SingularityCE and everyone else look at.
pub(super) fn tmpdir(choice: &Choice, environment: &Environment) -> PathBuf {
    let variables = ["APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "TMPDIR"];
    let set = variables.into_iter().filter_map(|name| environment.variable(name)).find(|value| !value.is_empty());
    choice.tmpdir.clone().or_else(|| set.map(PathBuf::from)).unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// How much is said, and how progress is shown: `Auto` is resolved.
pub(super) fn voice(feedback: &Feedback, environment: &Environment) -> Result<(Voice, ProgressMode)> {
    let wanted = match (feedback.progress, environment.variable("CONVERT_PROGRESS").filter(|value| !value.is_empty())) {
        (Some(mode), _) => mode,
        (None, Some(value)) => {
            value.to_str().and_then(|text| ProgressMode::from_str(text, false).ok()).ok_or_else(|| {
                usage(
                    format!("environment CONVERT_PROGRESS: {} is no way to show progress", Quoted(value.as_bytes())),
                    "set it to auto, bar, plain, json or none",
                )
            })?
        }
        (None, None) => ProgressMode::Auto,
    };
    let bar_works = environment.stderr_is_terminal && environment.variable("TERM").is_none_or(|term| term != "dumb");
    let mode = match wanted {
        _ if feedback.quiet => ProgressMode::None,
        ProgressMode::Auto | ProgressMode::Bar if bar_works => ProgressMode::Bar,
        ProgressMode::Auto | ProgressMode::Bar => ProgressMode::Plain,
        mode => mode,
    };
    let json = wanted == ProgressMode::Json;
    Ok((Voice { quiet: feedback.quiet, verbose: feedback.verbose, json }, mode))
}

fn request(
    format: Format,
    destination: Destination,
    compression: Option<Compression>,
    arguments: &Convert,
    environment: &Environment,
) -> Result<Request> {
    let output = &arguments.output_options;
    let root = &arguments.root;
    Ok(Request {
        format,
        destination,
        compression,
        jobs: jobs(output, environment)?,
        tmpdir: tmpdir(&arguments.choice, environment),
        if_exists: if_exists(output, format)?,
        output_mode: output_mode(output, format, environment)?,
        block_size: block_size(output, format)?,
        architecture: root.arch.clone(),
        hash_output: arguments.checks.report.is_some(),
        source_date_epoch: source_date_epoch(environment)?,
        reference: root.reference.clone(),
        xattrs: match root.xattrs {
            None | Some(Attributes::None) => XattrPolicy::None,
            Some(Attributes::Capabilities) => XattrPolicy::Capabilities,
            Some(Attributes::All) => XattrPolicy::All,
        },
        all_root: root.all_root,
        fix_perms: root.fix_perms,
        keep_devices: root.keep_devices,
        workdir: root.workdir,
        mkdir: entry_paths("--mkdir", &root.mkdir)?,
        mkfile: entry_paths("--mkfile", &root.mkfile)?,
        bind_targets: root.medperf_config.as_deref().map(bind_targets).transpose()?.unwrap_or_default(),
        labels: root.label.iter().map(|text| label(text)).collect::<Result<_>>()?,
        flatten: arguments.image.flatten,
        tags: arguments.image.tag.iter().map(|text| tag(text, format)).collect::<Result<_>>()?,
    })
}

pub(super) fn given_destination(output: &OsStr, environment: &Environment) -> Result<Destination> {
    if output.is_empty() {
        return Err(usage("option --output: the name is empty", "name a file, or \"-\" for standard output"));
    }
    if output != "-" {
        return Ok(Destination::Path(output.into()));
    }
    if environment.stdout_is_terminal {
        return Err(usage("standard output is a terminal", "send it to a file or a pipe, or name a file with -o"));
    }
    Ok(Destination::Stdout)
}

fn no_default_name(spec: &Spec) -> Error {
    usage(format!("{spec} gives the output no name"), "name the output with -o FILE, or \"-o -\" for standard output")
}

/// An output must not be the input, and two outputs must not be one. A layout may get one image more made of its own, but
/// only where it is `named` as output.
fn refuse_clashes(spec: &Spec, destination: &Destination, named: bool, checks: &Checks) -> Result<()> {
    let output = match destination {
        Destination::Stdout => None,
        Destination::Path(path) => Some(path.as_path()),
    };
    if let (Some(source), Some(output)) = (spec.path(), output)
        && (same_file(source, output) || !named && same_place(source, output))
    {
        let error = format!("the output {} is the source", Quoted(output.as_os_str().as_bytes()));
        return Err(usage(error, "name another output with -o"));
    }
    refuse_one_place(checks.report.as_deref(), destination)
}

/// Two outputs must not be one.
pub(super) fn refuse_one_place(report: Option<&OsStr>, destination: &Destination) -> Result<()> {
    let output = match destination {
        Destination::Stdout => None,
        Destination::Path(path) => Some(path.as_path()),
    };
    let clash = match (report, output) {
        (Some(report), None) => report == "-",
        (Some(report), Some(output)) => report != "-" && (report == output || same_file(Path::new(report), output)),
        (None, _) => false,
    };
    if clash {
        Err(usage("the report and the output go to the same place", "name another file with --report"))
    } else {
        Ok(())
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    one.is_file() && same_place(one, other)
}

fn same_place(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The options for a Singularity root have no meaning elsewhere, and an option without an effect is a mistake.
fn refuse_root_options(format: Format, root: &RootOptions) -> Result<()> {
    if format == Format::Sif || format == Format::SifRootfs && root.arch.is_none() {
        return Ok(());
    }
    match first_root_option(root) {
        Some("--reference") if format.is_image() => {
            Err(usage(format!("option --reference has no meaning for {format}"), "name the image with --tag"))
        }
        Some(option) => Err(usage(
            format!("option {option} has no meaning for {format}"),
            format!("leave {option} out, or convert --to {}", Format::Sif),
        )),
        None => Ok(()),
    }
}

/// The first option for a Singularity root that is given.
pub(super) fn first_root_option(root: &RootOptions) -> Option<&'static str> {
    let given = [
        ("--arch", root.arch.is_some()),
        ("--xattrs", root.xattrs.is_some()),
        ("--all-root", root.all_root),
        ("--fix-perms", root.fix_perms),
        ("--keep-devices", root.keep_devices),
        ("--workdir", root.workdir),
        ("--mkdir", !root.mkdir.is_empty()),
        ("--mkfile", !root.mkfile.is_empty()),
        ("--medperf-config", root.medperf_config.is_some()),
        ("--label", !root.label.is_empty()),
        ("--reference", root.reference.is_some()),
    ];
    given.into_iter().find_map(|(option, given)| given.then_some(option))
}

/// What a file system has no place for, and what goes without saying there.
fn refuse_image_options(format: Format, image: &ImageOptions) -> Result<()> {
    let given = [("--flatten", image.flatten), ("--tag", !image.tag.is_empty())];
    match given.into_iter().find(|(_, given)| *given && !format.is_image()) {
        Some((option, _)) => Err(usage(
            format!("option {option} has no meaning for {format}"),
            format!("leave {option} out, or convert --to {}", Format::Oci),
        )),
        None => Ok(()),
    }
}

fn if_exists(output: &OutputOptions, format: Format) -> Result<IfExists> {
    match output.if_exists {
        Some(WhenThere::Replace) if format == Format::Oci => Err(never_replaced("--if-exists replace")),
        None if output.force && format == Format::Oci => Err(never_replaced("--force")),
        None if format == Format::Oci => Ok(IfExists::Add),
        _ if output.force => Ok(IfExists::Replace),
        None | Some(WhenThere::Fail) => Ok(IfExists::Fail),
        Some(WhenThere::Replace) => Ok(IfExists::Replace),
        Some(WhenThere::Reuse) if format == Format::Sif => Ok(IfExists::Reuse),
        Some(WhenThere::Update) if format == Format::Sif => Ok(IfExists::Update),
        Some(WhenThere::Reuse | WhenThere::Update) => Err(usage(
            format!("option --if-exists: {format} cannot be reused, for it does not say what it was made from"),
            "reuse and update are for outputs of the format sif; use --if-exists replace",
        )),
    }
}

/// A layout may hold other images.
fn never_replaced(option: &str) -> Error {
    usage(
        format!("option {option} has no meaning for oci: an OCI layout is never replaced"),
        format!("leave {option} out: the image is added to the layout, and its tag moves to it"),
    )
}

fn block_size(output: &OutputOptions, format: Format) -> Result<Option<u32>> {
    match output.block_size {
        Some(_) if format != Format::Sif => Err(usage(
            format!("option --block-size has no meaning for {format}"),
            "leave --block-size out, or convert --to sif",
        )),
        Some(bytes) if !bytes.is_power_of_two() || !(4096..=1 << 20).contains(&bytes) => Err(usage(
            format!("option --block-size: {bytes} is not a block size"),
            "write a power of two from 4096 to 1048576",
        )),
        bytes => Ok(bytes),
    }
}

/// A SIF is a program (its first line starts it), a tar is not.
fn output_mode(output: &OutputOptions, format: Format, environment: &Environment) -> Result<u32> {
    let usual = if format == Format::Sif { 0o777 } else { 0o666 };
    if format == Format::Oci && output.mode.is_some() {
        return Err(usage("option --mode has no meaning for oci", "leave --mode out: the umask says who may read"));
    }
    mode(output.mode.as_deref(), usual, environment)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::args::{Parsed, parse};
    use crate::error::ErrorKind;
    use crate::model::EntryPath;
    use crate::output::ImageName;

    fn resolve_in(line: &str, environment: &Environment) -> Result<Job> {
        let words: Vec<OsString> = std::iter::once("convert").chain(line.split(' ')).map(OsString::from).collect();
        match parse(&words)? {
            Parsed::Convert(convert) => Job::resolve(&convert, environment),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn resolve(line: &str) -> Result<Job> {
        resolve_in(line, &Environment::bare())
    }

    fn with(name: &'static str, value: &str) -> Environment {
        let mut environment = Environment::bare();
        environment.variables.insert(name, value.into());
        environment
    }

    #[test]
    fn the_plain_call_has_every_choice_made() {
        let job = resolve("dir/x.tar --to sif-rootfs").unwrap();
        let request = job.request;
        assert_eq!(job.source, Spec::Path("dir/x.tar".into()));
        assert!(job.selection.image.is_none() && job.selection.platform.is_none());
        assert_eq!(request.destination, Destination::Path("x.sif-rootfs.tar".into()));
        assert_eq!((request.compression, request.if_exists), (None, IfExists::Fail));
        assert_eq!((request.output_mode, request.jobs.get()), (0o644, 4));
        assert_eq!((request.tmpdir.as_path(), request.source_date_epoch), (Path::new("/tmp"), None));
        assert_eq!(request.xattrs, XattrPolicy::None);
    }

    #[test]
    fn options_arrive() {
        let hex = "AB".repeat(32);
        let job = resolve(&format!(
            "x.tar --to sif-rootfs -o y -f --mode 600 -j 2 --compression zstd:3 --tmpdir t --xattrs all --all-root \
             --fix-perms --keep-devices --workdir --mkdir /a/b --mkdir c --mkfile /f --label a=b=c --label d= \
             --reference host/x:1 --image app:1 --platform linux/x86_64 --expect-digest sha256:{hex} --expect-sha256 {hex}"
        ))
        .unwrap();
        let request = job.request;
        assert_eq!(request.destination, Destination::Path("y".into()));
        assert_eq!((request.if_exists, request.output_mode, request.jobs.get()), (IfExists::Replace, 0o600, 2));
        assert_eq!((request.compression, request.tmpdir), (Some(Compression::Zstd(Some(3))), "t".into()));
        assert!(request.all_root && request.fix_perms && request.keep_devices && request.workdir);
        assert_eq!(request.mkdir.iter().map(EntryPath::as_bytes).collect::<Vec<_>>(), [&b"a/b"[..], b"c"]);
        assert_eq!(request.mkfile[0].as_bytes(), b"f");
        assert_eq!(request.labels, [("a".into(), "b=c".into()), ("d".into(), String::new())]);
        assert_eq!((request.xattrs, request.reference.as_deref()), (XattrPolicy::All, Some("host/x:1")));
        assert_eq!(job.selection.image.as_deref(), Some("app:1"));
        assert_eq!(job.selection.platform.unwrap().to_string(), "linux/amd64");
        assert_eq!(job.expect_digest, job.expect_sha256);
        assert_eq!(job.expect_digest.unwrap().hex(), hex.to_lowercase());
    }

    #[test]
    fn nonsense_is_wrong_use_with_a_remedy() {
        for (line, message) in [
            ("- --to rootfs", "gives the output no name"),
            ("x.tar --to rootfs --workdir", "option --workdir has no meaning for rootfs"),
            ("x.tar --to rootfs --label a=b", "option --label has no meaning for rootfs"),
            ("x.tar --to rootfs --xattrs none", "option --xattrs has no meaning for rootfs"),
            ("x.tar --to rootfs -j 0", "\"0\" is not a number of threads"),
            ("x.tar --to rootfs --mode 1777", "\"1777\" is not a file mode"),
            ("x.tar --to rootfs --mode +7", "\"+7\" is not a file mode"),
            ("x.tar --to rootfs --mode 8", "\"8\" is not a file mode"),
            ("x.tar --to rootfs --compression lz4", "option --compression: \"lz4\" is not a compression"),
            ("x.tar --to rootfs --compression gzip:13", "\"gzip:13\" is not a compression"),
            ("x.tar --to rootfs --platform amd64", "option --platform: \"amd64\" is not a platform"),
            ("x.tar --to rootfs --expect-digest sha512:00", "is not a SHA-256"),
            ("x.tar --to rootfs --expect-sha256 12", "is not a SHA-256"),
            ("x.tar --to rootfs --if-exists reuse", "rootfs cannot be reused"),
            ("x.tar --to oci --if-exists reuse", "oci cannot be reused"),
            ("x.tar --to oci --force", "option --force has no meaning for oci"),
            ("x.tar --to oci --if-exists replace", "an OCI layout is never replaced"),
            ("x.tar --to oci --mode 600", "option --mode has no meaning for oci"),
            ("x.tar --to oci --workdir", "option --workdir has no meaning for oci"),
            ("x.tar --to oci-archive --reference x", "option --reference has no meaning for oci-archive"),
            ("x.tar --to docker-archive --block-size 4096", "option --block-size has no meaning for docker-archive"),
            ("x.tar --to sif --flatten", "option --flatten has no meaning for sif"),
            ("x.tar --to rootfs --tag x:1", "option --tag has no meaning for rootfs"),
            ("x.tar --to docker-archive --tag X:1", "option --tag: \"X:1\" is no name for an image"),
            ("x.tar --to oci --tag .x", "option --tag: \".x\" is no name for an image"),
            ("x.tar --to rootfs -o - --report -", "the same place"),
            ("x.tar --to rootfs -o r --report r", "the same place"),
            ("x.tar --to sif-rootfs --mkdir /a/..", "this is the root itself"),
            ("x.tar --to sif-rootfs --label =v", "is not a label"),
            ("x.tar --to sif-rootfs --label v", "is not a label"),
        ] {
            let error = resolve(line).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{line}: {error}");
            assert!(error.to_string().contains(message), "{line}: {error}");
            assert!(error.remedy().is_some(), "{line}");
        }
    }

    #[test]
    fn images_have_names_and_layouts_grow() {
        let request = |line: &str| resolve(line).unwrap().request;
        let oci = request("x.tar --to oci --flatten --tag v1 --tag a/b:2");
        assert_eq!((oci.if_exists, oci.flatten), (IfExists::Add, true));
        let full = |text: &str| ImageName::Full(text.parse().unwrap());
        assert_eq!(oci.tags, [ImageName::Tag("v1".into()), full("a/b:2")]);
        assert_eq!(request("x.tar --to oci --if-exists fail").if_exists, IfExists::Fail);
        let docker = request("x.tar --to docker-archive --tag v1 --force");
        assert_eq!((docker.tags, docker.if_exists), (vec![full("v1:latest")], IfExists::Replace));
    }

    #[test]
    fn a_layout_gets_nothing_of_its_own_by_accident() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("x.oci");
        std::fs::create_dir(&source).unwrap();
        let (source, output) = (source.as_os_str(), Destination::Path(source.clone()));
        let spec = Spec::parse(source).unwrap();
        assert!(refuse_clashes(&spec, &output, true, &Checks::default()).is_ok());
        let error = refuse_clashes(&spec, &output, false, &Checks::default()).unwrap_err();
        assert!(error.to_string().ends_with("is the source"), "{error}");
    }

    #[test]
    fn the_output_is_never_the_source() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let error = resolve(&format!("{path} --to rootfs -f -o {path}")).map(|_| ()).unwrap_err();
        assert!(error.to_string().ends_with("is the source"), "{error}");
    }

    #[test]
    fn terminals_take_no_data() {
        let mut environment = Environment::bare();
        environment.stdout_is_terminal = true;
        environment.stdin_is_terminal = true;
        let refused = |line: &str| resolve_in(line, &environment).map(|_| ()).unwrap_err().to_string();
        assert_eq!(refused("x.tar --to rootfs -o -"), "standard output is a terminal");
        assert_eq!(refused("- --to rootfs -o x"), "standard input is a terminal");
        assert_eq!(resolve("- --to rootfs -o -").unwrap().request.destination, Destination::Stdout);
    }

    #[test]
    fn source_date_epoch_is_whole_seconds() {
        let epoch = |value: &str| resolve_in("x.tar --to rootfs", &with("SOURCE_DATE_EPOCH", value));
        assert_eq!(epoch("1700000000").unwrap().request.source_date_epoch, Some(1_700_000_000));
        for bad in ["", "-1", "1.5", "now", "+1", "99999999999999999999"] {
            assert_eq!(epoch(bad).map(|_| ()).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn tmpdir_is_looked_up_in_order() {
        let mut environment = with("TMPDIR", "/third");
        let found = |environment: &Environment| tmpdir(&Choice::default(), environment);
        assert_eq!(found(&environment), Path::new("/third"));
        environment.variables.insert("SINGULARITY_TMPDIR", "/second".into());
        assert_eq!(found(&environment), Path::new("/second"));
        environment.variables.insert("APPTAINER_TMPDIR", "/first".into());
        assert_eq!(found(&environment), Path::new("/first"));
        environment.variables.insert("APPTAINER_TMPDIR", "".into());
        assert_eq!(found(&environment), Path::new("/second"));
        let choice = Choice { tmpdir: Some("/zeroth".into()), ..Choice::default() };
        assert_eq!(tmpdir(&choice, &environment), Path::new("/zeroth"));
    }

    #[test]
    fn progress_follows_option_then_environment_then_terminal() {
        let mode = |feedback: Feedback, environment: &Environment| voice(&feedback, environment).map(|(_, mode)| mode);
        let mut terminal = Environment::bare();
        terminal.stderr_is_terminal = true;
        assert_eq!(mode(Feedback::default(), &Environment::bare()).unwrap(), ProgressMode::Plain);
        assert_eq!(mode(Feedback::default(), &terminal).unwrap(), ProgressMode::Bar);
        terminal.variables.insert("TERM", "dumb".into());
        assert_eq!(mode(Feedback::default(), &terminal).unwrap(), ProgressMode::Plain);
        let json = with("CONVERT_PROGRESS", "json");
        assert_eq!(mode(Feedback::default(), &json).unwrap(), ProgressMode::Json);
        let plain = Feedback { progress: Some(ProgressMode::Plain), ..Feedback::default() };
        assert_eq!(mode(plain, &json).unwrap(), ProgressMode::Plain);
        let quiet = Feedback { quiet: true, ..Feedback::default() };
        assert_eq!(mode(quiet, &json).unwrap(), ProgressMode::None);
        let wrong = mode(Feedback::default(), &with("CONVERT_PROGRESS", "loud")).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Usage);
    }
}
