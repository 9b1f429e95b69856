use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::attested::Attested;
use super::builders::{accessors, builders};
use super::encrypted::{self, Begun, EncryptedPartition, Encryption};
use super::file_system::Shortcut;
use super::flat::{self, BlockChoice, Foresight, Written};
use super::origin::Origin;
use super::place::Place;
use super::prepared::Task;
use super::root::Made;
use super::sealed::Sealed;
use super::verify::sealed_image;
use super::{Format, Outcome, Root, Signing, Transport, WriteOptions, file_system, hash_file, policy, verify_sif};
use crate::error::{Error, ErrorKind, IoResultExt, Remedy, Result, ResultExt as _};
use crate::image::Image;
use crate::io::{Compression, Levels, Monitor, Region};
use crate::layers::Flattened;
use crate::model::{Digest, Note, OUTPUT_FORMAT};
use crate::sif::{self, Architecture, Container, FileSystem, HiddenObjects};
use crate::squashfs::Options;
use crate::tree::FileData;
use crate::trust::PrivateKey;
use crate::volume::EncryptedRoot;

/// A SIF file, runnable by Singularity and Apptainer: definition, JSON objects, and a squashfs that is written at its final
/// place.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Sif {
    /// How the file system is compressed; `None` is gzip.
    pub compression: Option<Compression>,
    /// Bytes in a data block, a power of two from 4 KiB to 1 MiB; `None` is 128 KiB.
    pub block_size: Option<u32>,
    /// What the programs inside run on, in Go's spelling, whatever config and programs say.
    pub architecture: Option<String>,
    /// What goes into the root.
    pub root: Root,
    /// What the root is encrypted with.
    pub encryption: Option<Encryption>,
    /// Who signs it.
    pub signing: Signing,
    /// Whether it carries the SBOM and the provenance that stand beside the image: see [`Image::attestations`].
    pub with_sbom: bool,
}

builders!(Sif: "Compressed with gzip, with nothing added but what Singularity expects.", compression, block_size, root);

impl Sif {
    /// Says what the programs inside run on, whatever the image says.
    #[must_use]
    pub fn architecture(mut self, name: impl Into<String>) -> Self {
        self.architecture = Some(name.into());
        self
    }

