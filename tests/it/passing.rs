//! Blocks that pass from one squashfs into another as they are: what comes of it is what decoding gives, and damage in them
//! is found though nobody decodes them.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sif_convert::io::{Monitor, Region};
use sif_convert::squashfs::{Image, InodeKind};

use crate::support::listing::{Listing, Times, from_tar};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::Numbers;
use crate::support::run::{self, convert_to_stdout, exit_code, host_has, oracles, program, scratch, skip};
use crate::support::tar::Tar;
use crate::support::{disk, squashfs};

/// A root with files that share fragments, files of many blocks, equal ones, zeros at every place of a file, and noise.
fn image(directory: &Path) -> PathBuf {
    let mut numbers = Numbers::new(15);
    let words = ["alpha", "beta", "gamma", "delta\n", "epsilon", " "];
    let mut text = |length: usize| {
        let words = (0..length / 4 + 1).flat_map(|_| words[numbers.below(words.len() as u64) as usize].bytes());
        words.take(length).collect::<Vec<u8>>()
    };
    let mut tar = Tar::new().directory("etc").file("etc/hosts", "127.0.0.1 localhost\n").directory("many");
    for number in 0..400_usize {
        let length = [17, 900, 3000, 4096, 5000, 20_000][number % 6] + number % 7;
        tar = tar.file(format!("many/{number}"), text(length));
    }
    for length in [128 << 10, (128 << 10) + 1, (1 << 20) + 9, 4095, 4096] {
        let one = text(length);
        tar = tar.file(format!("one-{length}"), &one).file(format!("other-{length}"), &one);
        tar = tar.file(format!("zeros-first-{length}"), [vec![0; 300_000], one.clone()].concat());
        tar = tar.file(format!("zeros-last-{length}"), [one, vec![0; 300_000]].concat());
    }
    tar = tar.file("noise", Numbers::new(3).noise(1 << 20)).file("zeros", vec![0; 1 << 20]);
    tar = tar.file("small-noise", Numbers::new(4).noise(5000)).file("small-zeros", vec![0; 5000]);
    tar = tar.hard_link("hard", "noise").symlink("soft", "noise");
    let archive = directory.join("image.tar");
    fs::write(&archive, docker_archive(&[tar.finish()], Squeeze::Not)).unwrap();
    archive
}

