//! Sparse files stay sparse in tars, the same bytes whichever way they came; other people's programs read them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use crate::support::entry::{Content, Entry, Kind, Piece};
use crate::support::listing::from_tar;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::run::{self, convert_to_stdout, host_has, program, run, scratch, skip};
use crate::support::{layer, listing};

const HUGE: u64 = 60 << 30;

fn sparse(path: &str, pieces: Vec<Piece>, form: &str) -> Entry {
    let mut entry = Entry::new(path, Kind::File(Content(pieces)));
    if form != "dense" {
        entry.dialect.push(format!("sparse-{form}"));
    }
    entry
}

fn data(byte: u8, count: usize) -> Piece {
    Piece::Data(vec![byte; count])
}

/// A layer that becomes one without holes takes the room of them, which is looked for before the first is filled.
#[test]
fn holes_that_would_be_filled_need_room() {
    let holes = ["a", "b"].map(|path| sparse(path, vec![Piece::Hole(1 << 62)], "1.0"));
    let place = scratch();
    fs::write(place.path().join("x.tar"), docker_archive(&[layer::tar_of(&holes)], Squeeze::Not)).unwrap();
    for format in ["docker-archive", "oci"] {
        let mut command = program();
        command.current_dir(place.path()).args([
            "x.tar",
            "--to",
            format,
            "--flatten",
            "--compression",
            "none",
            "-o",
            "out",
        ]);
        let done = run(&mut command);
        assert_eq!(done.code, 7, "{format}: {}", done.stderr);
        assert!(done.stderr.contains("and there is room for"), "{}", done.stderr);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "{format}");
    }
}

/// Files with holes at all places, and between them files that are not sparse.
fn entries(form: &str) -> Vec<Entry> {
    let long = format!("d/{}", "long-name-".repeat(20));
    vec![
        Entry::new("d", Kind::Dir),
        sparse("d/all", vec![Piece::Hole(3 << 20)], form),
        sparse("d/begin", vec![Piece::Hole(1 << 20), data(b'a', 70_000)], form),
        sparse("d/end", vec![data(b'b', 5000), Piece::Hole(2 << 20)], form),
        Entry::new("d/large", Kind::File(Content(vec![data(b'z', 300_000)]))),
        sparse(&long, vec![data(b'c', 1), Piece::Hole(1 << 20), data(b'd', 512), Piece::Hole(1 << 20)], form),
        sparse("d/short-holes", vec![data(b'e', 40_000), Piece::Hole(4095), data(b'f', 1)], form),
        Entry::new("e", Kind::File(Content(vec![data(b'y', 300_000)]))),
        // Zeros that the layer has as data are data.
        Entry::new("zeros", Kind::File(Content(vec![data(0, 1 << 20)]))),
    ]
}

#[test]
fn holes_of_layers_stay_holes_of_tars_whatever_spelled_them() {
    let directory = scratch();
    let (image, output) = (directory.path().join("image.tar"), directory.path().join("out.tar"));
    let expected = from_tar(&layer_with_root(&entries("dense"))).unwrap();
    for format in ["rootfs", "sif-rootfs"] {
        let mut first: Option<Vec<u8>> = None;
        for form in ["old", "0.0", "0.1", "1.0"] {
            // A root for Singularity records the image ID, in which the layer's digest is.
            first = first.filter(|_| format == "rootfs");
            for how in [Squeeze::Not, Squeeze::Gzip] {
                fs::write(&image, docker_archive(&[layer::tar_of(&entries(form))], how)).unwrap();
                let streamed = convert_to_stdout(&image, format, &[]);
                assert_eq!(streamed.code, 0, "{}", streamed.stderr);
                let bytes = first.get_or_insert_with(|| streamed.stdout.clone());
                assert!(*bytes == streamed.stdout, "{format}, {form}, to standard output");
                for jobs in ["1", "2", "8"] {
                    let words = ["--to", format, "--force", "--jobs", jobs, "-o"];
                    let filed = run(program().arg(&image).args(words).arg(&output));
                    assert_eq!(filed.code, 0, "{}", filed.stderr);
                    assert!(*bytes == fs::read(&output).unwrap(), "{format}, {form}, {jobs} jobs");
                }
            }
        }
        let bytes = first.unwrap();
        assert!(bytes.len() < (1 << 20) + 800_000, "{}", bytes.len());
        if format == "rootfs" {
            assert_eq!(expected.differences(&from_tar(&bytes).unwrap(), listing::Times::MadeIsAny), "");
            // What we wrote, as a layer: the same again.
            fs::write(&image, docker_archive(std::slice::from_ref(&bytes), Squeeze::Gzip)).unwrap();
            assert!(convert_to_stdout(&image, format, &[]).stdout == bytes);
        }
    }
}