    /// A digest of all choices that decide the bytes of the file, beside the image and the output format; `None` where each is
    /// the usual one. Whoever makes the same ones gets the same file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the compression is not one that a SIF has.
    pub fn effective_options(&self, options: &WriteOptions) -> Result<Option<String>> {
        let usual = Levels::SQUASHFS.settle(None)?;
        let compression = Levels::SQUASHFS.settle(self.compression)?;
        let usual_block = crate::squashfs::Options::new(0, options.jobs).block_size;
        let words = [
            self.root.choices(),
            (compression != usual).then(|| format!("compression {compression}")),
            self.block_size.filter(|&bytes| bytes != usual_block).map(|bytes| format!("block-size {bytes}")),
            self.architecture.as_ref().map(|name| format!("architecture {name}")),
            options.source_date_epoch.map(|seconds| format!("source-date-epoch {seconds}")),
            self.encryption.as_ref().map(|encryption| format!("encrypted with {}", encryption.kind())),
            self.signing.choices(),
            self.with_sbom.then(|| "with-sbom".to_string()),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        Ok((!words.is_empty()).then(|| Digest::of(words.join("\n").as_bytes()).to_string()))
    }

    /// Encrypts the root. Only a `Conversion` keeps what a source puts into temporary files from disks,
    /// too: see [`OpenOptions`](crate::source::OpenOptions).
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// A digest of the choices that decide what is inside, where they are not the usual ones, as the file records it.
    pub(crate) fn choices(&self) -> Option<String> {
        let root = self.root.choices();
        let more = match &self.encryption {
            Some(encryption) => format!("encrypted with {}", encryption.kind()),
            None if self.with_sbom => "with-sbom".to_string(),
            None => return root,
        };
        Some(Digest::of(format!("{}\n{more}", root.unwrap_or_default()).as_bytes()).to_string())
    }

    /// What the file says that it was made from.
    fn recorded_image(&self, image: &str) -> String {
        if self.encryption.is_some() { encrypted::hidden_image(image) } else { image.to_string() }
    }

    /// Refuses a file at `path` that is encrypted with another passphrase.
    fn expect_passphrase(&self, path: &Path) -> Result<()> {
        let Some(Encryption::Passphrase(passphrase)) = &self.encryption else { return Ok(()) };
        let container = Container::open(Region::open(path)?)?;
        let Some(primary) = container.primary() else { return Ok(()) };
        EncryptedRoot::open(container.data(primary)?)?.check(passphrase).map_err(|error| match error.kind() {
            ErrorKind::Mismatch => {
                let message = format!("output {path:?} exists and is encrypted with another passphrase");
                Error::new(ErrorKind::Output, message).with_remedy(Remedy::Replace)
            }
            _ => error,
        })
    }

    /// Has it signed with `key`.
    #[must_use]
    pub fn sign_with(mut self, key: PrivateKey) -> Self {
        self.signing.key = Some(key);
        self
    }

    /// The same, signed by nobody: what is signed.
    #[must_use]
    pub fn unsigned(mut self) -> Self {
        self.signing = Signing::default();
        self
    }

    /// The file at `path`, where it is whole, and what is written now from the image with the ID `image`. `made_at` is the time in
    /// it, in seconds, where that is known.
    fn usable(
        &self,
        path: &Path,
        image: &str,
        (architecture, attested, made_at): (Option<&str>, Option<&Attested>, Option<i64>),
        task: &Task,
        monitor: &Monitor,
    ) -> Result<Outcome> {
        let whole =
            verify_sif(path, None, task.options.jobs, monitor).map_err(|error| error.with_remedy(Remedy::Replace))?;
        let image = &self.recorded_image(image);
        let refuse = |message| Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::Replace));
        if whole.image.as_ref() != Some(image) {
            let made = whole.image.unwrap_or_else(|| "something that it does not name".to_string());
            return refuse(format!("output {path:?} exists and was made from {made}, not from image {image}"));
        }
        if whole.choices != self.choices() {
            return refuse(format!("output {path:?} exists and was made from this image with other options"));
        }
        if let (Some(expected), Some(made_for)) = (architecture, whole.architecture)
            && expected != made_for
        {
            return refuse(format!("output {path:?} exists and was made for {made_for}, not for {expected}"));
        }
        let blocks = file_system::options(self.compression, self.block_size, Default::default(), task)?;
        if whole.packing.is_some_and(|found| found != blocks.packing()) {
            return refuse(format!("output {path:?} exists and was made with another compression or block size"));
        }
        if whole.format != Some(OUTPUT_FORMAT) {
            return refuse(format!("output {path:?} exists and was made in another output format"));
        }
        if let Some(expected) = made_at
            && created_at(path)? != expected
        {
            return refuse(format!("output {path:?} exists and was made with another SOURCE_DATE_EPOCH"));
        }
        self.expect_passphrase(path)?;
        attested.map_or(Ok(()), |attested| attested.expect_in(path))?;
        self.signing.is_done(path, monitor).map_err(|error| {
            let message = format!("output {path:?} exists and is not signed as it would be: {error}");
            Error::new(ErrorKind::Output, message).with_remedy(Remedy::Replace)
        })?;
        let found = std::fs::metadata(path).or_kind(ErrorKind::Output)?;
        if task.options.mode.is_some_and(|mode| found.mode() & 0o7777 != mode) {
            let permissions = std::fs::Permissions::from_mode(task.mode);
            std::fs::set_permissions(path, permissions)
                .or_kind(ErrorKind::Output)
                .doing(|| format!("changing the mode of {path:?}"))?;
        }
        let size = found.len();
        let sha256 = if task.options.sha256 { Some(hash_file(path, monitor)?) } else { None };
        Ok(Outcome { size, sha256, entries: whole.names, notes: whole.notes, ..Outcome::default() })
    }

    /// Writes the SIF and says how long it is in bytes.
    fn write_file(
        &self,
        image: &Image,
        mut flattened: Flattened,
        place: &Place,
        (shortcut, attested, begun): (Option<&Shortcut>, Option<&Attested>, Option<&Begun>),
        (task, monitor): (&Task, &Monitor),
    ) -> Result<Written> {
        let made = self.root.make(image, &mut flattened, self.architecture.as_deref(), task)?;
        let Made { mut notes, architecture, prepared } = made;
        notes.extend(policy::drop_unstorable_xattrs(&mut flattened.tree));
        let names = flattened.tree.walk().count() as u64;
        let architecture = sif_architecture(architecture.as_deref())?;
        let time = task.made_at(image);
        let read = |data: &FileData| {
            let mut bytes = vec![0; data.size as usize];
            flattened.contents.read_at(data, &mut bytes, 0).map(|()| bytes).map_err(crate::io::read_error)
        };
        let (inspect_metadata, left_out) = prepared.inspect_metadata(&flattened.tree, &read)?;
        notes.extend(left_out);
        let documents = [("inspect-metadata.json", inspect_metadata), ("oci-config.json", prepared.oci_config)];
        let mut documents: BTreeMap<String, Vec<u8>> = documents.map(|(name, bytes)| (name.to_string(), bytes)).into();
        let mut sboms = Vec::new();
        if let Some(attested) = attested {
            documents.extend(attested.provenance.iter().cloned());
            notes.extend(attested.note.clone());
            sboms.clone_from(&attested.sboms);
        }
        let definition = prepared.definition.into_bytes();
        let file = place.expect_file("a SIF")?;
        let options = file_system::options(self.compression, self.block_size, time, task)?;
        let contents = sif::Contents {
            definition: Some(definition),
            sboms,
            json: documents,
            ..sif::Contents::new(architecture, time.seconds)
        };
        let (bytes, more) = match begun {
            None => self.write_plain(image, flattened, contents, options, file, (shortcut, monitor))?,
            Some(begun) => {
                self.write_encrypted(begun.clone(), image, flattened, contents, options, file, (shortcut, monitor))?
            }
        };
        notes.extend(more);
        let bytes = if self.signing.is_empty() { bytes } else { self.signing.apply(file, time.seconds, monitor)? };
        Ok(Written { names, bytes, notes })
    }

    fn write_plain(
        &self,
        image: &Image,
        flattened: Flattened,
        contents: sif::Contents,
        options: Options,
        file: &Arc<File>,
        (shortcut, monitor): (Option<&Shortcut>, &Monitor),
    ) -> Result<(u64, Vec<Note>)> {
        let sealed = self.begin(image, contents, file)?;
        let (padded_bytes, notes) = file_system::write(flattened, sealed.store(), options, shortcut, monitor)?;
        let bytes = sealed.finish(padded_bytes)?;
        Origin::of(image).record(file);
        Ok((bytes, notes))
    }

    /// The keys of the encrypted root. They take 64 MiB for a moment, which is over before layers are read.
    fn begin_encryption(&self, image: &Image, task: &Task) -> Result<Option<Begun>> {
        let Some(encryption) = &self.encryption else { return Ok(None) };
        let options = file_system::options(self.compression, self.block_size, task.made_at(image), task)?;
        let Options { compression, block_size, mkfs_time, .. } = options;
        let choices = self.choices().unwrap_or_default();
        let context = format!(
            "format {OUTPUT_FORMAT}\nimage {}\nchoices {choices}\n{compression} {block_size} {mkfs_time}",
            image.id()
        );
        encryption.begin(&context).map(Some)
    }

    /// What a SIF in the clear tells in objects lies in the encrypted partition: configs have secrets, too.
    #[allow(clippy::too_many_arguments, reason = "one step of one method")]
    fn write_encrypted(
        &self,
        mut begun: Begun,
        image: &Image,
        flattened: Flattened,
        contents: sif::Contents,
        options: Options,
        file: &Arc<File>,
        (shortcut, monitor): (Option<&Shortcut>, &Monitor),
    ) -> Result<(u64, Vec<Note>)> {
        let objects = self.hidden_objects(image, &contents)?.to_json()?;
        let contents = sif::Contents {
            definition: None,
            file_system: FileSystem::GocryptfsSquashfs,
            key_message: begun.message.take(),
            json: BTreeMap::new(),
            ..contents
        };
        let sealed = self.begin(image, contents, file)?;
        let partition = EncryptedPartition::new(begun, sealed.store(), options.mkfs_time)?;
        let (_, notes) = file_system::write(flattened, partition.clone(), options, shortcut, monitor)?;
        let padded_bytes = partition.finish(&objects)?;
        Ok((sealed.finish(padded_bytes)?, notes))
    }

    fn hidden_objects(&self, image: &Image, contents: &sif::Contents) -> Result<HiddenObjects> {
        let text = |bytes: &Vec<u8>| {
            let not_text = |error| Error::new(ErrorKind::Bug, format!("an object of the SIF is not text: {error}"));
            String::from_utf8(bytes.clone()).map_err(not_text)
        };
        let json = contents.json.iter().map(|(name, bytes)| Ok((name.clone(), text(bytes)?)));
        Ok(HiddenObjects {
            definition: contents.definition.as_ref().map_or(Ok(String::new()), text)?,
            json: json.collect::<Result<_>>()?,
            image: image.id().to_string(),
            options: self.root.choices(),
            format: OUTPUT_FORMAT,
        })
    }

    /// Writes what comes before the partition.
    fn begin<'a>(&self, image: &Image, mut contents: sif::Contents, file: &'a Arc<File>) -> Result<Sealed<'a>> {
        let others = contents.json.len()
            + contents.sboms.len()
            + usize::from(contents.definition.is_some())
            + usize::from(contents.key_message.is_some());
        let image = self.recorded_image(&image.id().to_string());
        contents.json.insert(
            sif::SEAL_NAME.to_string(),
            sif::unsealed(OUTPUT_FORMAT, &image, self.choices().as_deref(), others),
        );
        Sealed::begin(contents, file)
    }
}