fn convert(source: &Path, format: &str, output: &Path, arguments: &[&str]) {
    let mut command = program();
    command.arg(source).args(["--to", format, "--force", "-o"]).arg(output).args(arguments);
    let done = run::run(command.env("SOURCE_DATE_EPOCH", "1700000000"));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

fn tree(source: &Path) -> Listing {
    let done = convert_to_stdout(source, "rootfs", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

fn assert_same_bytes(one: &Path, other: &Path, what: &str) {
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{what}");
}

/// A tar of the same root has no blocks: what is made of it was compressed anew.
#[test]
fn blocks_of_ours_that_pass_are_those_that_would_be_made() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let archive = image(scratch.path());
    for (compression, block_size) in [("gzip", "131072"), ("zstd", "4096"), ("gzip", "1048576"), ("zstd", "131072")] {
        let way = ["--compression", compression, "--block-size", block_size];
        let what = way.join(" ");
        convert(&archive, "sif", &at("x.sif"), &way);
        convert(&at("x.sif"), "rootfs", &at("root.tar"), &[]);
        convert(&at("root.tar"), "squashfs", &at("decoded.sqsh"), &way);
        convert(&at("x.sif"), "squashfs", &at("passed.sqsh"), &way);
        assert_same_bytes(&at("decoded.sqsh"), &at("passed.sqsh"), &what);
        // From there on as well, with any number of threads, with and without a cache.
        for jobs in ["1", "2", "7"] {
            convert(&at("decoded.sqsh"), "squashfs", &at("again.sqsh"), &[&way[..], &["-j", jobs]].concat());
            assert_same_bytes(&at("decoded.sqsh"), &at("again.sqsh"), &what);
        }
        let cache = at("cache");
        convert(&at("x.sif"), "sif", &at("y.sif"), &way);
        for _ in 0..2 {
            convert(&at("x.sif"), "sif", &at("z.sif"), &[&way[..], &["--cache", cache.to_str().unwrap()]].concat());
            assert_same_bytes(&at("y.sif"), &at("z.sif"), &what);
        }
        let verified = run::run(program().arg("verify").arg(at("y.sif")));
        assert_eq!(verified.code, 0, "{}", verified.stderr);
    }
}

/// A level that is named is a level that is got; where none is named, none is promised.
#[test]
fn blocks_of_another_level_pass_unless_a_level_is_named() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let archive = image(scratch.path());
    convert(&archive, "sif", &at("fast.sif"), &["--compression", "gzip:1"]);
    convert(&at("fast.sif"), "rootfs", &at("root.tar"), &[]);
    let bytes = |name: &str| fs::metadata(at(name)).unwrap().len();
    convert(&at("root.tar"), "squashfs", &at("fast.sqsh"), &["--compression", "gzip:1"]);
    for way in [&[][..], &["--compression", "gzip"]] {
        convert(&at("fast.sqsh"), "squashfs", &at("passed.sqsh"), way);
        // Its tables were compressed anew.
        assert!(blocks(&at("fast.sqsh")) == blocks(&at("passed.sqsh")), "the blocks are those of the source");
    }
    for way in [&["--compression", "gzip:9"][..], &["--compression", "zstd"], &["--block-size", "65536"]] {
        convert(&at("root.tar"), "squashfs", &at("decoded.sqsh"), way);
        convert(&at("fast.sif"), "squashfs", &at("anew.sqsh"), way);
        assert_same_bytes(&at("decoded.sqsh"), &at("anew.sqsh"), &way.join(" "));
    }
    assert!(bytes("fast.sqsh") > bytes("decoded.sqsh"));
}

/// What a runtime adds stands between files whose blocks pass.
#[test]
fn files_that_are_added_stand_beside_blocks_that_pass() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let archive = image(scratch.path());
    convert(&archive, "sif", &at("x.sif"), &[]);
    convert(&at("x.sif"), "docker-archive", &at("back.tar"), &[]);
    for runtime in ["enroot", "charliecloud"] {
        let way = ["--for", runtime];
        convert(&at("back.tar"), "squashfs", &at("decoded.sqsh"), &way);
        convert(&at("x.sif"), "squashfs", &at("passed.sqsh"), &way);
        let differences = tree(&at("decoded.sqsh")).differences(&tree(&at("passed.sqsh")), Times::Exact);
        // These hold the image's config or its ID, which is another: its layer is known by a digest.
        let own = ["\"etc/rc\"", "\"ch/config.pulled.json\""];
        let other: Vec<&str> = differences.lines().filter(|line| !own.iter().any(|name| line.contains(name))).collect();
        assert!(other.is_empty(), "{runtime}: {other:#?}");
        Image::open(region(&at("passed.sqsh"))).unwrap().verify(NonZeroUsize::MIN, &Monitor::default()).unwrap();
    }
}

/// In a file the one layer is written to where it lies in the archive; a stream takes it from a file of its own.
#[test]
fn a_layer_that_is_written_to_its_place_gives_the_archive_that_a_stream_gets() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    convert(&image(scratch.path()), "sif", &at("x.sif"), &[]);
    let long = format!("example.org/{}:1", "name/".repeat(24) + "x");
    for way in [&[][..], &["--tag", &long], &["-j", "1"], &["--cmd", "a command", "--flatten"]] {
        convert(&at("x.sif"), "docker-archive", &at("file.tar"), way);
        let mut command = program();
        command.arg(at("x.sif")).args(["--to", "docker-archive", "-o", "-"]).args(way);
        let streamed = run::run(command.env("SOURCE_DATE_EPOCH", "1700000000"));
        assert!(streamed.stdout == fs::read(at("file.tar")).unwrap(), "{way:?}");
        let differences = tree(&at("x.sif")).differences(&tree(&at("file.tar")), Times::Exact);
        assert!(differences.is_empty(), "{way:?}: {differences}");
        let verified = run::run(program().arg("verify").arg(at("file.tar")));
        assert_eq!(verified.code, 0, "{}", verified.stderr);
    }
}

