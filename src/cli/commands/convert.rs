//! `convert SOURCE --to FORMAT`: every choice made, once, before anything is opened; then done.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::additional_files;
use crate::cli::changes;
use crate::cli::encryption::EncryptionOptions;
use crate::cli::environment::Environment;
use crate::cli::options::{
    Attributes, Checks, Choice, ConfigOptions, Feedback, Given, ImageOptions, OutputOptions, RootOptions,
    SignatureOptions, WhenThere, open_options, selection, source, tmpdir,
};
use crate::cli::printer::{self, Bytes, Voice, counted};
use crate::cli::registry::{self, RegistryOptions};
use crate::cli::report::{Done, Recorder};
use crate::cli::report_file::{PROVENANCE, ReportFile};
use crate::cli::session::Session;
use crate::cli::signals::Quit;
use crate::cli::signatures;
use crate::cli::values::{
    bind_targets, entry_paths, expected, jobs, label, memory_bytes_max, mode, parsed, source_date_epoch, usage,
};
use crate::conversion::{Conversion, Observer};
use crate::error::{Error, Result, ResultExt};
use crate::image::Image;
use crate::io::{Monitor, is_stream};
use crate::model::{Note, Platform, Quoted};
use crate::output::{
    AdditionalFiles, Destination, Hosting, IfExists, Outcome, PushedBlobs, Target, WriteOptions, XattrPolicy,
};
use crate::report::{OutputRecord, Report, SourceRecord};
use crate::source::{InputHash, OpenOptions, Spec};

/// `convert SOURCE --to FORMAT`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Convert {
    /// Where the image comes from: a file, a directory, "-", or TRANSPORT:…
    #[arg(required = true, value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) source: Option<OsString>,
    /// What to write
    #[arg(long, short = 't', value_name = "FORMAT", required = true, value_parser = formats(), long_help = about_formats())]
    pub(in crate::cli) to: Option<String>,
    /// Where to write it; "-" is standard output [default: here, named after SOURCE]
    ///
    /// docker://HOST/NAME[:TAG] pushes an image (oci, docker-archive),
    /// oras://HOST/NAME:TAG a sif.
    #[arg(long, short, value_name = "FILE", verbatim_doc_comment, value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) output: Option<OsString>,
    /// Run this shell command and read the archive that it prints; SOURCE is "-"
    ///
    /// Nothing is written unless it exits with 0, as with set -o pipefail: gpg, ssh, curl.
    #[arg(long, value_name = "COMMAND", verbatim_doc_comment, value_hint = clap::ValueHint::CommandString)]
    pub(in crate::cli) input_command: Option<OsString>,

    #[command(flatten)]
    pub(in crate::cli) choice: Choice,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryOptions,
    #[command(flatten)]
    pub(in crate::cli) output_options: OutputOptions,
    #[command(flatten)]
    pub(in crate::cli) checks: Checks,
    #[command(flatten)]
    pub(in crate::cli) root: RootOptions,
    #[command(flatten)]
    pub(in crate::cli) encryption: EncryptionOptions,
    #[command(flatten)]
    pub(in crate::cli) image: ImageOptions,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigOptions,
    #[command(flatten)]
    pub(in crate::cli) signatures: SignatureOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// What the formats say of themselves.
fn about_formats() -> String {
    let formats = Target::all().into_iter().map(|target| (target.name(), target.about()));
    let formats = formats.chain([(AdditionalFiles::NAME, AdditionalFiles::ABOUT)]);
    formats.fold("What to write\n".to_string(), |text, (name, about)| format!("{text}\n{name}: {about}."))
}

fn formats() -> PossibleValuesParser {
    let names = Target::all().into_iter().map(|target| target.name());
    PossibleValuesParser::new(names.chain([AdditionalFiles::NAME]))
}

