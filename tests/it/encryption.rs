//! Encrypted SIFs: the same bytes every time, nothing in the clear in them or on the way, and gocryptfs and Apptainer take
//! them as their own.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::case::{Item, Layer};
use crate::support::docker::DockerImage;
use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive, squeeze};
use crate::support::random::noise;
use crate::support::run::{self, Oracles, Run, host_has, program, skip};
use crate::support::siftool::Sif;

pub const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/encryption");

/// Where one test works: `image.tar`, and the keys.
struct Place(tempfile::TempDir);

impl Place {
    fn new(how: Squeeze) -> Self {
        let place = Place(run::scratch());
        fs::write(place.path("image.tar"), docker_archive(&layers(), how)).unwrap();
        for key in ["passphrase", "public.pem", "key.pem"] {
            fs::copy(Path::new(KEYS).join(key), place.path(key)).unwrap();
        }
        fs::write(place.path("other"), "a second secret\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, line: &str) -> Run {
        run::run(program().current_dir(self.0.path()).args(line.split(' ')))
    }

    fn convert(&self, line: &str) -> Run {
        let done = self.run(line);
        assert_eq!(done.code, 0, "{line}: {}", done.stderr);
        done
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

/// Two layers: text that compresses, noise that does not, files of all sizes around a block, and a sparse one's zeros.
fn layers() -> Vec<Vec<u8>> {
    let text: String = (0..3000).map(|n| format!("line {n} of a file that nobody else may read\n")).collect();
    let file = |name: &str, bytes: Vec<u8>| Item::Entry(Entry::new(name, Kind::File(Content::data(bytes))));
    let sizes = [1, 15, 16, 4095, 4096, 4097, 131_071, 131_072, 131_073];
    let sized = (0..).zip(sizes).map(|(seed, size)| file(&format!("noise-{size}"), noise(size, 7 + seed)));
    let first = [file("text", text.into_bytes()), file("zeros", vec![0; 150_000])].into_iter().chain(sized);
    let second = [file("weights", noise(200_000, 99)), file("config", b"{\"secret\": \"of the model\"}".to_vec())];
    [first.collect::<Vec<_>>(), second.into()].map(|items| layer::tar(&Layer { items, ..Layer::default() })).into()
}

/// Whether a run of 16 bytes says anything: zeros and the ends of names are everywhere.
fn says_something(window: &[u8]) -> bool {
    let mut seen = [0u128; 2];
    for &byte in window {
        seen[usize::from(byte >> 7)] |= 1 << (byte & 127);
    }
    seen[0].count_ones() + seen[1].count_ones() > 8
}

/// Every run of 16 bytes of these.
fn runs<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> HashSet<[u8; 16]> {
    let windows = texts.into_iter().flat_map(|text| text.windows(16)).filter(|window| says_something(window));
    windows.map(|window| window.try_into().unwrap()).collect()
}

/// Where `bytes` first hold one of the runs.
fn found(runs: &HashSet<[u8; 16]>, bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(16).position(|window| runs.contains(window))?;
    Some(format!("byte {at}: {:?}", bytes[at..at + 16].escape_ascii().to_string()))
}

/// The contents of every file of a tar.
fn contents(tar: &[u8]) -> Vec<Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry.unwrap(), &mut bytes).unwrap();
            bytes
        })
        .collect()
}

#[test]
fn the_same_bytes_every_time_and_nothing_in_the_clear() {
    let place = Place::new(Squeeze::Gzip);
    for compression in ["gzip", "zstd:1"] {
        let line = |output: &str, more: &str| {
            format!(
                "image.tar --to sif --compression {compression} --encrypt-passphrase-file passphrase -o {output}{more}"
            )
        };
        place.convert(&line("a.sif", " --force -j 1"));
        fs::copy(place.path("image.tar"), place.path("renamed")).unwrap();
        place.convert(&line("b.sif", " --force -j 4").replace("image.tar", "renamed"));
        let sif = place.read("a.sif");
        assert!(sif == place.read("b.sif"), "{compression}: two runs differ");
        place.convert(&line("c.sif", " --force").replace("file passphrase", "file other"));
        let other = place.read("c.sif");
        // Another passphrase, the same positions: not one block is the same.
        let blocks: HashSet<&[u8]> = sif[40_960..].chunks(4096).filter(|block| says_something(block)).collect();
        assert!(other[40_960..other.len() - 8192].chunks(4096).all(|block| !blocks.contains(block)));

        let rootfs = run::convert_to_stdout(&place.path("image.tar"), "sif-rootfs", &[]);
        let mut plain = contents(&rootfs.stdout);
        plain.push(b"noise-131071 noise-131072".to_vec());
        assert!(plain.len() > 20);
        let runs = runs(plain.iter().map(Vec::as_slice));
        assert_eq!(found(&runs, &sif), None, "{compression}");
        // The search finds what there is to find.
        place.convert(&format!("image.tar --to sif --compression {compression} -o plain.sif --force"));
        assert!(found(&runs, &place.read("plain.sif")).is_some());
    }
}

