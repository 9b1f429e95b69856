//! Small archives that are made to cost much: what they may take is bounded, and the bounds are those of docs/security.md.
//! Every run has 1 GiB of address space and 40 seconds of a processor; linear ones take a few, in a build that is not
//! optimised.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer::{self, member};
use crate::support::listing;
use crate::support::pack::{Squeeze, docker_archive, docker_archive_of, squeeze};
use crate::support::random::Numbers;
use crate::support::run::{Run, exit_code, is_root, run, scratch, skip};

const ADDRESS_SPACE_KIB: u32 = 1 << 20;
const SECONDS: u32 = 40;

const INVALID: i32 = 4;

/// Converts with these options to a tar or a SIF, whose bytes come back.
fn convert(archive: &[u8], format: &str, options: &[&str]) -> (Run, Option<Vec<u8>>) {
    let place = scratch();
    fs::write(place.path().join("image.tar"), archive).unwrap();
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", place.path()).stdin(Stdio::null());
    let script = format!("ulimit -v {ADDRESS_SPACE_KIB}; ulimit -t {SECONDS}; exec \"$@\"");
    command.current_dir(place.path()).args(["-c", &script, "sh", env!("CARGO_BIN_EXE_convert")]);
    command.args(["image.tar", "--to", format, "-o", "x.tar", "--jobs", "2"]).args(options);
    let run = run(&mut command);
    let output = fs::read(place.path().join("x.tar")).ok();
    assert_eq!(
        run.code == 0,
        output.is_some(),
        "exit code {} (137 and 152 are the time limit): {}",
        run.code,
        run.stderr
    );
    (run, output)
}

fn refuse(what: &str, archive: &[u8], options: &[&str], words: &[&str]) {
    for format in ["sif", "rootfs"] {
        let (run, _) = convert(archive, format, options);
        assert_eq!(run.code, INVALID, "{what} to {format}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{what} to {format}: {word:?} is not in {}", run.stderr);
        }
    }
}

fn accept(what: &str, archive: &[u8], options: &[&str]) -> usize {
    let (run, _) = convert(archive, "sif", options);
    assert_eq!(run.code, 0, "{what} to sif: {}", run.stderr);
    let (run, output) = convert(archive, "rootfs", options);
    assert_eq!(run.code, 0, "{what} to rootfs: {}", run.stderr);
    listing::from_tar(&output.unwrap()).unwrap_or_else(|wrong| panic!("{what}: {wrong}")).names.len()
}

fn file(path: impl Into<Vec<u8>>) -> Entry {
    Entry::new(path, Kind::File(Content::data(&b""[..])))
}

fn symlink(path: &str, target: impl Into<Vec<u8>>) -> Entry {
    Entry::new(path, Kind::Symlink(target.into()))
}

fn gzipped(layers: &[Vec<u8>]) -> Vec<u8> {
    docker_archive(layers, Squeeze::Gzip)
}

fn layer_of(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    layer::tar_of(&entries.into_iter().collect::<Vec<_>>())
}

#[test]
fn directories_that_names_imply_are_counted() {
    let deep = |count: usize| (0..count).map(|number| file(format!("{number}/{}f", "d/".repeat(2000))));
    // 2,000 directories of 960 bytes and three paths of 2,000 bytes on average: 14 MB a name.
    let limit = ["--max-memory", "128M"];
    refuse("30 deep names", &gzipped(&[layer_of(deep(30))]), &limit, &["128 MiB of memory", "--max-memory"]);
    assert!(accept("5 deep names", &gzipped(&[layer_of(deep(5))]), &limit) > 10_000);
    // The same by a symlink that makes each path longer than it is written.
    let link = symlink("s", "d/".repeat(2000));
    let short = (0..30_000).map(|number| file(format!("s/{number}")));
    refuse("30,000 longer names", &gzipped(&[layer_of([link].into_iter().chain(short))]), &limit, &["128 MiB"]);
}

/// What a conversion takes besides what is counted: programs, threads, buffers, blocks that are being compressed.
const BASE_MIB: u64 = 64;