/// Converts, and says how it went.
pub(in crate::cli) fn run(
    arguments: &Convert,
    given: &Given,
    note: Option<Note>,
    words: &[OsString],
    environment: &Environment,
    quit: Quit,
) -> u8 {
    let report = arguments.checks.report.as_deref();
    Session::record((&arguments.feedback, report), words, environment, quit, |session| {
        let (voice, recorder) = (session.voice, &session.recorder);
        let spelling = arguments.source.as_deref().unwrap_or_default();
        recorder.record(|report| {
            report.source = Some(SourceRecord::of(spelling, None));
            report.notes.extend(note);
        });
        if additional_files::is_asked(arguments) {
            let packing = additional_files::resolve(arguments, given, environment)?;
            return session.supervise(|monitor| additional_files::attempt(&packing, voice, recorder, monitor));
        }
        let mut job = arguments.resolve(given, environment)?;
        let settled = settle_compression(&mut job.target, arguments, environment);
        recorder.record(|report| {
            report.source = Some(SourceRecord::of(spelling, job.source.path()));
            report.notes.extend(settled);
        });
        let provenance = arguments.checks.provenance.as_deref();
        let provenance = provenance.map(|word| ReportFile::open(word, &PROVENANCE)).transpose()?;
        session.supervise(|monitor| {
            attempt(&job, voice, recorder, monitor)?;
            provenance.iter().try_for_each(|place| recorder.attest(place))
        })
    })
}

impl Convert {
    /// Where the image comes from.
    fn spec(&self, environment: &Environment) -> Result<Spec> {
        let word = self.source.as_deref().unwrap_or_default();
        match (&self.input_command, Spec::parse(word)?) {
            (None, _) => source(word, environment),
            (Some(_), Spec::Stdin) => Ok(Spec::Stdin),
            (Some(_), spec) => {
                let message = format!("option --input-command has no effect on {spec}");
                Err(usage(message, "write - in place of SOURCE, or leave --input-command out"))
            }
        }
    }

    /// Resolves text.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Conversion> {
        let arguments = self;
        let spec = self.spec(environment)?;
        let mut target: Target = arguments.to.as_deref().unwrap_or_default().parse()?;
        let name = target.name();
        given.expect_or(name, |id| apply(id, &mut target, arguments), |id| instead(id, arguments))?;
        if let Some(encryption) = target.encryption_mut() {
            *encryption = arguments.encryption.encryption()?;
        }
        signatures::refuse_idle(&arguments.signatures)?;
        if let Some(signing) = target.signing_mut() {
            *signing = signatures::signing(&arguments.signatures)?;
        }
        let destination = match (arguments.output.as_deref(), arguments.signatures.sign_detached.as_deref()) {
            (Some(_), Some(_)) => return Err(signatures::two_outputs()),
            (Some(output), None) => given_destination(output)?,
            (None, Some(detached)) => Destination::Path(detached.to_path_buf()),
            (None, None) => target.default_name(&spec).map(Destination::from).ok_or_else(|| no_default_name(&spec))?,
        };
        registry::expect_registries(given, &spec, &destination, target.keeps_work())?;
        refuse_clashes(&spec, &destination, arguments.output.is_some(), &arguments.checks)?;
        let hash = match expected("--expect-sha256", arguments.checks.expect_sha256.as_deref())? {
            Some(expected) => InputHash::Expected(expected),
            None if arguments.checks.report.is_some() || arguments.checks.provenance.is_some() => InputHash::Wanted,
            None => InputHash::Unneeded,
        };
        let mut conversion = Conversion::new(spec, target, destination);
        conversion.open = OpenOptions {
            hash,
            input_command: arguments.input_command.clone(),
            secret: arguments.encryption.decryption.secret()?,
            registry: registry::settings(&arguments.registry, &conversion.source, environment)?,
            jobs: Some(jobs(&arguments.output_options, environment)?),
            all_root: arguments.root.all_root,
            keep_singularity: arguments.config.keep_singularity,
            trust: signatures::trust(&arguments.checks.trust)?,
            policy: signatures::policy(&arguments.checks.trust)?,
            ..open_options(&arguments.choice, true, environment)?
        };
        conversion.selection = selection(&arguments.choice)?;
        conversion.changes = changes::changes(labels_the_image(&mut conversion.target, arguments)?, arguments)?;
        conversion.options = write_options(arguments, environment)?;
        if let Destination::Registry(hosting) = &conversion.destination {
            let there = Spec::Registry(hosting.reference.to_string());
            conversion.options.registry = registry::settings(&arguments.registry, &there, environment)?;
        }
        conversion.options.cache =
            registry::work_cache(&arguments.registry, environment).filter(|_| conversion.target.keeps_work());
        conversion.always_open = arguments.checks.provenance.is_some();
        conversion.expected_digest = expected("--expect-digest", arguments.checks.expect_digest.as_deref())?;
        Ok(conversion)
    }
}

