//! `convert attach docker://HOST/NAME[:TAG]`: SIFs of a hosted image, attached to it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::convert::Convert;
use crate::attach::{Attach, AttachObserver, Attached, AttachedIndex};
use crate::cli::encryption::EncryptionOptions;
use crate::cli::environment::Environment;
use crate::cli::options::{
    Checks, Choice, ConfigOptions, Feedback, Given, ImageOptions, OutputOptions, RootOptions, SignatureOptions,
};
use crate::cli::printer::{self, Bytes, Voice, counted};
use crate::cli::registry::RegistryOptions;
use crate::cli::report::{Done, Recorder};
use crate::cli::session::Session;
use crate::cli::signals::Quit;
use crate::cli::signatures;
use crate::cli::values::{parsed, usage};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Note, Quoted, Reference};
use crate::output::Target;
use crate::report::{AttachedSif, AttachedSignature, OutputRecord, SourceRecord};
use crate::source::Spec;

/// `convert attach IMAGE`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AttachSifs {
    /// The hosted image: docker://HOST/NAME[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE")]
    image: OsString,
    /// Attach a SIF for this platform; may be repeated [default: every Linux platform of the image]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<String>,
    /// The tag of the index that lists the SIFs; "" for none [default: TAG.sif]
    #[arg(long, value_name = "TAG")]
    sif_tag: Option<String>,
    /// Attach a detached signature, too, to the image whose SIF it is of; may be repeated
    ///
    /// What --sign-detached wrote. Whoever converts the image with --signature referrer adds
    /// it to the SIF. Each SIF must have one: --platform chooses.
    #[arg(long, value_name = "FILE", verbatim_doc_comment, value_hint = clap::ValueHint::FilePath)]
    signature: Vec<PathBuf>,
    /// Attach the signatures and no SIF
    #[arg(long)]
    signature_only: bool,
    /// Take that tag from whatever else has it
    #[arg(long, short)]
    force: bool,
    /// none, gzip[:LEVEL] or zstd[:LEVEL] [default: gzip]
    #[arg(long, value_name = "KIND[:LEVEL]")]
    compression: Option<String>,
    /// Bytes in a block, a power of two from 4096 to 1048576 [default: 131072]
    #[arg(long, value_name = "BYTES")]
    block_size: Option<u32>,
    /// Carry the SBOM and the provenance that BuildKit attached to the image
    #[arg(long)]
    with_sbom: bool,
    /// Where an unnamed temporary file goes: each SIF is written there before it is pushed
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    tmpdir: Option<PathBuf>,
    /// How many threads may work at once [default: as many as this machine runs]
    #[arg(long, short, value_name = "N")]
    jobs: Option<String>,
    /// Refuse an image whose list of files takes more memory than this [default: 2G]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    /// Write a JSON report, on success and on failure; "-" is standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) report: Option<OsString>,
    #[command(flatten)]
    root: RootOptions,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// Attaches, and says how it went.
pub(in crate::cli) fn run(
    arguments: AttachSifs,
    given: &Given,
    words: &[OsString],
    environment: &Environment,
    quit: Quit,
) -> u8 {
    let (feedback, report) = (arguments.feedback.clone(), arguments.report.clone());
    Session::record((&feedback, report.as_deref()), words, environment, quit, |session| {
        let (voice, recorder) = (session.voice, &*session.recorder);
        recorder.record(|report| report.source = Some(SourceRecord::of(&arguments.image, None)));
        let attach = arguments.resolve(given, environment)?;
        session.supervise(|monitor| {
            let attached = attach.run(&Watching { reference: &attach.reference, recorder, voice }, monitor)?;
            conclude(&attach, &attached, voice, recorder);
            Ok(())
        })
    })
}