/// What is counted is more than what is used, whatever the entries are: what an image may take is known beforehand.
#[test]
fn memory_stays_below_what_is_counted() {
    const ENTRIES: usize = 30_000;
    let content = |number: usize| Content::data(number.to_string().repeat(number % 50 + 1));
    // What is made, and how many bytes docs/security.md counts for each: names here have at most 5 bytes, or so many.
    type Make<'a> = &'a dyn Fn(usize) -> Entry;
    let kinds: [(&str, u64, Make<'_>); 6] = [
        ("empty files", 640 + 3 * 60, &|number| file(format!("{number:060}"))),
        ("files", 640 + 3 * 5, &|number| Entry::new(format!("{number}"), Kind::File(content(number)))),
        ("directories", 960 + 3 * 5, &|number| Entry::new(format!("{number}"), Kind::Dir)),
        ("files in directories", 960 + 640 + 6 * 7, &|number| file(format!("{number}/f"))),
        ("symlinks", 640 + 3 * 205, &|number| symlink(&format!("{number}"), format!("{number:0200}"))),
        ("links", 640 + 3 * 101, &|number| match number {
            0 => file("f"),
            _ => Entry::new(format!("{number:0100}"), Kind::Link(b"f".to_vec())),
        }),
    ];
    for (what, bytes, make) in kinds {
        let archive = gzipped(&[layer_of((0..ENTRIES).map(make))]);
        let counted = ENTRIES as u64 * bytes / (1 << 20) + 1;
        refuse(what, &archive, &["--max-memory", &format!("{}M", counted * 9 / 10)], &["of memory"]);
        for format in ["sif", "rootfs"] {
            let peak = peak_mib(&archive, format, counted, &[]);
            eprintln!("30,000 {what} to {format}: {counted} MiB are counted, the peak is {peak} MiB");
            assert!(peak <= BASE_MIB + counted, "30,000 {what} to {format}: peak {peak} MiB, counted {counted} MiB");
        }
    }
}

/// The most memory that a conversion which must succeed takes at any time.
fn peak_mib(archive: &[u8], format: &str, limit_mib: u64, more: &[&str]) -> u64 {
    let place = scratch();
    fs::write(place.path().join("image.tar"), archive).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
    command.args(["image.tar", "--to", format, "-o", "x.tar", "--jobs", "2", "-q", "--max-memory"]);
    command.arg(format!("{limit_mib}M")).args(more).current_dir(place.path()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).map_or(0, |kib| kib.parse().unwrap());
        peak_kib = peak_kib.max(kib);
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(3));
    };
    assert_eq!(code, Some(0), "to {format} with {limit_mib} MiB");
    peak_kib / 1024
}

#[test]
fn the_key_of_an_encrypted_sif_takes_its_memory_before_the_layers_are_read() {
    let archive = gzipped(&[layer_of((0..60_000).map(|number| file(format!("{number}"))))]);
    let passphrase = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/encryption/passphrase");
    let peak = peak_mib(&archive, "sif", 256, &["--encrypt-passphrase-file", passphrase]);
    eprintln!("60,000 files to an encrypted sif: the peak is {peak} MiB");
    assert!(peak <= 100, "{peak} MiB");
}

#[test]
fn extended_attributes_are_counted() {
    let many = |number: usize| {
        let mut entry = file(format!("{number}"));
        entry.dialect.extend((0..1000).map(|name| format!("record=SCHILY.xattr.user.{name}:x")));
        entry
    };
    let limit = ["--max-memory", "256M"];
    refuse("2 million attributes", &gzipped(&[layer_of((0..2000).map(many))]), &limit, &["256 MiB of memory"]);
}

#[test]
fn a_layer_that_empties_a_directory_again_and_again_takes_linear_time() {
    let names = 10_000;
    let lower = layer_of((0..names).map(|number| file(format!("d/{number}"))));
    for marker in [".wh.d", "d/.wh..wh..opq"] {
        let upper = (0..names).flat_map(|number| [file(format!("d/{number}")), file(marker)]);
        let archive = gzipped(&[lower.clone(), layer_of(upper)]);
        assert_eq!(accept(marker, &archive, &[]), names + 2, "what the layer wrote stays");
    }
}

