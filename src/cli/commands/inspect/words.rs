//! The pages for people, 80 columns wide as far as names allow. Whatever came out of an image is quoted.

use std::fmt::Write as _;

use super::sif::SifView;
use super::{ConfigView, ImageView, Inspection, LayerView};
use crate::attach::Referrer;
use crate::cli::printer::{self, Bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Quoted, hides};
use crate::output::SIGNER;
use crate::registry::SIF_SIGNATURE;

/// How wide a table is.
const COLUMNS: usize = 80;

impl Inspection {
    pub(super) fn page(&self, json: bool) -> Result<String> {
        if !json {
            return Ok(self.words());
        }
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Bug, format!("the inspection is not JSON: {error}")))?;
        Ok(printer::safe_json(&json) + "\n")
    }

    /// The page for people.
    pub(super) fn words(&self) -> String {
        let mut page = String::new();
        let size = self.source.size.map(|size| format!(", {}", Bytes(size))).unwrap_or_default();
        let kind = self.source.kind.as_deref().unwrap_or("unknown");
        field(&mut page, 0, "source", &format!("{} ({kind}{size})", quoted(&self.source.spelling)));
        if self.sif.is_none() {
            field(&mut page, 0, "images", &self.images.len().to_string());
        }
        for referrer in self.index_attached.iter().flatten() {
            field(&mut page, 0, "to the index", &referring(referrer));
        }
        let unasked = self.images.iter().filter(|image| image.attached.is_none() && image.warnings.is_empty()).count();
        if unasked > 0 && self.sif.is_none() {
            let text = format!("not asked for {unasked} of the images; --platform chooses one");
            field(&mut page, 0, "attached", &text);
        }
        for image in &self.images {
            page.push('\n');
            image.words(&mut page);
        }
        self.sif.iter().for_each(|sif| sif.words(&mut page));
        page
    }
}

impl ImageView {
    fn words(&self, page: &mut String) {
        let index = self.index.map(|index| format!(" @{index}")).unwrap_or_default();
        let _ = writeln!(page, "image{index}");
        let names: Vec<String> = self.names.iter().chain(&self.tags).map(|name| quoted(name)).collect();
        let lines = [
            ("names", names.join(", ")),
            ("id", self.id.clone().unwrap_or_default()),
            ("manifest", self.manifest_digest.clone().unwrap_or_default()),
            ("index", self.index_digest.clone().unwrap_or_default()),
            ("platform", self.platform.as_deref().map(plain).unwrap_or_default()),
            ("created", self.created.clone().unwrap_or_default()),
        ];
        lines.iter().for_each(|(name, value)| field(page, 2, name, value));
        if let Some(config) = &self.config {
            config.words(page);
        }
        LayerView::table(&self.layers, page);
        for referrer in self.attached.iter().flatten() {
            field(page, 2, "attached", &referring(referrer));
        }
        self.warnings.iter().for_each(|warning| field(page, 2, "warning", &plain(warning)));
        self.problem.iter().for_each(|problem| field(page, 2, "problem", &plain(problem)));
    }
}

/// What refers to an image, in one line.
fn referring(referrer: &Referrer) -> String {
    let what = match &referrer.sif {
        Some(sif) => {
            let format = sif.format.as_deref().map(|it| format!(", format {}", plain(it))).unwrap_or_default();
            format!("SIF, {}{format}", Bytes(sif.size))
        }
        None if referrer.artifact_type.as_deref() == Some(SIF_SIGNATURE) => {
            let signer = referrer.annotations.get(SIGNER).map_or("an unnamed key", String::as_str);
            format!("signature of a SIF by {}", plain(signer))
        }
        None => referrer.artifact_type.as_deref().map(plain).unwrap_or_default(),
    };
    format!("{} ({what})", referrer.manifest_digest)
}

impl ConfigView {
    fn words(&self, page: &mut String) {
        let list = |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        field(page, 2, "entrypoint", &list(&self.entrypoint));
        field(page, 2, "cmd", &list(&self.cmd));
        field(page, 2, "workdir", &optional(&self.working_dir));
        field(page, 2, "user", &optional(&self.user));
        self.env.iter().for_each(|word| field(page, 2, "env", &quoted(word)));
        self.labels
            .iter()
            .for_each(|(key, value)| field(page, 2, "label", &format!("{}={}", quoted(key), quoted(value))));
    }
}