/// The tar that a rootfs of these entries is, where nothing is sparse.
fn layer_with_root(entries: &[Entry]) -> Vec<u8> {
    let directory = scratch();
    let image = directory.path().join("image.tar");
    fs::write(&image, docker_archive(&[layer::tar_of(entries)], Squeeze::Not)).unwrap();
    let run = convert_to_stdout(&image, "rootfs", &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout
}

/// `docker load` reads sparse files, but `docker save` of what it loaded fails: "could not verify layer data".
#[test]
fn layers_of_images_are_written_without_holes() {
    let directory = scratch();
    let image = directory.path().join("image.tar");
    for format in ["docker-archive", "oci-archive"] {
        let flat = |form: &str| {
            fs::write(&image, docker_archive(&[layer::tar_of(&entries(form))], Squeeze::Not)).unwrap();
            let archive = directory.path().join("flat.tar");
            let words = ["--to", format, "--flatten", "--force", "-o"];
            assert_eq!(run(program().arg(&image).args(words).arg(&archive)).code, 0);
            convert_to_stdout(&archive, "rootfs", &[]).stdout
        };
        assert!(flat("1.0") == flat("dense"), "{format}");
    }
}

/// A hole costs neither bytes nor time, and these programs read what comes out: GNU tar, bsdtar and Python.
#[test]
fn other_programs_unpack_sparse_files() {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name);
    let mut all = entries("1.0");
    all.push(sparse("huge", vec![data(b'h', 3), Piece::Hole(HUGE / 2), data(b'i', 9), Piece::Hole(HUGE / 2)], "1.0"));
    fs::write(path("image.tar"), docker_archive(&[layer::tar_of(&all)], Squeeze::Gzip)).unwrap();
    for format in ["rootfs", "sif-rootfs"] {
        let output = path(&format!("{format}.tar"));
        assert_eq!(run(program().arg(path("image.tar")).args(["--to", format, "-o"]).arg(&output)).code, 0);
        assert!(fs::metadata(&output).unwrap().len() < 2 << 20);
    }
    // Pythons before 3.11.4 know no filters, and trust as is wanted here.
    let python = "import sys, tarfile\n\
                  filters = {'filter': 'fully_trusted'} if hasattr(tarfile, 'data_filter') else {}\n\
                  tarfile.open(sys.argv[1]).extractall(sys.argv[2], **filters)";
    let mut unpacked = Vec::new();
    for format in ["rootfs", "sif-rootfs"] {
        let tar = format!("{format}.tar");
        for program in ["tar", "python3"].into_iter().filter(|program| host_has(program)) {
            let to = format!("{format}-{program}");
            fs::create_dir(path(&to)).unwrap();
            let mut command = std::process::Command::new(program);
            match program {
                "tar" => command.args(["-xf", &tar, "-C", &to]),
                _ => command.args(["-c", python, &tar, &to]),
            };
            let unpacking = run(command.current_dir(directory.path()));
            assert_eq!(unpacking.code, 0, "{}", unpacking.stderr);
            unpacked.push(to);
        }
        if let Some(oracles) = run::oracles() {
            let to = format!("{format}-bsdtar");
            fs::create_dir(path(&to)).unwrap();
            let unpacking = run(oracles.run(directory.path()).args(["bsdtar", "-xf", &tar, "-C", &to]));
            assert_eq!(unpacking.code, 0, "{}", unpacking.stderr);
            unpacked.push(to);
        }
    }
    if unpacked.is_empty() {
        skip("neither tar nor python3 nor the oracles");
    }
    for to in unpacked {
        let contents: Vec<&Entry> = all.iter().filter(|entry| matches!(entry.kind, Kind::File(_))).collect();
        contents.iter().for_each(|entry| check(&path(&to), entry));
    }
}

/// The file has this content, and of its holes no more room than a block before and behind each.
fn check(root: &Path, entry: &Entry) {
    let Kind::File(content) = &entry.kind else { return };
    let path = root.join(std::str::from_utf8(&entry.path).unwrap());
    let (file, metadata) = (File::open(&path).unwrap(), fs::metadata(&path).unwrap());
    assert_eq!(metadata.len(), content.size(), "{}", path.display());
    for (at, data) in content.extents() {
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, at).unwrap();
        assert!(found == data, "{} at {at}", path.display());
    }
    let data: u64 = content.extents().iter().map(|(_, data)| data.len() as u64).sum();
    assert!(metadata.blocks() * 512 < data + (128 << 10), "{}: {} blocks", path.display(), metadata.blocks());
}