#[test]
fn what_is_encrypted_for_a_key_is_new_every_time() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif --encrypt-pem public.pem -o a.sif");
    place.convert("image.tar --to sif --encrypt-pem public.pem -o b.sif");
    assert_ne!(place.read("a.sif"), place.read("b.sif"));
    for name in ["a.sif", "b.sif"] {
        let said = place.convert(&format!("verify {name}"));
        assert!(said.stderr.contains("is encrypted"), "{}", said.stderr);
        assert!(!str::from_utf8(&said.stdout).unwrap().contains("hidden:"), "{:?}", said.stdout);
    }
}

#[test]
fn damage_is_found_without_the_key() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif --encrypt-passphrase-file passphrase -o a.sif");
    let sif = place.read("a.sif");
    for at in [36_864, 37_000, 41_500, 45_100, sif.len() / 2, sif.len() - 9000] {
        let mut damaged = sif.clone();
        damaged[at] ^= 1;
        fs::write(place.path("damaged.sif"), &damaged).unwrap();
        assert_eq!(place.run("verify damaged.sif").code, 5, "byte {at}");
    }
}

#[test]
fn what_is_there_is_used_again_only_under_the_same_key() {
    let place = Place::new(Squeeze::Not);
    let make = |more: &str| place.run(&format!("image.tar --to sif -o a.sif {more}"));
    assert_eq!(make("--encrypt-passphrase-file passphrase").code, 0);
    let first = place.read("a.sif");
    let again = make("--encrypt-passphrase-file passphrase --if-exists reuse");
    assert!(again.code == 0 && again.stderr.contains("reused \"a.sif\""), "{}", again.stderr);
    for other in ["--encrypt-passphrase-file other", "--encrypt-pem public.pem", ""] {
        let refused = make(format!("--if-exists reuse {other}").trim());
        assert_eq!(refused.code, 8, "{other}: {}", refused.stderr);
        assert!(
            !refused.stderr.contains("a second secret") && !refused.stderr.contains("correct horse"),
            "the passphrase is told"
        );
    }
    assert_eq!(make("--encrypt-passphrase-file other --if-exists update").code, 0);
    assert_ne!(place.read("a.sif"), first);
    assert_eq!(make("--encrypt-passphrase-file passphrase --if-exists update").code, 0);
    assert_eq!(place.read("a.sif"), first);
}

#[test]
fn keys_that_are_none_are_refused_before_anything_is_read() {
    let place = Place::new(Squeeze::Not);
    fs::write(place.path("empty"), "\n").unwrap();
    fs::write(place.path("lines"), "a\nb\n").unwrap();
    for (options, code, said) in [
        ("--encrypt-passphrase-file empty", 2, "the passphrase is empty"),
        ("--encrypt-passphrase-file lines", 2, "more than one line"),
        ("--encrypt-passphrase-file image.tar", 2, "too long"),
        ("--encrypt-passphrase-file absent", 3, "absent"),
        ("--encrypt-pem key.pem", 2, "a public RSA key is needed"),
        ("--encrypt-pem passphrase", 2, "a public RSA key is needed"),
        ("--encrypt-pem public.pem --encrypt-passphrase-file passphrase", 2, "exclude each other"),
    ] {
        let refused = place.run(&format!("image.tar --to sif -o x.sif {options}"));
        assert_eq!(refused.code, code, "{options}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{options}: {}", refused.stderr);
        assert!(!place.path("x.sif").exists());
    }
    let refused = place.run("image.tar --to sif-rootfs -o x --encrypt-passphrase-file passphrase");
    assert!(refused.code == 2 && refused.stderr.contains("has no effect on sif-rootfs"), "{}", refused.stderr);
}