/// Puts the option `id` to where it belongs in `target`; whether it has an effect there. Options that are not listed have
/// one on every conversion of an image.
fn apply(id: &str, target: &mut Target, arguments: &Convert) -> Result<bool> {
    let (output, image, root) = (&arguments.output_options, &arguments.image, &arguments.root);
    Ok(match id {
        "compression" => set(target.compression_mut(), parsed("--compression", output.compression.as_deref())?),
        "block_size" => set(target.block_size_mut(), output.block_size),
        "for" => set(target.runtime_mut(), parsed("--for", output.runtime.as_deref())?.unwrap_or_default()),
        "provenance" => target.has_digest(),
        "with_sbom" => set(target.sbom_mut(), output.with_sbom),
        "arch" => set(target.architecture_mut(), root.arch.as_deref().map(go_architecture)),
        "reference" => set(target.root_mut().map(|it| &mut it.reference), root.reference.clone()),
        "xattrs" => set(target.root_mut().map(|it| &mut it.xattrs), xattrs(root.xattrs)),
        // Owners of a directory are this machine's.
        "all_root" => set(target.root_mut().map(|it| &mut it.all_root), root.all_root) || is_root_directory(arguments),
        "fix_perms" => set(target.root_mut().map(|it| &mut it.fix_perms), root.fix_perms),
        "keep_devices" => set(target.root_mut().map(|it| &mut it.keep_devices), root.keep_devices),
        "workdir" => {
            let is_named = root.workdir.as_deref().is_some_and(|path| !path.is_empty());
            set(target.root_mut().map(|it| &mut it.workdir), root.workdir.is_some())
                || is_named && (target.image_mut().is_some() || is_for_runtime(id, target, arguments)?)
        }
        "mkdir" => set(target.root_mut().map(|it| &mut it.mkdir), entry_paths("--mkdir", &root.mkdir)?),
        "mkfile" => set(target.root_mut().map(|it| &mut it.mkfile), entry_paths("--mkfile", &root.mkfile)?),
        "medperf_config" => {
            let targets = root.medperf_config.as_deref().map(bind_targets).transpose()?.unwrap_or_default();
            set(target.root_mut().map(|it| &mut it.bind_targets), targets)
        }
        "label" => {
            let labels = root.label.iter().map(|text| label(text)).collect::<Result<_>>()?;
            set(target.root_mut().map(|it| &mut it.labels), labels)
                || target.image_mut().is_some()
                || is_for_runtime(id, target, arguments)?
        }
        // What they name is read once only: it may be a pipe.
        id if EncryptionOptions::IDS.contains(&id) => target.encryption_mut().is_some(),
        "sign_key" | "sign_passphrase_file" | "sign_detached" | "signature" => target.signing_mut().is_some(),
        "flatten" => set(target.image_mut().map(|it| &mut it.flatten), image.flatten),
        "tag" => {
            let tags = image.tag.iter().map(|text| target.image_name(text).doing(|| "option --tag"));
            let tags = tags.collect::<Result<_>>();
            target.image_mut().map(|it| tags.map(|tags| it.tags = tags)).transpose()?.is_some()
        }
        "entrypoint" | "cmd" | "env" | "user" => {
            target.root_mut().is_some() || target.image_mut().is_some() || is_for_runtime(id, target, arguments)?
        }
        _ => true,
    })
}