fn region(path: &Path) -> Region {
    Region::whole(Arc::new(File::open(path).unwrap())).unwrap()
}

/// Where the data blocks of the squashfs in `file` lie, from the start of the file.
fn data_of(file: &Path) -> std::ops::Range<u64> {
    let bytes = fs::read(file).unwrap();
    let start = match squashfs::open(file) {
        Ok(container) => squashfs::partition(&container).offset,
        Err(_) => 0,
    };
    let table = &bytes[start as usize + 64..][..8];
    start + 96..start + u64::from_le_bytes(table.try_into().unwrap())
}

fn blocks(file: &Path) -> Vec<u8> {
    let (bytes, data) = (fs::read(file).unwrap(), data_of(file));
    bytes[data.start as usize..data.end as usize].to_vec()
}

fn flip(file: &Path, at: u64, bit: u32) {
    let open = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).unwrap();
    open.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

/// One flipped bit anywhere in the data of a SIF of ours, compressed or not.
#[test]
fn damage_in_blocks_of_ours_that_pass_is_found() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    convert(&image(scratch.path()), "sif", &at("x.sif"), &[]);
    let data = data_of(&at("x.sif"));
    let mut numbers = Numbers::new(8);
    for round in 0..24 {
        let (place, bit) = (data.start + numbers.below(data.end - data.start), numbers.below(8) as u32);
        flip(&at("x.sif"), place, bit);
        for (format, name) in [("squashfs", "out.sqsh"), ("sif", "out.sif")].iter().skip(round % 2).take(1) {
            let done = run::run(program().arg(at("x.sif")).args(["--to", format, "-o"]).arg(at(name)));
            let by_checksum = done.stderr.contains("the checksum that was written with it");
            let kind = if by_checksum { "Mismatch" } else { "InvalidImage" };
            assert_eq!(done.code, exit_code(kind), "round {round}, bit {bit} of {place}: {}", done.stderr);
            assert!(done.stderr.contains("checksum") || done.stderr.contains("damaged"), "{}", done.stderr);
            assert!(!at(name).exists());
        }
        flip(&at("x.sif"), place, bit);
    }
    // All flips were taken back.
    convert(&at("x.sif"), "squashfs", &at("out.sqsh"), &[]);
}

