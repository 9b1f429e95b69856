//! squashfs images of other makers, as sources: every tree is what unsquashfs makes of the image.
//!
//! Needs root, for owners and devices, and `scripts/oracles setup`; without them tests are skipped with a printed reason,
//! and fail under `ORACLES=require`.

use std::fs;
use std::path::Path;

use crate::support::listing::{Listing, Times, from_tar, parts};
use crate::support::run::{self, Oracles, convert_to_stdout, oracles, scratch};

/// Makes a tree in `t` with every kind of file, times in whole seconds.
const TREE: &str = r#"set -e
mkdir -p t/etc t/bin t/d/e t/many
head -c 3000000 /dev/urandom >t/d/noise
yes "some text that compresses" | head -c 2500000 >t/d/text
truncate -s 5000000 t/d/hole && printf end | dd of=t/d/hole bs=1 seek=4000000 conv=notrunc status=none
truncate -s 1048576 t/d/zeros
head -c 131072 /dev/zero | tr '\0' x >t/d/block
printf "" >t/d/empty
ln t/d/text t/d/e/hard && ln t/d/empty t/d/e/hard-empty
ln -s ../text t/d/e/soft && ln t/d/e/soft t/d/soft-hard 2>/dev/null || true
for n in $(seq 1 700); do printf "%s" "$n" >"t/many/a-rather-long-name-for-an-index-$n"; done
mkfifo t/d/fifo
mknod t/d/null c 1 3 && mknod t/d/disk b 259 300
chown 1000:1001 t/d/noise && chown -h 5:6 t/d/e/soft && chown 4000000000:7 t/d/text
chmod 4755 t/d/noise && chmod 1777 t/d && chmod 000 t/d/block
setfattr -n user.note -v hello t/d/text && setfattr -n user.note -v hello t/d && setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 t/d/noise || echo "no xattrs" >&2
find t -exec touch -h -d @1500000000 {} +
"#;

fn sh(oracles: &Oracles, directory: &Path, script: &str) -> String {
    let done = run::run(oracles.run(directory).args(["bash", "-c", script]));
    let stdout = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.code, 0, "{script}: {stdout}{}", done.stderr);
    stdout
}

/// What GNU tar sees in the directory that unsquashfs made of `image`.
fn unsquashed(oracles: &Oracles, directory: &Path, image: &str) -> Listing {
    let script = format!(
        "rm -rf u && unsquashfs -quiet -no-progress -d u {image} >/dev/null && tar -C u --format=pax --numeric-owner \
         --sort=name --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' \
         '--transform=flags=rh;s,^\\./\\(.\\),\\1,' -cf u.tar . && rm -rf u"
    );
    sh(oracles, directory, &script);
    let listing = from_tar(&fs::read(directory.join("u.tar")).unwrap()).unwrap();
    fs::remove_file(directory.join("u.tar")).unwrap();
    listing
}

fn assert_as_unsquashfs(oracles: &Oracles, directory: &Path, image: &str) -> Listing {
    let expected = unsquashed(oracles, directory, image);
    let done = convert_to_stdout(&directory.join(image), "rootfs", &[]);
    assert_eq!(done.code, 0, "{image}: {}", done.stderr);
    let found = from_tar(&done.stdout).unwrap();
    let differences = expected.differences(&found, Times::Exact);
    assert!(differences.is_empty(), "{image}:\n{differences}");
    found
}

const COMPRESSORS: [&str; 6] = ["gzip", "zstd", "xz", "lz4", "lzo", "lzma"];

/// Block sizes besides the smallest, the usual and the largest.
const OTHER_BLOCKS: [&str; 6] = ["8192", "16384", "32768", "65536", "262144", "524288"];

/// Which of them a compressor is tried with: one of its own, all of them where `SQUASHFS_MATRIX` is set.
fn other_blocks(compressor: &str) -> Vec<&'static str> {
    let own = COMPRESSORS.iter().position(|&each| each == compressor).unwrap();
    match std::env::var_os("SQUASHFS_MATRIX") {
        Some(_) => OTHER_BLOCKS.to_vec(),
        None => vec![OTHER_BLOCKS[own]],
    }
}