/// Whether the option `id` says something that a squashfs holds because of `--for`.
fn is_for_runtime(id: &str, target: &mut Target, arguments: &Convert) -> Result<bool> {
    let Some(&mut plain) = target.runtime_mut() else { return Ok(false) };
    let runtime = parsed("--for", arguments.output_options.runtime.as_deref())?.unwrap_or(plain);
    Ok(runtime.keeps(id))
}

/// Whether labels are those of the image's config.
fn labels_the_image(target: &mut Target, arguments: &Convert) -> Result<bool> {
    Ok(target.image_mut().is_some() || is_for_runtime("label", target, arguments)?)
}

/// Whether the source is a directory that is not a layout of images.
fn is_root_directory(arguments: &Convert) -> bool {
    let path = arguments.source.as_deref().map(Path::new);
    path.is_some_and(|path| path.is_dir() && !path.join("index.json").exists())
}

/// Which target takes the option `id`, as the end of a hint.
fn instead(id: &str, arguments: &Convert) -> String {
    let takes = |target: &mut Target| apply(id, target, arguments).is_ok_and(|has_effect| has_effect);
    let other = Target::all().into_iter().find_map(|mut target| takes(&mut target).then(|| target.name()));
    other.map_or_else(String::new, |name| format!(", or convert --to {name}"))
}

/// Takes the compression of a SIF from the settings where no option says otherwise, and says so: it changes bytes.
pub(in crate::cli) fn settle_compression(
    target: &mut Target,
    arguments: &Convert,
    environment: &Environment,
) -> Option<Note> {
    let setting = environment.settings.compression.as_ref();
    let setting = setting.filter(|_| target.name() == "sif" && arguments.output_options.compression.is_none())?;
    set(target.compression_mut(), Some(setting.value));
    let text = format!("compression {} is set in {}", setting.value, Quoted(setting.file.as_os_str().as_bytes()));
    Some(Note::new("settings", text, 1))
}

fn set<T>(place: Option<&mut T>, value: T) -> bool {
    place.map(|place| *place = value).is_some()
}

fn xattrs(asked: Option<Attributes>) -> XattrPolicy {
    match asked {
        None | Some(Attributes::None) => XattrPolicy::None,
        Some(Attributes::Capabilities) => XattrPolicy::Capabilities,
        Some(Attributes::All) => XattrPolicy::All,
    }
}

/// What is the same for all that can be written.
pub(in crate::cli) fn write_options(arguments: &Convert, environment: &Environment) -> Result<WriteOptions> {
    let output = &arguments.output_options;
    let mut options =
        WriteOptions::default().jobs(jobs(output, environment)?).tmpdir(tmpdir(&arguments.choice, environment));
    options.if_exists = match output.if_exists {
        _ if output.force => Some(IfExists::Replace),
        None => None,
        Some(WhenThere::Fail) => Some(IfExists::Fail),
        Some(WhenThere::Replace) => Some(IfExists::Replace),
        Some(WhenThere::Reuse) => Some(IfExists::Reuse),
        Some(WhenThere::Update) => Some(IfExists::Update),
    };
    options.mode = mode(output.mode.as_deref())?;
    options.memory_bytes_max = memory_bytes_max(output)?;
    options.sha256 = arguments.checks.report.is_some() || arguments.checks.provenance.is_some();
    options.source_date_epoch = source_date_epoch(environment)?;
    Ok(options)
}

pub(in crate::cli) fn given_destination(output: &OsStr) -> Result<Destination> {
    if output.is_empty() {
        return Err(usage("option --output: the name is empty", "name a file, or \"-\" for standard output"));
    }
    match output.to_str().filter(|text| Hosting::is_address(text)) {
        Some(text) => text.parse::<Hosting>().map(Destination::from).doing(|| "option --output"),
        None if output == "-" => Ok(Destination::Stdout),
        None => Ok(Destination::Path(output.into())),
    }
}

fn no_default_name(spec: &Spec) -> Error {
    usage(format!("{spec} gives the output no name"), "name the output with -o FILE")
}

