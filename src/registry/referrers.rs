//! What refers to a manifest (distribution-spec 1.1, "Listing referrers"): by the registry's own list, or where it keeps
//! none, by the index under the tag `sha256-HEX`, which whoever pushes keeps up to date.

use std::time::{Duration, Instant};

use oci_spec::image::Descriptor;
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::broken;
use super::http::refusal;
use super::link::next_query;
use super::repository::{Repository, Stored};
use super::retry::sleep;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::model::{DOCUMENT_BYTES_MAX, Digest};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How many pages of a list are read.
const PAGES_MAX: usize = 64;
/// How many manifests are looked at whose entry does not say what they are.
const LOOKED_AT_MAX: usize = 64;
/// How often the index is written before giving up.
const WRITES_MAX: u32 = 40;
/// How often, and how long after it was written at least, an entry must still be in the index.
const CONFIRMATIONS: u32 = 2;
const CONFIRM_AFTER: Duration = Duration::from_millis(250);

impl Repository {
    /// What refers to the manifest `subject`, in the registry's order; only what has `artifact_type` where one is given.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached, refuses, or lists no end of them,
    /// [`ErrorKind::InvalidImage`] when its list cannot be read.
    pub fn referrers(&self, subject: Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let doing = || format!("listing what refers to {subject}");
        let entries = match self.listed(subject).doing(doing)? {
            Some(entries) => entries,
            None => entries_of(self.manifest(&fallback_tag(subject)).doing(doing)?.as_deref()).doing(doing)?,
        };
        let mut looked_at = 0;
        let mut found: Vec<Descriptor> = Vec::new();
        for entry in entries {
            // What cannot be read is not what anybody looks for.
            let Ok(descriptor) = serde_json::from_value::<Descriptor>(entry) else { continue };
            let fits = match artifact_type {
                None => true,
                Some(wanted) => match descriptor.artifact_type() {
                    Some(stated) => stated.to_string() == wanted,
                    None if looked_at < LOOKED_AT_MAX => {
                        looked_at += 1;
                        self.artifact_type(&descriptor).doing(doing)?.as_deref() == Some(wanted)
                    }
                    None => false,
                },
            };
            if fits && !found.contains(&descriptor) {
                found.push(descriptor);
            }
        }
        Ok(found)
    }