#[test]
fn targets_of_symlinks_are_bounded() {
    let chain = |count: usize, length: usize| {
        let target = |number: usize| format!("{}s{}", "a/../".repeat(length), number + 1);
        let links = (0..200).map(move |number| symlink(&format!("s{number}"), target(number)));
        layer_of(links.chain((0..count).map(|number| file(format!("s0/{number}/f")))))
    };
    let long = symlink("s", "a/../".repeat(1000));
    refuse("a target of 5,000 bytes", &gzipped(&[layer_of([long])]), &[], &["\"s\"", "5000 bytes, more than 4095"]);
    refuse("2,000 chains of long links", &gzipped(&[chain(2000, 798)]), &[], &["32 MiB of symbolic links"]);
    accept("20 chains of long links", &gzipped(&[chain(20, 798)]), &[]);
    accept("2,000 chains of short links", &gzipped(&[chain(2000, 1)]), &[]);
}

#[test]
fn global_records_take_linear_time() {
    let records: String = (10_000..70_000).map(|number| format!("12 {number}=xx\n")).collect();
    let mut tar = Vec::new();
    for _ in 0..50 {
        pax(&mut tar, b'g', records.as_bytes());
    }
    tar.extend(layer_of((0..2000).map(|number| file(format!("{number}")))));
    assert_eq!(accept("3 million global records", &gzipped(&[tar]), &[]), 2001);
}

fn pax(tar: &mut Vec<u8>, flag: u8, records: &[u8]) {
    let start = tar.len();
    member(tar, "x", records);
    tar[start + 156] = flag;
    tar[start + 148..start + 156].fill(b' ');
    let sum: u32 = tar[start..start + 512].iter().map(|&byte| u32::from(byte)).sum();
    tar[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn nul_bytes_in_targets_and_attributes_are_refused() {
    let with = |kind: Kind, record: &str| {
        let mut entry = Entry::new("bad", kind);
        entry.dialect.push(format!("record={record}"));
        gzipped(&[layer_of([file("f"), entry])])
    };
    let plain = || Kind::File(Content::data(&b""[..]));
    refuse("a symlink", &with(Kind::Symlink(b"x".to_vec()), "linkpath:a\0b"), &[], &["malformed"]);
    refuse("a hard link", &with(Kind::Link(b"f".to_vec()), "linkpath:f\0b"), &[], &["malformed"]);
    refuse("an attribute", &with(plain(), "SCHILY.xattr.user.a\0b:x"), &[], &["malformed"]);
    refuse("libarchive's", &with(plain(), "LIBARCHIVE.xattr.user.a%00b:eA"), &[], &["malformed"]);
}

#[test]
fn layers_are_counted() {
    let layers: Vec<Vec<u8>> = (0..1025).map(|number| layer_of([file(format!("{number}"))])).collect();
    refuse("1,025 layers", &docker_archive(&layers, Squeeze::Not), &[], &["1025 layers, more than 1024"]);
    accept("1,024 layers", &docker_archive(&layers[1..], Squeeze::Not), &[]);
}

/// Zeros take no room: those that are all there is, and those after the end of an archive.
#[test]
fn zeros_without_end() {
    let small = docker_archive(&[layer_of([file("f")])], Squeeze::Not);
    for (start, code, words) in [(&[][..], INVALID, "the archive is empty"), (&small[..], 0, "")] {
        let place = scratch();
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", place.path()).current_dir(place.path());
        // No file may grow beyond 8 MiB.
        command.args(["-c", "ulimit -f 16384; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_convert")]);
        command.args(["-", "--to", "rootfs", "-o", "out"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let start = start.to_vec();
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            // Whoever refuses it need not read to the end.
            let _ = stdin.write_all(&start);
            for _ in 0..64 {
                let _ = stdin.write_all(&vec![0; 1 << 20]);
            }
        });
        let ended = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(words), "{words:?} is not in {stderr}");
    }
    let zeros = squeeze(&vec![0; 64 << 20], Squeeze::Gzip);
    refuse("zeros in gzip", &zeros, &[], &["the archive is empty"]);
}