impl Format for Sif {
    fn name(&self) -> &'static str {
        "sif"
    }

    fn about(&self) -> &'static str {
        "a SIF file, which Singularity and Apptainer run"
    }

    fn suffix(&self) -> String {
        ".sif".to_string()
    }

    /// Its first line starts it.
    fn mode(&self) -> u32 {
        if self.signing.detached { 0o666 } else { 0o777 }
    }

    accessors!(compression: Option<Compression>, block_size: Option<u32>, architecture: Option<String>, encryption: Option<Encryption>, root: Root, signing: Signing);

    fn sbom(&mut self) -> Option<&mut bool> {
        Some(&mut self.with_sbom)
    }

    fn is_reusable(&self) -> bool {
        !self.signing.detached
    }

    fn transport(&self) -> Option<Transport> {
        Some(Transport::Oras)
    }

    fn keeps_work(&self) -> bool {
        true
    }

    fn check(&self, task: &Task) -> Result<()> {
        if self.with_sbom && self.encryption.is_some() {
            let message = "an SBOM would tell in the clear what is in the encrypted root";
            return Err(Error::new(ErrorKind::Usage, message).hint("leave out the SBOM or the encryption"));
        }
        file_system::options(self.compression, self.block_size, Default::default(), task)?;
        self.architecture.as_deref().map_or(Ok(()), |name| sif_architecture(Some(name)).map(drop))
    }

    fn open(&self, task: &Task) -> Result<Place> {
        let place = Place::open(task)?;
        place.expect_file("a SIF")?;
        Ok(place)
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let is_encrypted = self.encryption.is_some();
        // Without it nothing is begun.
        let attested = if self.with_sbom { Some(Attested::of(image)?) } else { None };
        let begun = self.begin_encryption(image, task)?;
        let blocks = file_system::options(self.compression, self.block_size, task.made_at(image), task)?;
        let choice = BlockChoice { options: &blocks, any_level: file_system::is_any_level(self.compression) };
        flat::write(
            image,
            place,
            Foresight::Blocks(choice),
            is_encrypted,
            task,
            monitor,
            |flattened, place, shortcut| {
                let more = (shortcut, attested.as_ref(), begun.as_ref());
                self.write_file(image, flattened, place, more, (task, monitor))
            },
        )
    }

    fn reuse_unread(&self, path: &Path, expected: Digest, task: &Task, monitor: &Monitor) -> Result<Option<Outcome>> {
        if self.signing.from_referrer || self.with_sbom {
            // Only the source knows what is beside the image.
            return Ok(None);
        }
        // When the image was made is not known here.
        let beside = (self.architecture.as_deref(), None, task.options.source_date_epoch);
        if self.encryption.is_some() {
            // It says of no image but the one whose ID is asked for that it was made from it.
            let image = expected.to_string();
            let is_it = sealed_image(path) == Some(encrypted::hidden_image(&image));
            return if is_it { self.usable(path, &image, beside, task, monitor).map(Some) } else { Ok(None) };
        }
        let Some(image) = sealed_image(path) else { return Ok(None) };
        if image != expected.to_string() && !Origin::read(path).is_some_and(|origin| origin.led_to(&image, expected)) {
            return Ok(None);
        }
        self.usable(path, &image, beside, task, monitor).map(Some)
    }

    fn reuse(&self, path: &Path, image: &Image, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        if !image.is_identified() {
            let message = format!("output {path:?} exists, and nothing tells whether it was made from these files");
            return Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::Replace).at(path));
        }
        let declared = Some(image.platform().architecture).filter(|name| Architecture::from_goarch(name).is_some());
        let architecture = self.architecture.as_ref().or(declared.as_ref()).map(String::as_str);
        let attested = if self.with_sbom { Some(Attested::of(image)?) } else { None };
        let beside = (architecture, attested.as_ref(), Some(task.made_at(image).seconds));
        let outcome = self.usable(path, &image.id().to_string(), beside, task, monitor)?;
        Ok(Outcome { diff_ids: image.config.diff_ids()?, ..outcome })
    }
}

/// The time that the header of the SIF at `path` says, in seconds.
fn created_at(path: &Path) -> Result<i64> {
    Ok(Container::open(Region::open(path)?)?.header().created_seconds)
}

fn sif_architecture(name: Option<&str>) -> Result<Architecture> {
    let Some(name) = name else {
        return Err(Error::new(ErrorKind::Unsupported, "neither config nor programs tell the architecture")
            .with_remedy(Remedy::Architecture));
    };
    Architecture::from_goarch(name).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("SIF files know no architecture {name:?}"))
            .with_remedy(Remedy::Architecture)
    })
}