/// An output must not be the input, and two outputs must not be one. A layout may get one image more made of its own, but
/// only where it is `named` as output.
fn refuse_clashes(spec: &Spec, destination: &Destination, named: bool, checks: &Checks) -> Result<()> {
    if let (Some(source), Some(output)) = (spec.path(), destination.path())
        && (same_file(source, output) || !named && same_place(source, output))
    {
        let error = format!("the output {} is the source", Quoted(output.as_os_str().as_bytes()));
        return Err(usage(error, "name another output with -o"));
    }
    refuse_one_place(checks.report.as_deref(), destination)?;
    let Some(provenance) = checks.provenance.as_deref() else { return Ok(()) };
    if *destination == Destination::Stdout || destination.path().is_some_and(is_stream) {
        let message = "option --provenance has no effect on a stream: what it names the output by is its SHA-256";
        return Err(usage(message, "name a file with -o, or leave --provenance out"));
    }
    let is_one = |other: &OsStr| provenance == other || same_file(Path::new(provenance), Path::new(other));
    let places = [checks.report.as_deref(), destination.path().map(Path::as_os_str)];
    if places.into_iter().flatten().any(is_one) {
        return Err(usage(
            "the provenance and the report or the output go to the same place",
            "name another file with --provenance",
        ));
    }
    Ok(())
}

/// Two outputs must not be one.
pub(in crate::cli) fn refuse_one_place(report: Option<&OsStr>, destination: &Destination) -> Result<()> {
    let clash = match (report, destination.path()) {
        (Some(report), None) => report == "-" && *destination == Destination::Stdout,
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

/// What the library finds out, recorded and told.
pub(super) struct Watching<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) voice: Voice,
}

impl Observer for Watching<'_> {
    fn record(&self, change: &mut dyn FnMut(&mut Report)) {
        self.recorder.record(change);
    }

    fn selected(&self, image: &Image) {
        describe(image, self.voice);
    }
}

pub(in crate::cli) fn attempt(job: &Conversion, voice: Voice, recorder: &Recorder, monitor: &Monitor) -> Result<()> {
    let outcome = job.run(&Watching { recorder, voice }, monitor)?;
    summarise(job, &outcome, voice, recorder);
    Ok(())
}

fn describe(image: &Image, voice: Voice) {
    let names: Vec<String> = image.names.iter().map(|name| Quoted(name.as_bytes()).to_string()).collect();
    let names = if names.is_empty() { String::new() } else { format!(" {}", names.join(", ")) };
    voice.detail(&format!(
        "image {}{names}: {}, {}",
        image.id(),
        image.platform(),
        counted(image.layers.len() as u64, "layer", "layers")
    ));
}

pub(super) fn summarise(job: &Conversion, outcome: &Outcome, voice: Voice, recorder: &Recorder) {
    let seconds = recorder.seconds();
    if voice.json {
        let output = &OutputRecord::of(job.target.name(), &job.destination, outcome);
        return printer::event(&Done { event: "done", output, seconds });
    }
    let place = match &job.destination {
        Destination::Stdout => "standard output".to_string(),
        Destination::Path(path) => Quoted(path.as_os_str().as_bytes()).to_string(),
        Destination::Registry(hosting) => return voice.summary(&pushed(hosting, outcome, seconds)),
    };
    let (size, entries) = (Bytes(outcome.size), counted(outcome.entries, "entry", "entries"));
    voice.summary(&if outcome.is_reused() {
        format!("reused {place}: {size}, {seconds:.1} s")
    } else {
        format!("wrote {place}: {size}, {entries}, {seconds:.1} s")
    });
}

