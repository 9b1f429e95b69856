use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::artifact;
use super::catalogue::{Candidate, Found, FoundManifest, full_name};
use super::document::Documents;
use super::layers::layers;
use super::oci::complete;
use super::{Kind, Source};
use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt as _};
use crate::image::{Blobs, Image};
use crate::model::{Config, Digest, Platform, Quoted};

/// Which image of a source is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// A name or tag, an image ID or the start of one, the digest of a config, manifest or index, or a number in the list
    /// of images, from 0.
    pub image: Option<String>,
    /// A platform. Where several platforms of one image are there and none is asked for, the host's is taken.
    pub platform: Option<Platform>,
}

/// How long a number in the list of images may be, in digits.
const NUMBER_DIGITS_MAX: usize = 4;
/// How many images an error lists.
const LISTED_MAX: usize = 20;

impl Source {
    /// Takes one image. What the SOURCE word asked for and what `selection` asks for must both fit.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when nothing fits and [`ErrorKind::Usage`] when several images do, with a list of
    /// what there is; [`ErrorKind::InvalidImage`] when the image is listed but parts of it are missing;
    /// [`ErrorKind::Unsupported`] when a layer is to be fetched from elsewhere.
    pub fn select(&self, selection: &Selection) -> Result<Image> {
        self.choose(selection).map_err(|error| match &self.input {
            Some(input) => input.blame(error),
            None => error,
        })
    }

    /// Takes the image at `position` of [`Source::images`].
    ///
    /// # Errors
    /// As [`Source::select`].
    pub fn select_at(&self, position: usize) -> Result<Image> {
        self.select(&Selection { image: Some(format!("@{position}")), platform: None })
    }

    fn choose(&self, selection: &Selection) -> Result<Image> {
        let mut fitting: Vec<usize> = (0..self.found.len()).collect();
        let of_layout = matches!(self.kind, Kind::OciArchive | Kind::OciLayout);
        let words = self.wanted.iter().map(|word| (word, of_layout));
        for (word, is_reference) in words.chain(selection.image.iter().map(|word| (word, false))) {
            let named = self.named(word, is_reference);
            fitting.retain(|at| named.contains(at));
            if fitting.is_empty() {
                let artifact = self.artifacts.named.iter().find(|artifact| artifact.is_called(word));
                return Err(match artifact {
                    Some(artifact) => artifact::unsupported(&Quoted(word.as_bytes()).to_string(), &artifact.kind),
                    None => self.nothing_fits(&format!("no image fits {}", Quoted(word.as_bytes()))),
                });
            }
        }
        if fitting.is_empty() {
            return Err(self.no_image());
        }
        let at = self.of_platform(&fitting, selection.platform.as_ref())?;
        let words = self.wanted.iter().chain(&selection.image);
        let digests: Vec<Digest> = words.filter_map(|word| word.parse().ok()).collect();
        let image = self
            .whole_image(&self.found[at], &digests)
            .map(|image| Image { asked_platform: selection.platform.clone(), ..image });
        image.doing(|| format!("opening an image of {}", self.store.name()))
    }