#[test]
fn build_takes_keys_as_apptainer_does() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif --encrypt-passphrase-file passphrase -o expected.sif");
    let expected = place.read("expected.sif");
    let passphrase = fs::read_to_string(Path::new(KEYS).join("passphrase")).unwrap();
    let passphrase = passphrase.trim_end();
    let build = |line: &str, variables: &[(&str, &str)]| {
        let mut command = program();
        command.current_dir(place.0.path()).args(["build", "--force"]).args(line.split(' ')).arg("image.tar");
        run::run(command.envs(variables.iter().copied()))
    };
    for name in ["APPTAINER_ENCRYPTION_PASSPHRASE", "SINGULARITY_ENCRYPTION_PASSPHRASE"] {
        let done = build("--encrypt a.sif", &[(name, passphrase)]);
        assert!(done.code == 0 && place.read("a.sif") == expected, "{name}: {}", done.stderr);
        let without = build("b.sif", &[(name, passphrase)]);
        assert!(without.code == 0 && without.stderr.contains("not encrypted"), "{}", without.stderr);
    }
    let public = place.path("public.pem").display().to_string();
    let data = fs::read_to_string(place.path("public.pem")).unwrap();
    for (line, variables) in [
        ("--pem-path public.pem a.sif", vec![]),
        ("--encrypt a.sif", vec![("APPTAINER_ENCRYPTION_PEM_PATH", public.as_str())]),
        (
            "--encrypt a.sif",
            vec![("SINGULARITY_ENCRYPTION_PEM_DATA", data.as_str()), ("APPTAINER_ENCRYPTION_PASSPHRASE", "x")],
        ),
    ] {
        let done = build(line, &variables);
        assert!(done.code == 0, "{line}: {}", done.stderr);
        assert!(place.read("a.sif").windows(23).any(|bytes| bytes == b"-----BEGIN MESSAGE-----"), "{line}");
    }
    let mut asked = program();
    asked.current_dir(place.0.path()).args(["build", "-F", "--passphrase", "a.sif", "image.tar"]);
    let done = run::run(asked.stdin(fs::File::open(place.path("passphrase")).unwrap()));
    assert!(done.code == 0 && place.read("a.sif") == expected, "{}", done.stderr);
    let done = build("--encrypt c.sif", &[]);
    assert!(done.code == 2 && done.stderr.contains("without a key"), "{}", done.stderr);
}

/// What a trace of strace's says that was written to files: bytes, and the calls that name files.
struct Trace {
    written: Vec<u8>,
    calls: Vec<String>,
}

impl Trace {
    /// Reads the lines of `strace -f -xx -s …`; standard error is not a file.
    fn read(text: &str) -> Self {
        let mut trace = Trace { written: Vec::new(), calls: Vec::new() };
        for line in text.lines() {
            let call = line.split_once(' ').map_or(line, |(_, call)| call).trim_start();
            let is_write =
                ["write(", "pwrite64(", "writev(", "pwritev(", "pwritev2("].iter().any(|it| call.starts_with(it));
            if is_write && !call.contains("(2, ") {
                for hex in call.split("\\x").skip(1) {
                    trace.written.push(u8::from_str_radix(&hex[..2], 16).unwrap());
                }
                trace.written.push(b'\n');
            } else if !is_write {
                trace.calls.push(call.to_string());
            }
        }
        trace
    }
}