/// A limit on the size of files is an error like any other, and not the end of the process.
#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let noise = Entry::new("noise", Kind::File(Content::data(Numbers::new(1).thin_noise(4 << 20))));
    let archive = docker_archive(&[layer_of([noise])], Squeeze::Not);
    for format in ["sif", "rootfs", "oci", "docker-archive", "squashfs", "dir"] {
        let place = scratch();
        fs::write(place.path().join("x.tar"), &archive).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", "ulimit -f 512; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_convert")]);
        let done = run(command.args(["x.tar", "-q", "-o", "out", "--to", format]).current_dir(place.path()));
        assert_eq!(done.code, exit_code("Output"), "{format}: {}", done.stderr);
        assert!(done.stderr.contains("ulimit -f"), "{format}: {}", done.stderr);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "{format}");
    }
}

/// Where a user may start no more threads, that is told, or it is done without them.
#[test]
fn a_limit_on_threads_is_told() {
    if !is_root() || !crate::support::run::host_has("setpriv") {
        return skip("root and setpriv are needed to become somebody with such a limit");
    }
    let place = scratch();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(place.path().join("x.tar"), docker_archive(&[layer_of([file("f")])], Squeeze::Not)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_convert"), place.path().join("program")).unwrap();
    let user = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        // A user of its own: the limit counts the threads of all processes that a user has.
        command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]);
        command.args(["bash", "-c", "ulimit -u 2; exec ./program \"$@\"", "bash"]).args(words);
        run(command.current_dir(place.path()))
    };
    let made =
        run(Command::new(env!("CARGO_BIN_EXE_convert")).args(["x.tar", "--to", "sif"]).current_dir(place.path()));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let alone = user(&["verify", "x.sif"]);
    assert_eq!(alone.code, 0, "{}", alone.stderr);
    for words in [&["verify", "x.tar"][..], &["x.tar", "--to", "rootfs", "--report", "r"]] {
        let done = user(words);
        assert!(done.code == 1 && done.stderr.contains("ulimit -u"), "{words:?}: {} {}", done.code, done.stderr);
    }
}

fn fifo(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn named_pipes_do_not_hang() {
    let place = scratch();
    fs::write(place.path().join("image.tar"), docker_archive(&[layer_of([file("f")])], Squeeze::Not)).unwrap();
    fifo(&place.path().join("pipe"));
    let convert = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_convert"), "image.tar"]).args(arguments).current_dir(place.path());
        command.stdin(Stdio::null());
        command
    };
    let nobody_writes = run(&mut convert(&["--to", "sif", "-o", "x.sif", "--medperf-config", "pipe"]));
    assert!([2, 3, 4].contains(&nobody_writes.code), "exit code {}: {}", nobody_writes.code, nobody_writes.stderr);
    fs::write(place.path().join("secret"), "secret").unwrap();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/ed25519.pem");
    for words in [&["sign", "pipe", "--key", key][..], &["decrypt", "pipe", "-o", "x", "--passphrase-file", "secret"]] {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_convert")]).args(words).current_dir(place.path()).stdin(Stdio::null());
        let done = run(&mut command);
        assert!(done.code == 3 && done.stderr.contains("this is a pipe"), "{words:?}: {} {}", done.code, done.stderr);
    }
    // A reader that comes late is waited for.
    let pipe = place.path().join("pipe");
    let reader = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(700));
        fs::read(pipe).unwrap()
    });
    let late = run(&mut convert(&["--to", "rootfs", "-o", "pipe"]));
    assert_eq!(late.code, 0, "{}", late.stderr);
    let direct = run(&mut convert(&["--to", "rootfs", "-o", "-"]));
    assert!(reader.join().unwrap() == direct.stdout, "the same bytes through a named pipe");
}