/// The same in a squashfs without checksums, where only compressed blocks tell.
#[test]
fn damage_in_compressed_blocks_of_others_that_pass_is_found() {
    if !host_has("mksquashfs") && run::run(std::process::Command::new("mksquashfs").arg("-version")).stdout.is_empty() {
        return skip("mksquashfs is missing");
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir_all(at("root/etc")).unwrap();
    for number in 0..300_usize {
        fs::write(at(&format!("root/etc/{number}")), format!("{number} and more, ").repeat(20 + number)).unwrap();
    }
    fs::write(at("root/large"), "a line of some length, and another\n".repeat(60_000)).unwrap();
    let made = run::run(std::process::Command::new("mksquashfs").args([at("root"), at("x.sqsh")]).args([
        "-quiet",
        "-no-progress",
        "-all-root",
    ]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let image = Image::open(region(&at("x.sqsh"))).unwrap();
    let stored = image.verify(NonZeroUsize::MIN, &Monitor::default()).unwrap();
    assert_eq!(stored.unprotected_blocks, 0, "all of it compresses");
    convert(&at("x.sqsh"), "squashfs", &at("out.sqsh"), &[]);
    let (before, after) = (blocks(&at("x.sqsh")), blocks(&at("out.sqsh")));
    let shared = before.windows(64).step_by(64).filter(|one| after.windows(64).any(|other| other == *one)).count();
    assert!(shared * 64 * 10 > before.len() * 9, "{shared} of {} pieces are the same", before.len() / 64);
    let data = data_of(&at("x.sqsh"));
    let mut numbers = Numbers::new(9);
    for round in 0..24 {
        let (place, bit) = (data.start + numbers.below(data.end - data.start), numbers.below(8) as u32);
        flip(&at("x.sqsh"), place, bit);
        let done =
            run::run(program().arg(at("x.sqsh")).args(["--to", "squashfs", "--force", "-o"]).arg(at("out.sqsh")));
        assert_eq!(done.code, exit_code("InvalidImage"), "round {round}, bit {bit} of {place}: {}", done.stderr);
        assert!(done.stderr.contains("reading contents of"), "{}", done.stderr);
        flip(&at("x.sqsh"), place, bit);
    }
}

/// Images of mksquashfs and SIFs of Apptainer: their blocks in ours are read by unsquashfs, by the kernel and by squashfuse.
#[test]
fn others_read_blocks_of_others_in_ours() {
    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    convert(&image(scratch.path()), "rootfs", &at("root.tar"), &[]);
    let script = "mkdir root && tar -C root -xpf root.tar && chown 7:8 root/noise && find root -exec touch -h -d @1500000000 {} + && \
                  apptainer --silent build box.sif root >&2
                  for c in gzip zstd; do for b in 4K 128K 1M; do
                      mksquashfs root $c-$b.sqsh -comp $c -b $b -quiet -no-progress; done; done";
    let done = run::run(oracles.run(scratch.path()).args(["bash", "-ec", script]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut sources = vec![("box.sif".to_string(), "gzip", "131072")];
    for compression in ["gzip", "zstd"] {
        for (word, bytes) in [("4K", "4096"), ("128K", "131072"), ("1M", "1048576")] {
            sources.push((format!("{compression}-{word}.sqsh"), compression, bytes));
        }
    }
    for (source, compression, block_size) in sources {
        let way = ["--compression", compression, "--block-size", block_size];
        convert(&at(&source), "squashfs", &at("out.sqsh"), &way);
        convert(&at(&source), "squashfs", &at("other.sqsh"), &[&way[..], &["-j", "1"]].concat());
        assert_same_bytes(&at("out.sqsh"), &at("other.sqsh"), &source);
        Image::open(region(&at("out.sqsh"))).unwrap().verify(NonZeroUsize::MIN, &Monitor::default()).unwrap();
        let expected = tree(&at(&source));
        let script = "rm -rf seen && mkdir seen && unsquashfs -quiet -no-progress -d seen/unsquashfs out.sqsh >/dev/null
            for how in kernel squashfuse; do mkdir seen/$how.at; done
            mount -t squashfs -o ro,loop out.sqsh seen/kernel.at && cp -a seen/kernel.at seen/kernel && umount seen/kernel.at
            squashfuse out.sqsh seen/squashfuse.at && cp -a seen/squashfuse.at seen/squashfuse && umount seen/squashfuse.at";
        let done = run::run(oracles.run(scratch.path()).args(["bash", "-ec", script]));
        assert_eq!(done.code, 0, "{source}: {}", done.stderr);
        for how in ["unsquashfs", "kernel", "squashfuse"] {
            let found = disk::list(&at("seen").join(how));
            // squashfuse does not tell which names are one file.
            let plain =
                |listing: &Listing| if how == "squashfuse" { squashfs::plain(listing) } else { listing.clone() };
            let differences = plain(&expected).differences(&plain(&found), Times::Exact);
            assert!(differences.is_empty(), "{source}, {how}:\n{differences}");
        }
        convert(&at(&source), "sif", &at("out.sif"), &[&way[..], &["--arch", "amd64"]].concat());
        let differences = expected.differences(&tree(&at("out.sif")), Times::Exact);
        assert!(differences.is_empty(), "{source}, sif:\n{differences}");
        let image = Image::open(region(&at("out.sqsh"))).unwrap();
        assert!(image.entries().any(|entry| matches!(entry.unwrap().inode.kind, InodeKind::File(_))));
    }
}