/// What was pushed, by the name that pins it.
pub(in crate::cli) fn pushed(hosting: &Hosting, outcome: &Outcome, seconds: f64) -> String {
    let digest = outcome.manifest_digest.map_or_else(String::new, |digest| format!("@{digest}"));
    let PushedBlobs { present, mounted, uploaded } = outcome.pushed.unwrap_or_default();
    let counts = [(uploaded, "uploaded"), (mounted, "mounted"), (present, "there already")];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, how)| format!("{count} {how}"));
    let counts = counts.collect::<Vec<_>>().join(", ");
    format!("pushed {hosting}{digest}: {}; blobs: {counts}; {seconds:.1} s", Bytes(outcome.size))
}

/// The name that images and SIF files have for an architecture: `uname` has others.
fn go_architecture(name: &str) -> String {
    Platform::new("linux", name, None).architecture
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::args::{Parsed, parse};
    use crate::cli::options::{ProgressMode, voice};
    use crate::error::ErrorKind;
    use crate::io::Compression;
    use crate::model::EntryPath;
    use crate::output::{ImageName, ImageOptions, Root};

    fn resolve_in(line: &str, environment: &Environment) -> Result<Conversion> {
        let words: Vec<OsString> = std::iter::once("convert").chain(line.split(' ')).map(OsString::from).collect();
        match parse(&words)? {
            (Parsed::Convert(convert), given) => convert.resolve(&given, environment),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn resolve(line: &str) -> Result<Conversion> {
        resolve_in(line, &Environment::bare())
    }

    fn with(name: &'static str, value: &str) -> Environment {
        let mut environment = Environment::bare();
        environment.variables.insert(name, value.into());
        environment
    }

    fn root(job: &Conversion) -> Root {
        job.target.clone().root_mut().cloned().unwrap()
    }

    fn image(job: &Conversion) -> ImageOptions {
        job.target.clone().image_mut().cloned().unwrap()
    }

    #[test]
    fn the_plain_call_has_every_choice_made() {
        let job = resolve("dir/x.tar --to sif-rootfs").unwrap();
        assert_eq!(job.source, Spec::Path("dir/x.tar".into()));
        assert!(job.selection.image.is_none() && job.selection.platform.is_none());
        assert_eq!(job.destination, Destination::Path("x.sif-rootfs.tar".into()));
        let options = &job.options;
        assert_eq!((options.if_exists, options.mode, options.jobs.get()), (None, None, 4));
        assert_eq!((options.tmpdir.as_path(), options.source_date_epoch), (Path::new("/tmp"), None));
        assert_eq!(format!("{:?}", root(&job)), format!("{:?}", Root::default()));
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
        let options = &job.options;
        assert_eq!(job.destination, Destination::Path("y".into()));
        assert_eq!((options.if_exists, options.mode, options.jobs.get()), (Some(IfExists::Replace), Some(0o600), 2));
        assert_eq!(job.target.clone().compression_mut(), Some(&mut Some(Compression::zstd(3))));
        assert_eq!((&options.tmpdir, &job.open.tmpdir), (&"t".into(), &"t".into()));
        let root = root(&job);
        assert!(root.all_root && root.fix_perms && root.keep_devices && root.workdir);
        assert_eq!(root.mkdir.iter().map(EntryPath::as_bytes).collect::<Vec<_>>(), [&b"a/b"[..], b"c"]);
        assert_eq!(root.mkfile[0].as_bytes(), b"f");
        assert_eq!(root.labels, [("a".into(), "b=c".into()), ("d".into(), String::new())]);
        assert_eq!((root.xattrs, root.reference.as_deref()), (XattrPolicy::All, Some("host/x:1")));
        assert_eq!(job.selection.image.as_deref(), Some("app:1"));
        assert_eq!(job.selection.platform.as_ref().unwrap().to_string(), "linux/amd64");
        assert_eq!(job.expected_digest.unwrap().hex(), hex.to_lowercase());
        assert_eq!(job.open.hash, InputHash::Expected(job.expected_digest.unwrap()));
    }

    #[test]
    fn nonsense_is_wrong_use_with_a_remedy() {
        for (line, message) in [
            ("- --to rootfs", "gives the output no name"),
            ("x.tar --to rootfs --workdir", "option --workdir has no effect on rootfs"),
            ("x.tar --to rootfs --label a=b", "option --label has no effect on rootfs"),
            ("x.tar --to rootfs --xattrs none", "option --xattrs has no effect on rootfs"),
            ("x.tar --to rootfs -j 0", "\"0\" is not a number of threads"),
            ("x.tar --to rootfs --mode 1777", "\"1777\" is not a file mode"),
            ("x.tar --to rootfs --mode +7", "\"+7\" is not a file mode"),
            ("x.tar --to rootfs --mode 8", "\"8\" is not a file mode"),
            ("x.tar --to rootfs --compression lz4", "option --compression: \"lz4\" is not a compression"),
            ("x.tar --to rootfs --compression gzip:13", "\"gzip:13\" is not a compression"),
            ("x.tar --to rootfs --platform amd64", "option --platform: \"amd64\" is not a platform"),
            ("x.tar --to rootfs --expect-digest sha512:00", "is not a SHA-256"),
            ("x.tar --to rootfs --expect-sha256 12", "is not a SHA-256"),
            ("x.tar --to rootfs --if-exists reuse", "rootfs output cannot be reused"),
            ("x.tar --to oci --if-exists reuse", "oci output cannot be reused"),
            ("x.tar --to oci --force", "an OCI layout is never replaced"),
            ("x.tar --to oci --if-exists replace", "an OCI layout is never replaced"),
            ("x.tar --to oci --mode 600", "an OCI layout has no mode of its own"),
            ("x.tar --to oci --workdir", "option --workdir has no effect on oci"),
            ("x.tar --to oci-archive --reference x", "option --reference has no effect on oci-archive"),
            ("x.tar --to docker-archive --block-size 4096", "option --block-size has no effect on docker-archive"),
            ("x.tar --to sif --flatten", "option --flatten has no effect on sif"),
            ("x.tar --to rootfs --tag x:1", "option --tag has no effect on rootfs"),
            ("x.tar --to docker-archive --tag X:1", "option --tag: \"X:1\" is not a name for an image"),
            ("x.tar --to oci --tag .x", "option --tag: \".x\" is not a name for an image"),
            ("x.tar --to rootfs -o - --report -", "the same place"),
            ("x.tar --to rootfs -o r --report r", "the same place"),
            ("x.tar --to sif-rootfs --mkdir /a/..", "this is the root itself"),
            ("x.tar --to sif-rootfs --label =v", "is not a label"),
            ("x.tar --to sif-rootfs --label v", "is not a label"),
        ] {
            let job = resolve(line);
            let error = job.and_then(|job| job.target.check(&job.destination, &job.options)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{line}: {error}");
            assert!(error.to_string().contains(message), "{line}: {error}");
            assert!(error.remedy().is_some(), "{line}");
        }
    }

    #[test]
    fn images_have_names_and_layouts_grow() {
        let oci = resolve("x.tar --to oci --flatten --tag v1 --tag a/b:2").unwrap();
        assert_eq!((oci.options.if_exists, image(&oci).flatten), (None, true));
        let full = |text: &str| ImageName::Full(text.parse().unwrap());
        assert_eq!(image(&oci).tags, [ImageName::Tag("v1".into()), full("a/b:2")]);
        let docker = resolve("x.tar --to docker-archive --tag v1 --force").unwrap();
        assert_eq!((image(&docker).tags, docker.options.if_exists), (vec![full("v1:latest")], Some(IfExists::Replace)));
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
    fn a_terminal_is_no_source() {
        let mut environment = Environment::bare();
        environment.stdin_is_terminal = true;
        let refused = resolve_in("- --to rootfs -o x", &environment).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), "standard input is a terminal");
        assert_eq!(resolve("- --to rootfs -o -").unwrap().destination, Destination::Stdout);
    }

    #[test]
    fn source_date_epoch_is_whole_seconds() {
        let epoch = |value: &str| resolve_in("x.tar --to rootfs", &with("SOURCE_DATE_EPOCH", value));
        assert_eq!(epoch("1700000000").unwrap().options.source_date_epoch, Some(1_700_000_000));
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
