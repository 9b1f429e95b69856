//! What the programs of an image run on: what was asked for, else what its config says, else what its programs tell.

use std::collections::BTreeSet;

use crate::image::Image;
use crate::layers::Contents;
use crate::model::{Note, Platform, Quoted};
use crate::sif::goarch_of_elf;
use crate::singularity;
use crate::tree::{InodeId, Kind, Tree};

/// Bytes of an ELF header that tell the machine.
const ELF_BYTES: usize = 20;
/// Most of a script's first line that kernels read, in bytes.
const LINE_BYTES: usize = 256;
/// How many scripts may be each other's interpreter, as in Linux.
const SCRIPTS_MAX: usize = 4;

/// The architecture in Go's spelling, where anything says it, and what the user should know. A program that happens to lie
/// in the image decides nothing: an add-on for another machine is not rare.
pub(super) fn architecture(
    image: &Image,
    tree: &Tree,
    contents: &Contents,
    asked: Option<&str>,
) -> (Option<String>, Vec<Note>) {
    let run = program(image, tree, contents);
    let declared = Some(image.platform().architecture).filter(|name| !name.is_empty());
    let chosen = asked.map(str::to_string).or(declared);
    let chosen = chosen.or_else(|| run.as_ref().map(|(_, found)| found.to_string()));
    let Some(chosen) = chosen.or_else(|| of_all_programs(tree, contents)) else { return (None, Vec::new()) };
    let mismatch = run.filter(|(_, found)| *found != chosen).map(|(path, found)| {
        let message = format!(
            "the image is taken to be for {chosen}, but {}, which it runs, is for {found} (--arch decides)",
            Quoted(&path)
        );
        Note::new("architecture-mismatch", message, 1)
    });
    let notes = mismatch.into_iter().chain(other_machine(&chosen)).collect();
    (Some(chosen), notes)
}

/// What is to be said of an image for `architecture` on this machine, if it does not run here.
pub(crate) fn other_machine(architecture: &str) -> Option<Note> {
    let host = Platform::host().architecture;
    let runs = architecture == host || matches!((host.as_str(), architecture), ("amd64", "386") | ("arm64", "arm"));
    let message = format!(
        "the image is for {architecture} and this machine is {host}: it runs here only where an emulator is set up"
    );
    (!runs && !architecture.is_empty()).then(|| Note::new("other-architecture", message, 1))
}

/// The program that the image runs, behind the interpreters of scripts; else `/bin/sh`.
fn program(image: &Image, tree: &Tree, contents: &Contents) -> Option<(Vec<u8>, &'static str)> {
    let run = singularity::program(tree, &image.config);
    let run = run.and_then(|(path, inode)| behind_scripts(tree, contents, path, inode));
    run.or_else(|| find(tree, b"bin/sh").and_then(|inode| Some((b"bin/sh".to_vec(), goarch(tree, contents, inode)?))))
}

fn behind_scripts(
    tree: &Tree,
    contents: &Contents,
    mut path: Vec<u8>,
    mut inode: InodeId,
) -> Option<(Vec<u8>, &'static str)> {
    for _ in 0..=SCRIPTS_MAX {
        if let Some(found) = goarch(tree, contents, inode) {
            return Some((path, found));
        }
        path = interpreter(&start::<LINE_BYTES>(tree, contents, inode)?)?;
        inode = find(tree, &path)?;
    }
    None
}

/// The interpreter that a script's first line names, from the root.
fn interpreter(start: &[u8]) -> Option<Vec<u8>> {
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    word.strip_prefix(b"/").map(<[u8]>::to_vec)
}

fn find(tree: &Tree, path: &[u8]) -> Option<InodeId> {
    tree.resolve(path).ok()?.inode
}

/// What all programs run on, where they agree: the last thing to go by.
fn of_all_programs(tree: &Tree, contents: &Contents) -> Option<String> {
    let executable = |inode: InodeId| tree.inode(inode).metadata.mode.bits() & 0o111 != 0;
    let programs = tree.walk().filter(|visit| executable(visit.inode));
    let found: BTreeSet<&str> = programs.filter_map(|visit| goarch(tree, contents, visit.inode)).collect();
    found.first().filter(|_| found.len() == 1).map(ToString::to_string)
}

fn goarch(tree: &Tree, contents: &Contents, inode: InodeId) -> Option<&'static str> {
    goarch_of_elf(&start::<ELF_BYTES>(tree, contents, inode)?)
}

/// The first bytes of a file: `COUNT`, or all that it has.
fn start<const COUNT: usize>(tree: &Tree, contents: &Contents, inode: InodeId) -> Option<Vec<u8>> {
    let Kind::File(data) = &tree.inode(inode).kind else { return None };
    let mut bytes = vec![0; data.size.min(COUNT as u64) as usize];
    contents.read_at(data, &mut bytes, 0).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_of_scripts() {
        for (line, want) in [
            (&b"#!/bin/sh\necho"[..], Some(&b"bin/sh"[..])),
            (b"#! \t/usr/bin/env python3\n", Some(b"usr/bin/env")),
            (b"#!bin/sh\n", None),
            (b"#!\n/bin/sh", None),
            (b"echo", None),
        ] {
            assert_eq!(interpreter(line).as_deref(), want, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn only_what_does_not_run_here_is_told() {
        let host = Platform::host().architecture;
        assert_eq!(other_machine(&host), None);
        assert_eq!(other_machine(""), None);
        assert_eq!(other_machine("s390x").map(|note| note.code), Some("other-architecture"));
    }
}
