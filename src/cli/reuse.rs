//! Whether an output that is there already may be used instead of a new one.

use std::path::Path;

use super::job::Job;
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::image::Image;
use crate::io::Monitor;
use crate::model::Note;
use crate::output::{Destination, IfExists, Outcome, hash_file, verify_sif};

impl Job {
    /// The output that is there already, where it may be used instead of a new one: it was made from this image with the
    /// same choices, and it is whole. `None` where there is none, or it is to be replaced; `notes` says why, then.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when it was made from something else, [`ErrorKind::Mismatch`] when it is damaged.
    pub(super) fn reusable(&self, image: &Image, notes: &mut Vec<Note>, monitor: &Monitor) -> Result<Option<Outcome>> {
        let Destination::Path(path) = &self.request.destination else { return Ok(None) };
        if !self.request.if_exists.reuses() || !path.exists() {
            return Ok(None);
        }
        match self.existing(path, image, monitor) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) if self.request.if_exists == IfExists::Update && is_about_the_file(&error) => {
                notes.push(Note::new("output-replaced", format!("the output that was there is replaced: {error}"), 1));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn existing(&self, path: &Path, image: &Image, monitor: &Monitor) -> Result<Outcome> {
        let hint = "add --force to replace it, or name another file with -o";
        let whole = verify_sif(path, self.request.jobs, monitor).map_err(|error| error.hint(hint))?;
        let refuse = |message| Err(Error::new(ErrorKind::Output, message).hint(hint));
        if whole.image != Some(image.id().to_string()) {
            let made = whole.image.unwrap_or_else(|| "something that it does not name".to_string());
            return refuse(format!("output {path:?} exists and was made from {made}, not from image {}", image.id()));
        }
        if whole.choices != self.request.choices() {
            return refuse(format!("output {path:?} exists and was made from this image with other options"));
        }
        let size = std::fs::metadata(path).map(|data| data.len()).or_kind(ErrorKind::Output)?;
        let sha256 = if self.request.hash_output { Some(hash_file(path, monitor)?) } else { None };
        let note = Note::new("output-reused", "the output was there already, whole, and is used as it is", 1);
        Ok(Outcome {
            size,
            sha256,
            entries: whole.names,
            image_id: None,
            manifest_digest: None,
            layer_entries: 0,
            layer_bytes: 0,
            diff_ids: image.config.diff_ids()?,
            notes: whole.notes.into_iter().chain([note]).collect(),
        })
    }
}

/// Whether the file that is there is at fault, and not the user who stopped us or a bug.
fn is_about_the_file(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Terminated | ErrorKind::Bug)
}