#[test]
fn every_compressor_and_block_size_of_mksquashfs_is_read() {
    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let place = scratch.path();
    sh(&oracles, place, TREE);
    let known = sh(&oracles, place, "mksquashfs -help-all 2>&1 || mksquashfs -help 2>&1 || true");
    for compressor in COMPRESSORS {
        if !known.contains(&format!("\t{compressor}")) && !known.contains(&format!("{compressor} ")) {
            assert_eq!(compressor, "lzma", "this mksquashfs has no {compressor}");
            continue;
        }
        for block in [vec!["4K", "128K", "1M"], other_blocks(compressor)].concat() {
            let image = format!("{compressor}-{block}.sqsh");
            sh(
                &oracles,
                place,
                &format!("mksquashfs t {image} -comp {compressor} -b {block} -quiet -no-progress -noappend"),
            );
            let found = assert_as_unsquashfs(&oracles, place, &image);
            assert!(found.names.len() > 710, "{image}: names are missing");
            assert!(found.node(&parts(b"d/null")).is_some());
            fs::remove_file(place.join(image)).unwrap();
        }
    }
}

#[test]
fn options_of_mksquashfs_that_change_the_layout_are_read() {
    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let place = scratch.path();
    sh(&oracles, place, TREE);
    for options in [
        "-no-fragments",
        "-always-use-fragments",
        "-no-exports -no-xattrs",
        "-no-duplicates",
        "-noI -noD -noF -noX -noId",
        "-no-sparse",
        "-nopad",
        "-comp xz -Xbcj x86",
        "-comp lz4 -Xhc",
        "-comp gzip -Xwindow-size 8 -Xstrategy huffman_only",
        "-comp lzo -Xalgorithm lzo1x_1",
        "-all-root -mkfs-time 0",
        "-no-tailends -b 64K",
    ] {
        sh(&oracles, place, &format!("mksquashfs t image.sqsh {options} -quiet -no-progress -noappend"));
        assert_as_unsquashfs(&oracles, place, "image.sqsh");
    }
}