impl AttachSifs {
    /// Resolves text: options mean what they mean for a conversion to a SIF.
    pub(in crate::cli) fn resolve(self, given: &Given, environment: &Environment) -> Result<Attach> {
        given.expect("SIFs that are attached", |id| Ok(!["arch", "mirror"].contains(&id)))?;
        let Spec::Registry(name) = Spec::parse(&self.image)? else {
            let message = "SIFs are attached to an image on a registry";
            return Err(Error::new(ErrorKind::Usage, message).hint("write docker://HOST/NAME[:TAG]"));
        };
        let reference: Reference = name.parse()?;
        let platforms =
            self.platform.iter().map(|text| parsed("--platform", Some(text))).collect::<Result<Vec<_>>>()?;
        let mut attach = Attach::new(reference);
        attach.platforms = platforms.into_iter().flatten().collect();
        attach.replace = self.force;
        attach.signatures = self.signature.iter().map(|path| signatures::carried(path)).collect::<Result<_>>()?;
        attach.signatures_only = self.signature_only;
        if self.signature_only {
            if self.signature.is_empty() {
                let message = "option --signature-only has no effect without --signature";
                return Err(usage(message, "name the file of the signature with --signature, or leave it out"));
            }
            let idle = [(self.sif_tag.is_some(), "--sif-tag"), (self.force, "--force")];
            if let Some((_, option)) = idle.iter().find(|(is_given, _)| *is_given) {
                let message = format!("option {option} has no effect with --signature-only: there is no index");
                return Err(usage(message, format!("leave {option} out")));
            }
        }
        attach.index_tag = match self.sif_tag.as_deref() {
            None => attach.index_tag,
            Some("") => None,
            Some(tag) => Some(tag.to_string()),
        };
        let place = attach.place_of_index()?;
        let convert = Convert {
            source: Some(self.image),
            to: Some("sif".to_string()),
            output: Some(place.to_string().into()),
            input_command: None,
            choice: Choice { image: None, platform: None, tmpdir: self.tmpdir },
            registry: self.registry,
            output_options: OutputOptions {
                compression: self.compression,
                block_size: self.block_size,
                with_sbom: self.with_sbom,
                jobs: self.jobs,
                max_memory: self.max_memory,
                ..OutputOptions::default()
            },
            checks: Checks { report: self.report, ..Checks::default() },
            root: self.root,
            encryption: EncryptionOptions::default(),
            image: ImageOptions::default(),
            config: ConfigOptions::default(),
            signatures: SignatureOptions::default(),
            feedback: self.feedback,
        };
        let conversion = convert.resolve(given, environment)?;
        let Target::Sif(sif) = conversion.target else {
            return Err(Error::new(ErrorKind::Bug, "what is attached is not a SIF"));
        };
        (attach.sif, attach.open, attach.options) = (sif, conversion.open, conversion.options);
        Ok(attach)
    }
}

/// What the library finds out, recorded and told.
struct Watching<'a> {
    reference: &'a Reference,
    recorder: &'a Recorder,
    voice: Voice,
}

impl AttachObserver for Watching<'_> {
    fn attached(&self, sif: &AttachedSif) {
        self.recorder.record(|report| report.attached.get_or_insert_default().push(sif.clone()));
        let repository = Reference { tag: None, digest: None, ..self.reference.clone() };
        let AttachedSif { platform, manifest_digest, size, is_new, .. } = sif;
        let how = if *is_new { "attached" } else { "already attached" };
        self.voice.summary(&format!("{how}: {platform}, oras://{repository}@{manifest_digest}, {}", Bytes(*size)));
    }

    fn signature_attached(&self, signature: &AttachedSignature) {
        self.recorder.record(|report| report.attached_signatures.get_or_insert_default().push(signature.clone()));
        let AttachedSignature { platform, manifest_digest, key_ids, is_new, .. } = signature;
        let how = if *is_new { "attached" } else { "already attached" };
        let signer = Quoted(key_ids.as_bytes()).to_string();
        let repository = Reference { tag: None, digest: None, ..self.reference.clone() };
        self.voice.summary(&format!(
            "{how}: signature for {platform} by {}, {repository}@{manifest_digest}",
            signer.trim_matches('"')
        ));
    }

    fn note(&self, note: Note) {
        self.recorder.record(|report| report.notes.push(note));
    }
}

fn conclude(attach: &Attach, attached: &Attached, voice: Voice, recorder: &Recorder) {
    let seconds = recorder.seconds();
    let place = attach.place_of_index().map(|place| place.to_string()).unwrap_or_default();
    let record = OutputRecord::of_attached(&place, attached.index.map(|index| index.digest), &attached.sifs);
    if attached.index.is_some() {
        recorder.record(|report| report.output = Some(record.clone()));
    }
    if voice.json {
        return printer::event(&Done { event: "done", output: &record, seconds });
    }
    match attached.index {
        Some(AttachedIndex { digest, is_new, sifs }) => {
            let how = if is_new { "lists" } else { "already lists" };
            let sifs = counted(sifs as u64, "SIF", "SIFs");
            voice.summary(&format!("{place}@{digest} {how} {sifs}; {seconds:.1} s"));
        }
        None if attach.signatures_only => {
            let signatures = counted(attached.signatures.len() as u64, "signature", "signatures");
            voice.summary(&format!("{signatures}, no SIF; {seconds:.1} s"));
        }
        None => {
            let sifs = counted(attached.sifs.len() as u64, "SIF", "SIFs");
            voice.summary(&format!("{sifs}, no index; {seconds:.1} s"));
        }
    }
}