/// `gpg -d x.gpg | convert - --to sif --encrypt-passphrase-file k`: every byte that the program writes anywhere is looked at.
#[test]
fn a_pipe_leaves_nothing_in_the_clear_on_any_disk() {
    if !host_has("gpg") || Command::new("strace").arg("-V").output().is_err() {
        return skip("gpg or strace is missing");
    }
    for how in [Squeeze::Not, Squeeze::Gzip] {
        let place = Place::new(how);
        fs::create_dir(place.path("tmp")).unwrap();
        let gpg = "gpg --batch --quiet --homedir . --pinentry-mode loopback --passphrase-file other";
        let script = format!(
            "set -e; {gpg} --symmetric -o x.gpg image.tar
             {gpg} --decrypt x.gpg | strace -f -xx -s 100000000 -o trace -e trace=desc,file \
                 {} - --to sif --encrypt-passphrase-file passphrase --tmpdir tmp -o x.sif",
            env!("CARGO_BIN_EXE_sif-convert")
        );
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let done = run::run(Command::new("bash").args(["-o", "pipefail", "-c", &script]).current_dir(place.0.path()));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let trace = Trace::read(&fs::read_to_string(place.path("trace")).unwrap());
        assert!(trace.written.len() > 400_000, "{}", trace.written.len());
        let archive = place.read("image.tar");
        let tars = layers();
        let stored: Vec<Vec<u8>> = tars.iter().map(|tar| squeeze(tar, how)).collect();
        let all = tars.iter().chain(&stored).map(Vec::as_slice).chain([archive.as_slice()]);
        assert_eq!(found(&runs(all), &trace.written), None, "{how:?}");
        for call in &trace.calls {
            let moves = ["copy_file_range(", "sendfile(", "splice(", "memfd_create("];
            assert!(!moves.iter().any(|it| call.starts_with(it)), "{call}");
            let shared = call.starts_with("mmap(") && call.contains("MAP_SHARED") && call.contains("PROT_WRITE");
            assert!(!shared, "{call}");
            let opens = call.starts_with("openat(") && (call.contains("O_WRONLY") || call.contains("O_RDWR"));
            let is_ours = call.contains("O_TMPFILE") || !call.contains("O_CREAT");
            assert!(!opens || is_ours, "a file with a name: {call}");
        }
        // It is what the archive gives.
        place.convert("image.tar --to sif --encrypt-passphrase-file passphrase -o expected.sif");
        assert!(place.read("x.sif") == place.read("expected.sif"));
        assert_eq!(fs::read_dir(place.path("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn what_is_encrypted_is_verified_with_the_key() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif --encrypt-passphrase-file passphrase -o p.sif");
    place.convert("image.tar --to sif --encrypt-pem public.pem -o k.sif");
    place.convert("image.tar --to sif -o plain.sif");
    let page = |line: &str| String::from_utf8(place.convert(line).stdout).unwrap();
    let names = |page: &str| page.split(" names").next().unwrap().rsplit(' ').next().unwrap().to_string();
    let inside = page("verify plain.sif").replace("plain.sif", "p.sif");
    assert_eq!(page("verify p.sif --decrypt-passphrase-file passphrase"), inside);
    assert_eq!(page("verify k.sif --decrypt-pem key.pem").replace("k.sif", "p.sif"), inside);
    assert_ne!(names(&page("verify p.sif")), names(&inside));
    for (line, code, said) in [
        ("verify p.sif --decrypt-passphrase-file other", 5, "passphrase"),
        ("verify k.sif --decrypt-passphrase-file other", 5, "passphrase"),
        ("verify plain.sif --decrypt-passphrase-file passphrase", 2, "is not encrypted"),
        ("verify image.tar --decrypt-passphrase-file passphrase", 2, "has no effect on an image"),
        ("verify p.sif --against image.tar", 4, "--decrypt-passphrase-file"),
        ("verify p.sif --against image.tar --decrypt-passphrase-file other", 5, "passphrase"),
        ("verify plain.sif --against image.tar --decrypt-passphrase-file passphrase", 2, "is not encrypted"),
    ] {
        let refused = place.run(line);
        assert_eq!(refused.code, code, "{line}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{line}: {}", refused.stderr);
    }
    // And compared with its image.
    for key in ["p.sif --decrypt-passphrase-file passphrase", "k.sif --decrypt-pem key.pem"] {
        let (sif, key) = key.split_once(' ').unwrap();
        let compared = page(&format!("verify {sif} {key} --against image.tar"));
        assert!(compared.contains("differences, all explained"), "{compared}");
    }
    // Without our checksums, as in Apptainer's own, only the key tells of a bit that was changed.
    let mut bare = Sif(place.read("p.sif"));
    let seal = bare.used().find(|&id| bare.0[4096 + (id - 1) * 585] == 6).unwrap();
    bare.del(seal, false, false);
    let with_key = "verify bare.sif --decrypt-passphrase-file passphrase";
    fs::write(place.path("bare.sif"), &bare.0).unwrap();
    place.convert(with_key);
    for at in (45_200..bare.0.len() - 9000).step_by(37_000) {
        let mut damaged = bare.0.clone();
        damaged[at] ^= 1;
        fs::write(place.path("bare.sif"), &damaged).unwrap();
        place.convert("verify bare.sif");
        let refused = place.run(with_key);
        assert_eq!(refused.code, 5, "byte {at}: {}", refused.stderr);
    }
}

#[test]
fn a_passphrase_is_typed_on_the_terminal_and_not_shown() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif --encrypt-passphrase-file passphrase -o expected.sif");
    let words = "build --force --passphrase x.sif docker-archive:image.tar";
    let passphrase = fs::read_to_string(place.path("passphrase")).unwrap();
    let passphrase = passphrase.trim_end();
    let Some(said) = run::typed(place.0.path(), words, &format!("{passphrase}\\r")) else { return };
    assert!(said.contains("Enter encryption passphrase: ") && said.contains("exit 0"), "{said}");
    assert!(!said.contains(passphrase) && !said.contains("silent"), "{said}");
    assert!(place.read("x.sif") == place.read("expected.sif"));
    // Who is asked may leave, and the terminal shows again what is typed.
    let Some(said) = run::typed(place.0.path(), words, "ab\\003") else { return };
    assert!(said.contains("exit 130") && !said.contains("silent"), "{said}");
}

/// An image of Docker's, and an Apptainer that knows gocryptfs.
fn subject(name: &str) -> Option<(Oracles, DockerImage)> {
    let oracles = run::oracles()?;
    if run::run(oracles.run(Path::new("/")).args(["gocryptfs", "-version"])).code != 0 {
        skip("gocryptfs is missing: scripts/oracles run apt-get install -y gocryptfs");
        return None;
    }
    let image = DockerImage::build(name)?;
    let place = image.place.path();
    for key in ["passphrase", "public.pem", "key.pem"] {
        fs::copy(Path::new(KEYS).join(key), place.join(key)).unwrap();
        fs::set_permissions(place.join(key), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    Some((oracles, image))
}

/// Runs a shell text as an ordinary user.
fn shell(oracles: &Oracles, place: &Path, script: &str) -> Run {
    run::run(oracles.user(place).args(["sh", "-c", script]).stdin(Stdio::null()))
}

fn convert_in(place: &Path, line: &str) {
    let done = run::run(program().current_dir(place).args(line.split(' ')));
    assert_eq!(done.code, 0, "{line}: {}", done.stderr);
}

#[test]
fn apptainer_runs_it_as_docker_runs_the_image() {
    let Some((oracles, image)) = subject("sif-encrypted") else { return };
    let place = image.place.path();
    convert_in(place, "image.tar --to sif -o p.sif --encrypt-passphrase-file passphrase");
    convert_in(place, "image.tar --to sif -o k.sif --encrypt-pem public.pem --compression gzip:1");
    convert_in(place, "build --pem-path public.pem b.sif image.tar");
    let expected = String::from_utf8(image.docker(&["run", "--rm", &image.name])).unwrap();
    let with = "APPTAINER_ENCRYPTION_PASSPHRASE=\"$(cat passphrase)\" apptainer --silent";
    for call in [
        format!("{with} run p.sif"),
        format!("{with} run --containall --userns p.sif"),
        "apptainer --silent run --passphrase p.sif <passphrase".to_string(),
        "apptainer --silent run --pem-path key.pem k.sif".to_string(),
        "APPTAINER_ENCRYPTION_PEM_PATH=key.pem apptainer --silent run b.sif".to_string(),
    ] {
        let done = shell(&oracles, place, &call);
        let stdout = String::from_utf8(done.stdout).unwrap();
        assert_eq!(
            (done.code, stdout.trim_start_matches("Enter encryption passphrase: \n")),
            (0, &*expected),
            "{call}: {}",
            done.stderr
        );
    }
    for call in [
        "APPTAINER_ENCRYPTION_PASSPHRASE=wrong apptainer --silent run p.sif",
        "apptainer --silent run p.sif",
        "openssl genrsa -traditional -out wrong.pem 2048 2>/dev/null; apptainer --silent run --pem-path wrong.pem k.sif",
    ] {
        let done = shell(&oracles, place, call);
        assert!(done.code != 0 && done.stdout.is_empty(), "{call}: {} {:?}", done.stderr, done.stdout);
    }
}

#[test]
fn gocryptfs_finds_no_fault() {
    let Some((oracles, image)) = subject("sif-fsck") else { return };
    let place = image.place.path();
    convert_in(place, "image.tar --to sif -o p.sif --encrypt-passphrase-file passphrase");
    let script = "apptainer sif dump 2 p.sif >p.squashfs && unsquashfs -q -n -d inner p.squashfs && ls inner
                  gocryptfs -passfile passphrase -fsck inner";
    let done = shell(&oracles, place, script);
    let stdout = String::from_utf8(done.stdout).unwrap();
    assert!(done.code == 0 && stdout.contains("no problems found"), "{stdout}{}", done.stderr);
    assert!(stdout.contains("gocryptfs.conf\nsif-objects.json\nsquashfs-root\n"), "{stdout}");
    let damaged =
        "chmod u+w inner/squashfs-root; printf x | dd of=inner/squashfs-root bs=1 seek=9000 conv=notrunc status=none
                   gocryptfs -passfile passphrase -fsck inner";
    assert_ne!(shell(&oracles, place, damaged).code, 0);
}

#[test]
fn decrypting_gives_what_would_have_been_written_in_the_clear() {
    let place = Place::new(Squeeze::Not);
    for options in ["", " --compression zstd:1 --label a=b --fix-perms"] {
        place.convert(&format!("image.tar --to sif -f -o plain.sif{options}"));
        let plain = place.read("plain.sif");
        place.convert(&format!("image.tar --to sif -f -o p.sif --encrypt-passphrase-file passphrase{options}"));
        place.convert(&format!("image.tar --to sif -f -o k.sif --encrypt-pem public.pem{options}"));
        place.convert("decrypt p.sif -f -o back.sif --passphrase-file passphrase");
        assert!(place.read("back.sif") == plain, "{options}");
        place.convert("decrypt k.sif -f -o back.sif --pem key.pem");
        assert!(place.read("back.sif") == plain, "{options}");
    }
    let mut command = program();
    command.current_dir(place.0.path()).args(["decrypt", "p.sif", "-o", "e.sif"]);
    let done = run::run(command.env("APPTAINER_ENCRYPTION_PASSPHRASE", "correct horse battery staple"));
    assert!(done.code == 0 && place.read("e.sif") == place.read("plain.sif"), "{}", done.stderr);
    for (line, code, said) in [
        ("decrypt p.sif -o x.sif --passphrase-file other", 5, "is not the one"),
        ("decrypt p.sif -o x.sif --pem key.pem", 5, "with a passphrase"),
        ("decrypt k.sif -o x.sif --passphrase-file passphrase", 5, "is not the one"),
        ("decrypt plain.sif -o x.sif --passphrase-file passphrase", 2, "is not encrypted"),
        ("decrypt image.tar -o x.sif --passphrase-file passphrase", 4, ""),
        ("decrypt p.sif -o x.sif", 2, "decrypted with"),
        ("decrypt p.sif -o p.sif -f --passphrase-file passphrase", 2, "the output is the source"),
        ("decrypt p.sif -o e.sif --passphrase-file passphrase", 8, "exists"),
    ] {
        let done = place.run(line);
        assert_eq!(done.code, code, "{line}: {}", done.stderr);
        assert!(done.stderr.contains(said) && done.stderr.contains("hint: "), "{line}: {}", done.stderr);
        assert!(!place.path("x.sif").exists(), "{line}");
    }
    // One bit of the ciphertext: no block of it is taken for good.
    let mut damaged = place.read("p.sif");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(place.path("damaged.sif"), damaged).unwrap();
    let done = place.run("decrypt damaged.sif -o x.sif --passphrase-file passphrase");
    assert!(done.code == 4 && done.stderr.contains("is damaged") && !place.path("x.sif").exists(), "{}", done.stderr);
}

#[test]
fn encrypted_sifs_are_sources() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif -o plain.sif");
    place.convert("image.tar --to sif -o p.sif --encrypt-passphrase-file passphrase");
    place.convert("image.tar --to sif -o k.sif --encrypt-pem public.pem");
    for format in ["rootfs", "docker-archive"] {
        place.convert(&format!("plain.sif --to {format} -f -o plain"));
        place.convert(&format!("p.sif --to {format} -f -o p --decrypt-passphrase-file passphrase"));
        place.convert(&format!("k.sif --to {format} -f -o k --decrypt-pem key.pem"));
        let plain = place.read("plain");
        assert!(place.read("p") == plain && place.read("k") == plain, "{format}");
    }
    // From one key to another.
    place.convert("p.sif --to sif -o again.sif --decrypt-passphrase-file passphrase --encrypt-passphrase-file other");
    assert_eq!(place.run("decrypt again.sif -o x.sif --passphrase-file passphrase").code, 5);
    place.convert("again.sif --to rootfs -f -o p --decrypt-passphrase-file other");
    place.convert("plain.sif --to rootfs -f -o plain");
    assert!(place.read("p") == place.read("plain"));
    for (line, code, said) in [
        ("p.sif --to rootfs -o x", 4, "--decrypt-passphrase-file"),
        ("p.sif --to rootfs -o x --decrypt-passphrase-file other", 5, "is not the one"),
        ("plain.sif --to rootfs -o x --decrypt-passphrase-file passphrase", 2, "not encrypted"),
        ("image.tar --to rootfs -o x --decrypt-passphrase-file passphrase", 2, "is not an encrypted SIF"),
        ("- --to rootfs -o x --decrypt-passphrase-file passphrase", 2, "is not an encrypted SIF"),
    ] {
        let done = place.run(line);
        assert_eq!(done.code, code, "{line}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{line}: {}", done.stderr);
        assert!(!place.path("x").exists(), "{line}");
    }
}

/// What a hint says about a key works where it is said.
#[test]
fn encrypted_sifs_are_looked_into() {
    let place = Place::new(Squeeze::Not);
    place.convert("image.tar --to sif -o plain.sif");
    place.convert("image.tar --to sif -o p.sif --encrypt-passphrase-file passphrase");
    place.convert("image.tar --to sif -o k.sif --encrypt-pem public.pem");
    let printed = |line: &str| String::from_utf8(place.convert(line).stdout).unwrap();
    let listed = printed("ls plain.sif");
    let last = listed.lines().rfind(|line| line.starts_with('-')).and_then(|line| line.rsplit('"').nth(1)).unwrap();
    for (sif, key) in [("p.sif", "--decrypt-passphrase-file passphrase"), ("k.sif", "--decrypt-pem key.pem")] {
        for command in [format!("ls {sif}"), format!("cat {sif} {last}"), format!("diff image.tar {sif}")] {
            let refused = place.run(&command);
            let hint = refused.stderr.lines().last().unwrap();
            assert!(refused.code != 0 && hint.contains("--decrypt-passphrase-file"), "{command}: {}", refused.stderr);
            let opened = printed(&format!("{command} {key}"));
            assert_eq!(opened, printed(&command.replace(sif, "plain.sif")), "{command}");
        }
        // One is encrypted, the other is not, in either order.
        printed(&format!("diff plain.sif {sif} {key}"));
        printed(&format!("diff {sif} plain.sif {key}"));
    }
    for command in ["ls plain.sif", "diff plain.sif plain.sif", "ls image.tar"] {
        let refused = place.run(&format!("{command} --decrypt-pem key.pem"));
        assert_eq!(refused.code, 2, "{command}: {}", refused.stderr);
    }
}

/// What Apptainer itself encrypts is decrypted and converted.
#[test]
fn apptainers_own_are_opened() {
    let Some((oracles, image)) = subject("sif-theirs") else { return };
    let place = image.place.path();
    convert_in(place, "image.tar --to sif -o plain.sif");
    let build = "APPTAINER_ENCRYPTION_PASSPHRASE=\"$(cat passphrase)\" apptainer build --encrypt p.sif plain.sif &&
                 apptainer build --pem-path public.pem k.sif plain.sif";
    let done = shell(&oracles, place, build);
    assert_eq!(done.code, 0, "{}", done.stderr);
    convert_in(place, "decrypt p.sif -o p.plain.sif --passphrase-file passphrase");
    convert_in(place, "decrypt k.sif -o k.plain.sif --pem key.pem");
    let expected = String::from_utf8(image.docker(&["run", "--rm", &image.name])).unwrap();
    convert_in(place, "verify p.sif --decrypt-passphrase-file passphrase");
    convert_in(place, "verify k.sif --decrypt-pem key.pem");
    for name in ["p.plain.sif", "k.plain.sif"] {
        let done = shell(&oracles, place, &format!("apptainer --silent run {name}"));
        assert_eq!(String::from_utf8(done.stdout).unwrap(), expected, "{name}: {}", done.stderr);
        convert_in(place, &format!("verify {name}"));
    }
    convert_in(place, "p.sif --to rootfs -o theirs.tar --decrypt-passphrase-file passphrase");
    convert_in(place, "p.plain.sif --to rootfs -o plain.tar");
    assert!(fs::read(place.join("theirs.tar")).unwrap() == fs::read(place.join("plain.tar")).unwrap());
}