    /// Pushes a manifest that has a `subject`, and sees to it that it is listed among what refers to that.
    ///
    /// # Errors
    /// As [`Repository::push_manifest`]; [`ErrorKind::InvalidImage`] when it has no subject.
    pub fn attach(&self, media_type: &str, manifest: &[u8]) -> Result<Stored> {
        let document: Value = serde_json::from_slice(manifest).unwrap_or_default();
        let subject = document["subject"]["digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
        let subject = subject
            .ok_or_else(|| Error::new(ErrorKind::InvalidImage, "the manifest to be attached names no subject"))?;
        let stored = self.push_manifest(&Digest::of(manifest).to_string(), media_type, manifest)?;
        if stored.subject == Some(subject) {
            return Ok(stored);
        }
        let doing = || format!("adding {} to what refers to {subject}", stored.digest);
        let digest = stored.digest.to_string();
        let lists_it = |entries: &[Value]| entries.iter().any(|entry| entry["digest"] == digest.as_str());
        if self.listed(subject).doing(doing)?.is_some_and(|entries| lists_it(&entries)) {
            return Ok(Stored { subject: Some(subject), ..stored });
        }
        let mut entry = json!({ "mediaType": media_type, "digest": digest, "size": manifest.len() });
        for key in ["artifactType", "annotations"] {
            if !document[key].is_null() {
                entry[key] = document[key].clone();
            }
        }
        if entry["artifactType"].is_null() {
            entry["artifactType"] = document["config"]["mediaType"].clone();
        }
        self.add_to_fallback(subject, &entry).doing(doing)?;
        Ok(stored)
    }

    /// Adds an entry to the index under the fallback tag. Registries know no way to replace only what one has read, so two
    /// writers may overwrite each other: each looks again until its entry has stayed for longer than it takes another to
    /// write, and adds it again where it is gone.
    fn add_to_fallback(&self, subject: Digest, entry: &Value) -> Result<()> {
        let tag = fallback_tag(subject);
        let (mut writes, mut confirmed, mut slowest) = (0, 0, Duration::ZERO);
        loop {
            let began = Instant::now();
            let mut entries = entries_of(self.manifest(&tag)?.as_deref())?;
            if entries.iter().any(|other| other["digest"] == entry["digest"]) {
                confirmed += 1;
                if writes == 0 || confirmed > CONFIRMATIONS {
                    return Ok(());
                }
            } else if writes < WRITES_MAX {
                (writes, confirmed) = (writes + 1, 0);
                entries.push(entry.clone());
                let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
                self.push_manifest(&tag, OCI_INDEX, &to_bytes(&index)?)?;
            } else {
                let message = format!("others keep overwriting the index {tag}");
                return Err(Error::new(ErrorKind::Network, message).hint("try again when fewer write to it"));
            }
            slowest = slowest.max(began.elapsed());
            sleep(CONFIRM_AFTER.max(slowest * 2) + jitter(entry, writes + confirmed), &self.client.monitor)?;
        }
    }

    /// The registry's own list; `None` where it keeps none.
    fn listed(&self, subject: Digest) -> Result<Option<Vec<Value>>> {
        let mut entries = Vec::new();
        let mut path = format!("referrers/{subject}");
        for _ in 0..PAGES_MAX {
            let what = format!("the referrers of {subject}");
            let (bytes, next) = self.retried(|| {
                let mut answer = self.client.request(Method::GET, &path, &[("accept", OCI_INDEX)], &[])?;
                match answer.status {
                    200 => {
                        let from = answer.url.authority.clone();
                        let bytes = answer.start(DOCUMENT_BYTES_MAX).map_err(|error| broken(&from, &error))?;
                        Ok((Some(bytes), next_query(&answer.headers)))
                    }
                    // Registries that do not know the question have many ways to say so.
                    400 | 404 | 405 | 406 | 410 | 501 => Ok((None, None)),
                    _ => Err(refusal(answer, &what)),
                }
            })?;
            let Some(page) = bytes.and_then(|bytes| entries_of(Some(&bytes)).ok()) else { return Ok(None) };
            entries.extend(page);
            match next {
                Some(query) => path = format!("referrers/{subject}?{query}"),
                None => return Ok(Some(entries)),
            }
        }
        // What is further down would be taken for missing.
        let message = format!("the list of referrers has more than {PAGES_MAX} pages");
        Err(Error::new(ErrorKind::Network, message))
    }

    /// What a manifest is whose entry does not say.
    fn artifact_type(&self, descriptor: &Descriptor) -> Result<Option<String>> {
        let Some(bytes) = self.manifest(descriptor.digest().as_ref())? else { return Ok(None) };
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_string);
        Ok(text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"])))
    }
}

/// The tag that stands in for a list of referrers.
fn fallback_tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// What an index lists, with all that each entry says.
fn entries_of(index: Option<&[u8]>) -> Result<Vec<Value>> {
    let Some(bytes) = index else { return Ok(Vec::new()) };
    let unreadable = || Error::new(ErrorKind::InvalidImage, "the list of referrers is not an image index");
    let document: Value = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
    match &document["manifests"] {
        Value::Array(entries) => Ok(entries.clone()),
        Value::Null if document["schemaVersion"] == 2 => Ok(Vec::new()),
        _ => Err(unreadable()),
    }
}

/// Writers that wait equally long would meet again.
fn jitter(entry: &Value, attempt: u32) -> Duration {
    let digest = Digest::of(format!("{entry}{attempt}").as_bytes());
    Duration::from_millis(u64::from(digest.as_bytes()[0]))
}

fn to_bytes(document: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Error::new(ErrorKind::Bug, error))
}