impl LayerView {
    /// One row a layer: what it takes, and the command that made it.
    fn table(layers: &[LayerView], page: &mut String) {
        if layers.is_empty() {
            return;
        }
        let sizes: Option<u64> = layers.iter().map(|layer| layer.size).sum();
        let sizes = sizes.map(|size| format!(", {} stored", Bytes(size))).unwrap_or_default();
        field(page, 2, "layers", &format!("{}{sizes}", layers.len()));
        let _ = writeln!(page, "\n  {:>4}  {:>10}  {:6}  {:12}  MADE BY", "#", "SIZE", "STORED", "DIFF_ID");
        for (at, layer) in layers.iter().enumerate() {
            let size = layer.size.map_or_else(|| "?".to_string(), |size| Bytes(size).to_string());
            let stored = match layer.compression.as_deref().or_else(|| declared(layer.media_type.as_deref()?)) {
                None => "?",
                Some("none") => "plain",
                Some(codec) => codec,
            };
            let digest = layer.diff_id.as_deref().or(layer.digest.as_deref()).unwrap_or("?");
            let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
            let row = format!("  {:>4}  {size:>10}  {stored:6}  {digest:12.12}  ", at + 1);
            let made_by = layer.created_by.as_deref().map(instruction).unwrap_or_default();
            let _ = writeln!(page, "{}", format!("{row}{}", cut(&made_by, COLUMNS - row.len())).trim_end());
        }
        page.push('\n');
    }
}

/// A line of an image's history as its Dockerfile had it, on one line.
fn instruction(created_by: &str) -> String {
    let text = created_by.trim().trim_end_matches("# buildkit").trim();
    let text = match text.strip_prefix("/bin/sh -c ") {
        Some(rest) => match rest.trim_start().strip_prefix("#(nop)") {
            Some(instruction) => instruction.trim().to_string(),
            None => format!("RUN {}", rest.trim()),
        },
        None => text.replacen("RUN /bin/sh -c ", "RUN ", 1),
    };
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The start of a text, where not all of it fits.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_string();
    }
    text.chars().take(columns.saturating_sub(3)).chain("...".chars()).collect()
}

impl SifView {
    fn words(&self, page: &mut String) {
        field(page, 2, "launched by", &self.launch);
        field(page, 2, "options", self.options.as_deref().unwrap_or_default());
        let signatures: Vec<String> = self.signatures.iter().map(|each| each.to_string()).collect();
        field(page, 2, "signatures", &if signatures.is_empty() { "none".to_string() } else { signatures.join("; ") });
        field(page, 2, "objects", &self.objects.len().to_string());
        let _ = writeln!(page, "\n  {:>4}  {:>10}  {:26}  HOLDS", "ID", "SIZE", "NAME");
        for object in &self.objects {
            let size = u64::try_from(object.size).map_or_else(|_| "?".to_string(), |size| Bytes(size).to_string());
            let row = format!("  {:>4}  {size:>10}  {:26}  ", object.id, cut(&plain(&object.name), 26));
            let _ = writeln!(
                page,
                "{}",
                format!("{row}{}", cut(&plain(&object.kind), COLUMNS - row.len().min(COLUMNS))).trim_end()
            );
        }
    }
}

/// One line, unless there is nothing to say.
fn field(page: &mut String, indent: usize, name: &str, value: &str) {
    if !value.is_empty() {
        let width = 15 - indent;
        let _ = writeln!(page, "{:indent$}{name:<width$}{value}", "");
    }
}

fn quoted(text: &str) -> String {
    Quoted(text.as_bytes()).to_string()
}

fn optional(text: &str) -> String {
    if text.is_empty() { String::new() } else { quoted(text) }
}

/// Text that quotes its own names, made safe for a terminal.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if hides(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
}

/// How a layer that was not looked into is compressed, as its media type says.
fn declared(media_type: &str) -> Option<&'static str> {
    match media_type.rsplit(['+', '.']).next()? {
        "gzip" => Some("gzip"),
        "zstd" => Some("zstd"),
        "tar" => Some("none"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_the_dockerfile() {
        for (history, shown) in [
            ("/bin/sh -c #(nop) ADD file:a in / ", "ADD file:a in /"),
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c apt-get update &&     apt-get install x", "RUN apt-get update && apt-get install x"),
            ("RUN /bin/sh -c make # buildkit", "RUN make"),
            ("COPY a /a # buildkit", "COPY a /a"),
            ("bazel build ...", "bazel build ..."),
            ("a\u{1b}[2J\nb", "a\\u{1b}[2J b"),
        ] {
            assert_eq!(instruction(history), shown);
        }
        assert_eq!((cut("abcdef", 6).as_str(), cut("abcdefg", 6).as_str()), ("abcdef", "abc..."));
    }
}