/// The line with which Singularity 2.4 to 2.6 began an image; Apptainer still runs these.
#[test]
fn images_of_singularity_2_are_read() {
    let scratch = scratch();
    let place = scratch.path();
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    let convert = |source: &Path, format: &str| {
        let done = convert_to_stdout(source, format, &[]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stdout
    };
    let squashfs = place.join("plain.squashfs");
    let made = run::run(run::program().current_dir(place).args([archive, "--to", "squashfs", "-o", "plain.squashfs"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let old = place.join("old.simg");
    fs::write(&old, [&b"#!/usr/bin/env run-singularity\n"[..], &fs::read(&squashfs).unwrap()].concat()).unwrap();
    for format in ["rootfs", "sif-rootfs", "docker-archive"] {
        assert!(convert(&old, format) == convert(&squashfs, format), "{format}");
    }
    let other = place.join("other.simg");
    fs::write(&other, [&b"#!/usr/bin/env run-singularity\n"[..], &[0; 5000]].concat()).unwrap();
    let done = convert_to_stdout(&other, "rootfs", &[]);
    assert!(done.code == 4 && done.stderr.contains("an image of Singularity 2"), "{}", done.stderr);
    let Some(oracles) = oracles() else { return };
    let differences = unsquashed(&oracles, place, "-o 31 old.simg")
        .differences(&from_tar(&convert(&old, "rootfs")).unwrap(), Times::Exact);
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn images_of_squashfs_tools_ng_are_read() {
    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let place = scratch.path();
    sh(&oracles, place, TREE);
    let mut expected = None;
    let fixed = ["", "-c zstd -b 4096", "-c xz", "-c lz4 -b 1048576", "-e"].map(str::to_string);
    let known = sh(&oracles, place, "tar2sqfs --help");
    let compressors = COMPRESSORS.into_iter().filter(|name| known.contains(&format!("\n\t{name}")));
    let crossed =
        compressors.flat_map(|name| other_blocks(name).into_iter().map(move |block| format!("-c {name} -b {block}")));
    sh(&oracles, place, "tar -C t --xattrs -cf t.tar .");
    for options in fixed.into_iter().chain(crossed) {
        sh(&oracles, place, &format!("tar2sqfs -q -f {options} image.sqsh <t.tar"));
        expected.get_or_insert_with(|| assert_as_unsquashfs(&oracles, place, "image.sqsh"));
        // unsquashfs cannot read the id table of an lz4 image of tar2sqfs; the kernel and rdsquashfs can.
        let done = convert_to_stdout(&place.join("image.sqsh"), "rootfs", &[]);
        assert_eq!(done.code, 0, "{options}: {}", done.stderr);
        let found = from_tar(&done.stdout).unwrap();
        let expected = expected.as_ref().unwrap();
        let differences = expected.differences(&found, Times::Exact);
        assert!(differences.is_empty(), "{options}: {differences}");
    }
    sh(&oracles, place, "gensquashfs -q -f -D t image.sqsh");
    assert_as_unsquashfs(&oracles, place, "image.sqsh");
}

#[test]
fn images_of_the_crate_backhand_are_read() {
    use backhand::compression::Compressor;
    use backhand::{FilesystemCompressor, FilesystemWriter, NodeHeader};

    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let place = scratch.path();
    let text = "some text that compresses\n".repeat(60_000);
    let noise: Vec<u8> = (0..1_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let zeros = vec![0; 700_000];
    let header = |mode, owner| NodeHeader { permissions: mode, uid: owner, gid: owner + 1, mtime: 1_500_000_000 };
    for (compressor, block) in [
        (Compressor::Gzip, 128 << 10),
        (Compressor::Gzip, 4 << 10),
        (Compressor::Xz, 1 << 20),
        (Compressor::Xz, 8 << 10),
        (Compressor::Zstd, 64 << 10),
        (Compressor::Zstd, 1 << 20),
    ] {
        let mut image = FilesystemWriter::default();
        image.set_compressor(FilesystemCompressor::new(compressor, None).unwrap());
        image.set_block_size(block);
        image.set_time(1_500_000_000);
        image.set_root_mode(0o755);
        image.push_dir("d", header(0o1777, 0)).unwrap();
        image.push_dir("d/e", header(0o750, 1000)).unwrap();
        let contents =
            [("text", text.as_bytes()), ("noise", &noise), ("zeros", &zeros), ("empty", b""), ("again", &noise)];
        for (number, (name, bytes)) in (0..).zip(contents) {
            image.push_file(bytes, format!("d/{name}"), header(0o4755, number)).unwrap();
        }
        for number in 0..700_u32 {
            let (bytes, name) =
                (number.to_string().into_bytes(), format!("d/e/a-rather-long-name-for-an-index-{number}"));
            image.push_file(std::io::Cursor::new(bytes), name, header(0o644, 70_000)).unwrap();
        }
        image.push_symlink("../d/text", "d/e/soft", header(0o777, 5)).unwrap();
        image.push_char_device(0x0103, "d/null", header(0o666, 0)).unwrap();
        image.push_block_device(0x0801, "d/disk", header(0o660, 6)).unwrap();
        image.push_fifo("d/fifo", header(0o600, 0)).unwrap();
        let mut file = fs::File::create(place.join("image.sqsh")).unwrap();
        image.write(&mut file).unwrap();
        let found = assert_as_unsquashfs(&oracles, place, "image.sqsh");
        assert_eq!(found.names.len(), 1 + 2 + 5 + 700 + 4, "{compressor:?} {block}");
    }
}

/// Apptainer's own files leave the root, and the container runs as it ran.
#[test]
fn sifs_of_apptainer_become_images() {
    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let place = scratch.path();
    sh(&oracles, place, TREE);
    sh(&oracles, place, "rm t/d/null t/d/disk t/d/fifo && apptainer --silent build x.sif t");
    fs::write(
        place.join("image.def"),
        "bootstrap: localimage\nfrom: t\n\n%environment\nexport A='it is' B=2\nexport PATH=/opt/bin:$PATH\n\n\
         %runscript\nexec /bin/echo \"a b\" \"$@\"\n\n%labels\nmine yes\n",
    )
    .unwrap();
    sh(&oracles, place, "apptainer --silent build --sandbox s image.def && apptainer --silent build y.sif image.def");
    let original = sh(&oracles, place, "cd t && find . | sort");
    for source in ["x.sif", "y.sif", "s"] {
        let done = run::run(
            run::program()
                .arg(place.join(source))
                .args(["--to", "docker-archive", "--force", "-o"])
                .arg(place.join("b.tar")),
        );
        assert_eq!(done.code, 0, "{source}: {}", done.stderr);
        let names = sh(
            &oracles,
            place,
            "rm -rf b && mkdir b && tar -C b -xf b.tar && tar -tf b/*.tar | sed 's,/$,,;s,^\\./,,;s,^,./,' | sed 's,^\\./\\.\\?$,.,' | sort",
        );
        let added: Vec<&str> = names.lines().filter(|name| !original.lines().any(|known| known == *name)).collect();
        // What Apptainer made, and nobody can tell from what was there.
        for name in &added {
            let base = ["dev", "home", "proc", "root", "sys", "tmp", "var", "var/tmp", "etc/hosts", "etc/resolv.conf"];
            assert!(base.contains(&name.trim_start_matches("./")), "{source} adds {name}");
        }
        let config: serde_json::Value =
            serde_json::from_str(&sh(&oracles, place, "cat b/$(jq -r '.[0].Config' b/manifest.json)")).unwrap();
        if source != "x.sif" {
            assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/bin/echo", "a b"]), "{source}");
            let path = "PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            assert_eq!(config["config"]["Env"], serde_json::json!([path, "A=it is", "B=2"]), "{source}");
            assert_eq!(config["config"]["Labels"]["mine"], "yes", "{source}");
        }
    }
}