#[test]
fn nothing_of_an_image_drives_a_terminal() {
    let hostile = "a\u{7f}\u{85}\u{9b}2J\u{202e}b\u{2066}";
    let layer = layer_of([file("f"), Entry::new(format!("dev-{hostile}"), Kind::Char(1, 3))]);
    let mut config = crate::support::pack::config(std::slice::from_ref(&layer));
    config["variant"] = serde_json::json!(hostile);
    config["author"] = serde_json::json!(hostile);
    config["config"]["WorkingDir"] = serde_json::json!(format!("/{hostile}"));
    config["config"]["Labels"] = serde_json::json!({ hostile: hostile });
    config["config"]["Env"] = serde_json::json!([format!("{hostile}=x")]);
    let place = scratch();
    fs::write(place.path().join("image.tar"), docker_archive_of(&config, &[layer], Squeeze::Not)).unwrap();
    let convert = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
        run(command.args(arguments).current_dir(place.path()).stdin(Stdio::null()))
    };
    let drives = |text: &str| {
        let hides = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
        text.chars().any(|c| c != '\n' && (c.is_control() || hides(c)))
    };
    for arguments in [
        &["image.tar", "--to", "sif-rootfs", "-o", "x.tar", "-f", "--progress", "plain", "-v"][..],
        &["image.tar", "--to", "sif-rootfs", "-o", "x.tar", "-f", "--progress", "json", "--report", "report.json"],
        &["inspect", "image.tar"],
        &["inspect", "image.tar", "--json"],
    ] {
        let run = convert(arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {}", run.stderr);
        let stdout = String::from_utf8(run.stdout).unwrap();
        assert!(!drives(&run.stderr) && !drives(&stdout), "{arguments:?}: {:?} {stdout:?}", run.stderr);
        if arguments.contains(&"json") {
            for line in run.stderr.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no JSON: {line}");
            }
            let report = fs::read_to_string(place.path().join("report.json")).unwrap();
            assert!(!drives(&report) && serde_json::from_str::<serde_json::Value>(&report).is_ok(), "{report}");
        }
        if arguments.contains(&"--json") {
            let page: serde_json::Value = serde_json::from_str(&stdout).unwrap();
            assert!(page.to_string().contains('\u{202e}'), "what it says is what the image says");
        }
    }
}

/// ext3 has the magic number of ext4, and no files of 2 TiB.
#[test]
fn file_systems_without_extents() {
    let made = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !is_root() || !made(Command::new("mke2fs").arg("-V")) {
        return skip("only root can mount a file system, and mke2fs makes it");
    }
    let place = scratch();
    let (disk, mounted) = (place.path().join("disk"), place.path().join("mounted"));
    fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    fs::create_dir(&mounted).unwrap();
    let archive = gzipped(&[layer_of(
        (0..20).map(|number| Entry::new(format!("{number}"), Kind::File(Content::data(vec![number as u8; 10_000])))),
    )]);
    fs::write(place.path().join("image.tar"), archive).unwrap();
    for kind in ["ext2", "ext3"] {
        assert!(made(Command::new("mke2fs").args(["-q", "-F", "-t", kind]).arg(&disk)));
        if !made(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&mounted)) {
            return skip("a loop device cannot be mounted");
        }
        let runs = ["sif", "rootfs", "oci-archive"].map(|target| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
            let output = mounted.join(target);
            command.args(["image.tar", "--to", target, "-o"]).arg(&output).arg("--flatten");
            if target != "oci-archive" {
                command = Command::new(env!("CARGO_BIN_EXE_convert"));
                command.args(["image.tar", "--to", target, "-o"]).arg(&output);
            }
            run(command.current_dir(place.path()).stdin(Stdio::null()))
        });
        assert!(made(Command::new("umount").arg(&mounted)));
        for run in runs {
            assert_eq!(run.code, 0, "{kind}: {}", run.stderr);
        }
    }
}

#[test]
fn fewer_threads_where_limits_allow_no_more() {
    let place = scratch();
    fs::write(place.path().join("image.tar"), docker_archive(&[layer_of([file("f")])], Squeeze::Gzip)).unwrap();
    let convert = |limit: &str, jobs: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_convert"), "image.tar"]);
        command.args(["--to", "sif", "-o", "x.sif", "-f", "-j", jobs]);
        run(command.current_dir(place.path()).stdin(Stdio::null()))
    };
    let few = convert("ulimit -v 700000", "64");
    assert_eq!(few.code, 0, "{}", few.stderr);
    assert!(few.stderr.contains("limits allow work on 2 threads, not on 64"), "{}", few.stderr);
    let enough = convert("true", "64");
    assert!(enough.code == 0 && !enough.stderr.contains("limits allow"), "{}", enough.stderr);
    let absurd = convert("true", "10000");
    assert_eq!(absurd.code, 2, "{}", absurd.stderr);
}