    /// The images that `word` means: by name, else by digest, else by number, else by a tag that stands beside a full name,
    /// else by the start of an ID. A reference of a layout is that tag before it is a number, as for everyone who reads layouts.
    fn named(&self, word: &str, is_reference: bool) -> Vec<usize> {
        let of = |fits: &dyn Fn(&Found) -> bool| -> Vec<usize> {
            (0..self.found.len()).filter(|&at| fits(&self.found[at])).collect()
        };
        let full = full_name(word);
        let by_name = of(&|found| found.candidate.names.contains(&full) || found.spellings.contains(word));
        if !by_name.is_empty() {
            return by_name;
        }
        let by_tag = of(&|found| found.short_names.contains(word));
        if is_reference && !by_tag.is_empty() {
            return by_tag;
        }
        let number = word.strip_prefix('@').unwrap_or(word).parse::<usize>().ok();
        if let Some(number) = number.filter(|&number| number < self.found.len()) {
            return vec![number];
        }
        if !by_tag.is_empty() {
            return by_tag;
        }
        let hex = word.strip_prefix("sha256:").unwrap_or(word).to_ascii_lowercase();
        // So short a number is none of an ID: an image is meant that is not there.
        if number.is_some() && word.len() <= NUMBER_DIGITS_MAX {
            return Vec::new();
        }
        if hex.is_empty() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Vec::new();
        }
        of(&|found| found.hex_ids().iter().any(|id| id.starts_with(&hex)))
    }

    /// The one of `fitting` that is for the wanted platform.
    fn of_platform(&self, fitting: &[usize], wanted: Option<&Platform>) -> Result<usize> {
        let candidate = |at: &usize| &self.found[*at].candidate;
        let readable = |at: &usize| candidate(at).absent.is_none() && candidate(at).unreadable.is_none();
        let present: Vec<usize> = fitting.iter().copied().filter(readable).collect();
        let choice: Vec<usize> = match wanted {
            Some(wanted) => self.as_asked(&present, wanted),
            None if self.are_platforms_of_one_image(&present) => {
                let host = Platform::host();
                let choice = self.for_platform(&present, &host);
                if choice.is_empty() {
                    return Err(self.no_platform(&present, &host));
                }
                choice
            }
            None => present,
        };
        let choice = self.first_of_one_image(self.named_ones(choice));
        match choice[..] {
            [one] => Ok(one),
            [] => Err(self.absent_or_other(fitting, wanted)),
            _ => Err(self.several_fit(&choice)),
        }
    }

    /// Those of `images` for a platform that was asked for, else those that name no platform: who asks decides what they are.
    fn as_asked(&self, images: &[usize], wanted: &Platform) -> Vec<usize> {
        let choice = self.for_platform(images, wanted);
        if !choice.is_empty() {
            return choice;
        }
        let is_silent = |at: &usize| self.found[*at].candidate.platform.is_none();
        images.iter().copied().filter(is_silent).collect()
    }

    /// Those of `images` for a platform; where there are none, those for an older variant of it, which run there too.
    fn for_platform(&self, images: &[usize], wanted: &Platform) -> Vec<usize> {
        let those = |fits: &dyn Fn(&Platform) -> bool| -> Vec<usize> {
            let fits = |at: &usize| self.found[*at].candidate.platform.as_ref().is_some_and(fits);
            images.iter().copied().filter(fits).collect()
        };
        let exact = those(&|platform| platform.serves(wanted));
        let choice = if exact.is_empty() { those(&|platform| platform.distance(wanted).is_some()) } else { exact };
        self.nearest(choice, wanted)
    }

    /// Whether some images are versions of one: one index lists them, or they share a name, or none has a name or an index
    /// that would tell them apart and all are for different platforms.
    fn is_one_image(&self, images: &[usize]) -> bool {
        let candidates: Vec<&Candidate> = images.iter().map(|&at| &self.found[at].candidate).collect();
        let [first, others @ ..] = &candidates[..] else { return false };
        let one_index = others.iter().all(|other| other.index_digest == first.index_digest);
        let all_share = |of: fn(&Candidate) -> &Vec<String>| {
            of(first).iter().any(|name| others.iter().all(|other| of(other).contains(name)))
        };
        let anonymous = candidates.iter().all(|candidate| candidate.names.is_empty() && candidate.tags.is_empty());
        match first.index_digest {
            Some(_) if one_index => true,
            None if one_index && anonymous => self.platforms(images).is_some_and(|it| it.len() == images.len()),
            _ => all_share(|candidate| &candidate.names) || all_share(|candidate| &candidate.tags),
        }
    }

    /// The platforms of some images; `None` where one is unknown.
    fn platforms(&self, images: &[usize]) -> Option<BTreeSet<&Platform>> {
        images.iter().map(|&at| self.found[at].candidate.platform.as_ref()).collect()
    }

    /// Several versions of one image that differ in their platform.
    fn are_platforms_of_one_image(&self, images: &[usize]) -> bool {
        self.is_one_image(images) && self.platforms(images).is_some_and(|platforms| platforms.len() > 1)
    }

    /// What has a name goes before what has none: a layout keeps an image whose name another one took.
    fn named_ones(&self, choice: Vec<usize>) -> Vec<usize> {
        let is_named = |at: &usize| {
            let candidate = &self.found[*at].candidate;
            !candidate.names.is_empty() || !candidate.tags.is_empty()
        };
        let named: Vec<usize> = choice.iter().copied().filter(is_named).collect();
        if named.is_empty() { choice } else { named }
    }

    /// "If multiple manifests match a client or runtime's requirements, the first matching entry SHOULD be used" (image-spec,
    /// image-index.md). An archive's `manifest.json` has no such rule.
    fn first_of_one_image(&self, mut choice: Vec<usize>) -> Vec<usize> {
        let listed_by_index = choice.iter().all(|&at| self.found[at].members.is_none());
        if listed_by_index && self.is_one_image(&choice) && self.platforms(&choice).is_none_or(|it| it.len() <= 1) {
            choice.truncate(1);
        }
        choice
    }

    fn whole_image(&self, found: &Found, digests: &[Digest]) -> Result<Image> {
        if !found.candidate.unread {
            return self.image(found, digests);
        }
        let found = complete(&Documents::new(&*self.store), &found.candidate)?;
        if let Some(trouble) = found.trouble {
            return Err(trouble);
        }
        if let Some(why) = &found.candidate.absent {
            let message = format!("{} lists it but does not hold it: {why}", self.store.name());
            return Err(Error::new(ErrorKind::InvalidImage, message).hint("push or build the image again"));
        }
        self.image(&found, digests)
    }

    /// Those of `choice` that a machine of this platform prefers, where they are versions of one image.
    fn nearest(&self, choice: Vec<usize>, platform: &Platform) -> Vec<usize> {
        if !self.are_platforms_of_one_image(&choice) {
            return choice;
        }
        let distance = |at: &usize| self.found[*at].candidate.platform.as_ref()?.distance(platform);
        let least = choice.iter().filter_map(distance).min();
        choice.into_iter().filter(|at| distance(at) == least).collect()
    }

    fn image(&self, found: &Found, digests: &[Digest]) -> Result<Image> {
        if let Some(name) = &found.bad_name {
            let message = format!("the image's name {} holds control characters", Quoted(name.as_bytes()));
            return Err(Error::new(ErrorKind::InvalidImage, message).hint("save the image again under a plain name"));
        }
        let asked = |manifest: &&FoundManifest| {
            digests.iter().any(|&digest| manifest.digest == digest || manifest.index_digests.contains(&digest))
        };
        let manifest = found.manifests.iter().find(asked).or_else(|| found.manifests.first());
        let blobs: std::sync::Arc<dyn Blobs> = self.store.clone();
        let config = match &found.config {
            Some(config) => config.clone(),
            None => Config::parse(b"{}".as_slice())?,
        };
        let layers = layers(&*self.store, found, manifest)?;
        self.store.will_read(&layers);
        Ok(Image {
            manifest_digest: manifest.map(|manifest| manifest.digest),
            index_digest: manifest.and_then(|it| {
                let asked = it.index_digests.iter().find(|digest| digests.contains(digest));
                asked.or(it.index_digests.first()).copied()
            }),
            names: found.candidate.names.clone(),
            warnings: self.warnings_about(found),
            tags: found.candidate.tags.clone(),
            ref_names: found.odd_names.clone(),
            history: found.history.as_ref().map(|lines| lines.iter().map(|line| (**line).clone()).collect()),
            manifest: self.manifest_bytes(manifest)?,
            ..Image::new(blobs, config, layers)
        })
    }

    /// Read once more rather than kept for all images: only the one that is selected needs it.
    fn manifest_bytes(&self, manifest: Option<&FoundManifest>) -> Result<Option<std::sync::Arc<[u8]>>> {
        let Some(manifest) = manifest else { return Ok(None) };
        Ok(Documents::new(&*self.store).read_blob(manifest.digest)?.map(Into::into))
    }

    fn warnings_about(&self, found: &Found) -> Vec<String> {
        let mut warnings = self.store.warnings();
        warnings.extend(self.warnings.iter().chain(&found.warnings).cloned());
        let asked = self.wanted.is_some();
        let unreadable = self.found.iter().filter_map(|other| other.trouble.as_ref()).filter(|_| !asked);
        warnings.extend(unreadable.map(|trouble| format!("another image cannot be read: {trouble}")).take(LISTED_MAX));
        warnings
    }

    fn no_image(&self) -> Error {
        let name = self.store.name();
        let message = match (self.artifacts.count, self.artifacts.named.first()) {
            (_, Some(artifact)) => return artifact::unsupported(&format!("what {name} holds"), &artifact.kind),
            (0, None) => format!("{name} lists no image"),
            (count, None) => format!("{name} lists no image, only {count} attestations or signatures"),
        };
        Error::new(ErrorKind::InvalidImage, message).hint("save or fetch the image again")
    }

    /// None of the images that run somewhere else runs here.
    fn no_platform(&self, present: &[usize], host: &Platform) -> Error {
        let platforms = self.platforms(present).unwrap_or_default();
        if platforms.iter().any(|platform| platform.os == host.os) {
            return self.nothing_fits(&format!("no image is for this machine's platform, {host}"));
        }
        let systems: BTreeSet<&str> = platforms.iter().map(|platform| platform.os.as_str()).collect();
        let systems: Vec<&str> = systems.into_iter().collect();
        let message = format!("{} has images for {} only, none for Linux", self.store.name(), systems.join(" and "));
        Error::new(ErrorKind::Unsupported, message).hint("give an image for Linux")
    }

    /// Nothing that is there fits: either it is listed but absent or unreadable, or it is something else.
    fn absent_or_other(&self, fitting: &[usize], wanted: Option<&Platform>) -> Error {
        let asked = |candidate: &Candidate| match (&candidate.platform, wanted) {
            (Some(platform), Some(wanted)) => platform.serves(wanted),
            (_, None) => true,
            (None, Some(_)) => candidate.unreadable.is_some(),
        };
        let those: Vec<&Found> =
            fitting.iter().map(|&at| &self.found[at]).filter(|found| asked(&found.candidate)).collect();
        if let Some(trouble) = those.iter().find_map(|found| found.trouble.as_ref()) {
            return trouble.again();
        }
        let absent = those.iter().find_map(|it| it.candidate.absent.as_ref().map(|why| (&it.candidate, why)));
        match (absent, wanted) {
            (Some((candidate, why)), _) => {
                let message = format!("{} lists {} but does not hold it: {why}", self.store.name(), shown(candidate));
                Error::new(ErrorKind::InvalidImage, message)
                    .hint("save or fetch the image again, with that platform, where it is present")
            }
            (None, Some(wanted)) => self.nothing_fits(&format!("no image is for platform {wanted}")),
            (None, None) => self.no_image(),
        }
    }

    fn nothing_fits(&self, why: &str) -> Error {
        let all: Vec<usize> = (0..self.found.len()).collect();
        let (held, remedy) = match &self.found[..] {
            [] => ("no image".to_string(), Remedy::Image),
            [only] if self.is_narrowed => {
                (format!("one image of that name, {}", shown(&only.candidate)), Remedy::Image)
            }
            several if self.is_narrowed => {
                (format!("{} images of that name: {}", several.len(), self.list(&all)), Remedy::Image)
            }
            [only] => (format!("one image, {}", shown(&only.candidate)), Remedy::OnlyImage),
            several => (format!("{} images: {}", several.len(), self.list(&all)), Remedy::Image),
        };
        let message = format!("{why} in {}, which holds {held}", self.store.name());
        Error::new(ErrorKind::SourceUnavailable, message).with_remedy(remedy)
    }

    fn several_fit(&self, choice: &[usize]) -> Error {
        let message = format!("{} images of {} fit: {}", choice.len(), self.store.name(), self.list(choice));
        Error::new(ErrorKind::Usage, message).with_remedy(Remedy::OneImage)
    }

    /// `0: name (platform, id)`, one after the other.
    fn list(&self, images: &[usize]) -> String {
        if images.is_empty() {
            return "none".to_string();
        }
        let lines = images.iter().take(LISTED_MAX).map(|&at| {
            let candidate = &self.found[at].candidate;
            let absent = match (&candidate.absent, &candidate.unreadable) {
                (Some(_), _) => ", absent",
                (None, Some(_)) => ", unreadable",
                (None, None) => "",
            };
            format!("{at}: {}{absent}", shown(candidate))
        });
        let mut list = lines.collect::<Vec<_>>().join("; ");
        if images.len() > LISTED_MAX {
            // Writing to a string cannot fail.
            let _ = write!(list, "; and {} more", images.len() - LISTED_MAX);
        }
        list
    }
}

impl Found {
    /// All that an ID or digest may mean this image by, in hexadecimal digits.
    fn hex_ids(&self) -> Vec<String> {
        let candidate = &self.candidate;
        let manifests = self.manifests.iter().flat_map(|it| std::iter::once(it.digest).chain(it.index_digests.clone()));
        let digests = [candidate.id, candidate.manifest_digest, candidate.index_digest].into_iter().flatten();
        digests.chain(manifests).map(|digest| digest.hex()).chain(self.v1_id.clone()).collect()
    }
}

/// An image in a list: its names, its platform, its ID.
fn shown(candidate: &Candidate) -> String {
    let names = candidate.names.iter().chain(&candidate.tags);
    let mut words: Vec<String> = names.map(|name| Quoted(name.as_bytes()).to_string()).collect();
    words.extend(candidate.platform.as_ref().map(Platform::to_string));
    let id = candidate.id.or(candidate.manifest_digest);
    words.extend(id.map(|digest| format!("sha256:{}", &digest.hex()[..12])));
    words.join(" ")
}
