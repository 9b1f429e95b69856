//! An image as one tar.

use std::fs::File;
use std::sync::Arc;

use super::documents::{Document, Package, config_member, layer_member};
use super::stage::Blob;
use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::Monitor;
use crate::model::{Digest, Metadata, Note, Timestamp};
use crate::output::sink::Sink;
use crate::tar::{Member, MemberKind, end_of_archive, member_header, padding};

/// What a member holds.
pub(super) enum Held<'a> {
    Directory,
    Bytes(Vec<u8>),
    Blob(&'a Blob),
}

/// Members in the order in which they are written.
pub(in crate::output) struct Archive<'a>(Vec<(String, Held<'a>)>);

impl<'a> Archive<'a> {
    /// A layout in a tar: what says what it is comes first, so that a reader need not see the end to know.
    pub(super) fn oci(package: &'a Package, index: Vec<u8>) -> Self {
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let document = |document: &Document| (blob(&document.digest), Held::Bytes(document.bytes.clone()));
        let mut members = vec![
            ("oci-layout".to_string(), Held::Bytes(super::LAYOUT_FILE.to_vec())),
            ("index.json".to_string(), Held::Bytes(index)),
            ("blobs".to_string(), Held::Directory),
            ("blobs/sha256".to_string(), Held::Directory),
            document(&package.manifest),
            document(&package.config),
        ];
        let layers = package.unique_layers();
        members.extend(layers.into_iter().map(|layer| (blob(&layer.digest), Held::Blob(layer))));
        Archive(members)
    }

    /// What `docker load` takes, and what is to be said about it.
    pub(super) fn docker(package: &'a Package) -> (Self, Vec<Note>) {
        let (manifest, notes) = package.archive_manifest();
        let mut members = vec![
            ("manifest.json".to_string(), Held::Bytes(manifest)),
            (config_member(&package.config), Held::Bytes(package.config.bytes.clone())),
        ];
        let layers = package.unique_layers();
        members.extend(layers.into_iter().map(|layer| (layer_member(layer), Held::Blob(layer))));
        (Archive(members), notes)
    }

    /// How many members there are, and how many bytes they take.
    pub(super) fn measure(&self) -> (u64, u64) {
        let mut header = Vec::new();
        let sizes = self.0.iter().map(|(name, held)| {
            header.clear();
            put_header(&mut header, name, held);
            let size = held.size();
            header.len() as u64 + size + padding(size)
        });
        (self.0.len() as u64, sizes.sum::<u64>() + end_of_archive().len() as u64)
    }

    /// Where the bytes of the first layer lie, from the start of the tar.
    pub(super) fn first_layer_at(&self) -> Option<u64> {
        let mut header = Vec::new();
        let mut position = 0;
        for (name, held) in &self.0 {
            header.clear();
            put_header(&mut header, name, held);
            position += header.len() as u64;
            if matches!(held, Held::Blob(_)) {
                return Some(position);
            }
            position += held.size() + padding(held.size());
        }
        None
    }

    /// Writes the tar.
    pub(super) fn write(&self, sink: &mut dyn Sink, monitor: &Monitor) -> Result<()> {
        let mut header = Vec::new();
        for (name, held) in &self.0 {
            monitor.check()?;
            header.clear();
            put_header(&mut header, name, held);
            sink.write_all(&header).or_kind(ErrorKind::Output)?;
            monitor.advance(header.len() as u64);
            match held {
                Held::Directory => {}
                Held::Bytes(bytes) => sink.write_all(bytes).or_kind(ErrorKind::Output)?,
                Held::Blob(blob) => copy(blob, sink, monitor).doing(|| format!("writing blob {}", blob.digest))?,
            }
            let zeros = [0; 512];
            sink.write_all(&zeros[..padding(held.size()) as usize]).or_kind(ErrorKind::Output)?;
        }
        sink.write_all(&end_of_archive()).or_kind(ErrorKind::Output)?;
        sink.finish().or_kind(ErrorKind::Output)
    }
}

fn copy(blob: &Blob, sink: &mut dyn Sink, monitor: &Monitor) -> Result<()> {
    let file: &Arc<File> = &blob.data.file;
    sink.copy(file, blob.data.offset, blob.data.len, monitor)
}

impl Held<'_> {
    fn size(&self) -> u64 {
        match self {
            Held::Directory => 0,
            Held::Bytes(bytes) => bytes.len() as u64,
            Held::Blob(blob) => blob.data.len,
        }
    }
}

fn put_header(header: &mut Vec<u8>, name: &str, held: &Held<'_>) {
    let (kind, bits) = match held {
        Held::Directory => (MemberKind::Directory, 0o755),
        _ => (MemberKind::File { size: held.size() }, 0o644),
    };
    let metadata = Metadata::root_owned(bits, Timestamp::default());
    member_header(header, &Member { path: name.as_bytes(), kind, metadata: &metadata });
}
