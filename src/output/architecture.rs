//! What the programs of an image run on: what its config says, checked against the programs themselves.

use crate::image::Image;
use crate::layers::Contents;
use crate::model::{Note, Quoted};
use crate::sif::goarch_of_elf;
use crate::tree::{InodeId, Kind, Tree};

/// Bytes of an ELF header that tell the machine.
const ELF_BYTES: u64 = 20;

/// The architecture in Go's spelling, where anything says it, and a note where config and programs disagree. The programs
/// are right then: runtimes look at the header of the SIF and refuse what the machine cannot run.
pub(super) fn architecture(image: &Image, tree: &Tree, contents: &Contents) -> (Option<String>, Option<Note>) {
    let declared = Some(image.platform().architecture).filter(|name| !name.is_empty());
    let Some((path, found)) = program(tree, contents) else { return (declared, None) };
    match declared {
        Some(declared) if declared != found => {
            let message = format!("the image says it is for {declared}, but {} is for {found}", Quoted(&path));
            (Some(found.to_string()), Some(Note::new("architecture-mismatch", message, 1)))
        }
        _ => (Some(found.to_string()), None),
    }
}

/// `/bin/sh` if that is a program, else the first program in walk order, as Apptainer looks for it.
fn program(tree: &Tree, contents: &Contents) -> Option<(Vec<u8>, &'static str)> {
    let shell = tree.resolve(b"bin/sh").ok().and_then(|found| found.inode);
    let shell = shell.and_then(|inode| Some((b"bin/sh".to_vec(), goarch(tree, contents, inode)?)));
    let executable = |inode: InodeId| tree.inode(inode).metadata.mode.bits() & 0o111 != 0;
    let first = || {
        let mut visits = tree.walk().filter(|visit| executable(visit.inode));
        visits.find_map(|visit| Some((visit.path, goarch(tree, contents, visit.inode)?)))
    };
    shell.or_else(first)
}

fn goarch(tree: &Tree, contents: &Contents, inode: InodeId) -> Option<&'static str> {
    let Kind::File(data) = &tree.inode(inode).kind else { return None };
    let mut header = [0; ELF_BYTES as usize];
    let readable = data.size >= ELF_BYTES && contents.read_at(data, &mut header, 0).is_ok();
    readable.then(|| goarch_of_elf(&header)).flatten()
}
