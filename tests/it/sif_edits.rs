//! What others do to a SIF of ours later is not damage, and is not thrown away; what they leave alone is still checked.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::archives::{self, Described};
use crate::support::run;
use crate::support::siftool::{Object, Sif};
use crate::support::tar::Tar;

/// `image.tar` and `image.sif` in a directory.
struct Place {
    directory: tempfile::TempDir,
    sif: Sif,
}

impl Place {
    fn new() -> Place {
        let elf = [&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0"[..], &[0; 44]].concat();
        let noise: Vec<u8> = (0..20_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let layer = Tar::new().file("bin/sh", elf).file("noise", noise).file("text", "x".repeat(9000)).finish();
        let directory = tempfile::tempdir().unwrap();
        let archive = archives::docker_24(&[Described::new(vec![layer])]).bytes;
        std::fs::write(directory.path().join("image.tar"), archive).unwrap();
        let made = convert(directory.path(), &["image.tar", "--to", "sif", "-q"]);
        assert!(made.status.success(), "{}", told(&made));
        let sif = Sif(std::fs::read(directory.path().join("image.sif")).unwrap());
        Place { directory, sif }
    }

    fn put(&self, sif: &Sif) {
        std::fs::write(self.directory.path().join("image.sif"), &sif.0).unwrap();
    }

    fn held(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("image.sif")).unwrap()
    }

    fn run(&self, words: &[&str]) -> Output {
        convert(self.directory.path(), words)
    }

    fn verify(&self, sif: &Sif) -> Output {
        self.put(sif);
        self.run(&["verify", "image.sif"])
    }

    fn expect_sound(&self, sif: &Sif, what: &str) -> String {
        let output = self.verify(sif);
        assert!(output.status.success(), "{what}: {}", told(&output));
        told(&output)
    }
}

fn convert(directory: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_convert")).current_dir(directory).args(words).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// File system, kind, architecture of a partition: 2 is ext3; 1 a system, 3 data, 4 an overlay.
const OVERLAY: &[u8] = &[2, 0, 0, 0, 4, 0, 0, 0, b'0', b'2', 0];
const SYSTEM: &[u8] = &[1, 0, 0, 0, 1, 0, 0, 0, b'0', b'2', 0];

/// What is taken for a file system of that kind.
fn ext3() -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    bytes[1080..1082].copy_from_slice(b"\x53\xef");
    bytes
}

/// Everything that `apptainer sif add`, `overlay create` and `sign` add.
fn objects() -> Vec<(&'static str, Object<'static>)> {
    let ext3: &'static [u8] = ext3().leak();
    let object = |kind, bytes| Object { kind, bytes, ..Object::default() };
    vec![
        ("an overlay", Object { group: 1, extra: OVERLAY, alignment: 4096, ..object(4, ext3) }),
        ("an overlay without a group", Object { extra: OVERLAY, alignment: 4096, ..object(4, ext3) }),
        ("an overlay that is none", Object { group: 1, extra: OVERLAY, ..object(4, b"no file system") }),
        ("a signature", Object { link: 0xf000_0001, extra: &[1], ..object(5, b"signed") }),
        ("a signature of an object", Object { link: 2, extra: &[1], ..object(5, b"signed") }),
        ("JSON", Object { name: "mine.json", group: 1, ..object(6, b"{}") }),
        ("JSON that is none", Object { name: "mine.json", ..object(6, b"not JSON") }),
        ("a bill of materials", Object { extra: &[4], ..object(9, b"{\"spdx\":1}") }),
        ("anything", Object { name: "notes", ..object(7, &[0xff; 1000]) }),
        ("another definition", object(1, b"bootstrap: x\n")),
        ("labels that are JSON", object(3, b"{}")),
        ("an empty object", object(7, b"")),
    ]
}

/// Of a root in a file system that is not looked into, or of none, header and objects are checked all the same.
#[test]
fn roots_of_other_kinds_are_not_called_damaged() {
    let place = Place::new();
    let mut bare = Sif(place.sif.0.clone());
    bare.used().collect::<Vec<_>>().into_iter().for_each(|id| bare.del(id, true, true));
    assert!(place.expect_sound(&bare, "no root").contains("has no root file system"));
    let luks = [&b"LUKS\xba\xbe"[..], &[0; 4090]].concat();
    for (file_system, bytes, magic_at, said) in
        [(2, &*ext3(), 1080, "of the kind Ext3"), (5, &*luks, 0, "encrypted with LUKS2")]
    {
        let mut sif = bare.clone();
        let extra = &[&[file_system], &SYSTEM[1..]].concat();
        let root = sif.add(&Object { kind: 4, group: 1, extra, alignment: 4096, bytes, ..Object::default() });
        sif.set_primary(root);
        assert!(place.expect_sound(&sif, said).contains(said), "{said}");
        let page = place.run(&["verify", "image.sif"]).stdout;
        assert_eq!(String::from_utf8(page).unwrap(), "\"image.sif\": header and objects are whole\n");
        let at = sif.end() - bytes.len() + magic_at;
        sif.0[at] ^= 1;
        let output = place.verify(&sif);
        assert_eq!(output.status.code(), Some(5), "{}", told(&output));
        assert!(told(&output).contains("does not hold such a file system"), "{}", told(&output));
    }
}

#[test]
fn what_is_added_is_listed_and_is_no_damage() {
    let place = Place::new();
    for (what, object) in objects() {
        let mut sif = place.sif.clone();
        let id = sif.add(&object);
        let said = place.expect_sound(&sif, what);
        let note = match what.starts_with("a signature") {
            true => "signatures were not verified",
            false => "added after the file was written",
        };
        assert!(said.contains(note) && said.contains(&format!("{id} ")), "{what}: {said}");
        // Removed again in each of the four ways, and another one added.
        for (zero, compact) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut removed = sif.clone();
            removed.del(id, zero, compact);
            let said = place.expect_sound(&removed, &format!("{what}, removed (zeroed {zero}, compacted {compact})"));
            assert!(!said.contains("added after"), "{said}");
            removed.add(&Object { kind: 7, bytes: b"another", ..Object::default() });
            place.expect_sound(&removed, &format!("{what}, removed, and another added"));
        }
    }
    let mut all = place.sif.clone();
    let ids: Vec<usize> = objects().iter().map(|(_, object)| all.add(object)).collect();
    let said = place.expect_sound(&all, "all of them");
    assert!(
        said.contains(&format!("{} objects", ids.len()))
            || said.contains(&format!("({}", ids.len()))
            || said.contains(&ids.len().to_string()),
        "{said}"
    );
    // One from the middle.
    all.del(ids[3], false, false);
    place.expect_sound(&all, "all but one");
}

#[test]
fn objects_of_ours_may_be_removed_and_the_others_are_still_checked() {
    let place = Place::new();
    let own = place.sif.count();
    for id in 1..own {
        for zero in [false, true] {
            let mut sif = place.sif.clone();
            sif.del(id, zero, false);
            let said = place.expect_sound(&sif, &format!("without object {id}"));
            assert!(id == own - 1 || said.contains(&format!("object {id} was removed")), "{said}");
            // Its slot goes to the next one that is added.
            assert_eq!(sif.add(&Object { kind: 7, bytes: b"another", ..Object::default() }), id);
            place.expect_sound(&sif, &format!("another object instead of {id}"));
        }
    }
    let mut sif = place.sif.clone();
    sif.del(1, false, false);
    let json = sif.0.windows(10).position(|bytes| bytes == b"attributes").unwrap();
    sif.0[json] ^= 1;
    assert_eq!(place.verify(&sif).status.code(), Some(5));
}

#[test]
fn another_partition_may_be_the_one_that_is_run() {
    let place = Place::new();
    let mut sif = place.sif.clone();
    let start = sif.0.windows(4).rposition(|bytes| bytes == b"hsqs").unwrap();
    let squashfs = sif.0[start..].to_vec();
    let id =
        sif.add(&Object { kind: 4, group: 1, extra: SYSTEM, alignment: 4096, bytes: &squashfs, ..Object::default() });
    place.expect_sound(&sif, "a second partition");
    sif.set_primary(id);
    place.expect_sound(&sif, "the second partition is run");
    sif.0[start + 100] ^= 1;
    assert_eq!(place.verify(&sif).status.code(), Some(5), "our own partition is still checked");
}

#[test]
fn each_flipped_bit_of_ours_is_found_in_an_edited_file_too() {
    let place = Place::new();
    let mut edited = place.sif.clone();
    let end = edited.0.len();
    let added = objects();
    for (_, object) in &added[..4] {
        edited.add(object);
    }
    let own = place.sif.count();
    let (mut state, mut padding) = (1_u64, 0);
    let rounds = run::count("FLIPS", 240);
    for round in 0..rounds {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as usize;
        // What an edit changes is not ours: three fields of the header, and the slots of others.
        let at = match round % 3 {
            0 => random % 72,
            1 => 4096 + random % (own * 585),
            _ => 32_176 + random % (end - 32_176),
        };
        let mut damaged = edited.clone();
        damaged.0[at] ^= 1 << (state >> 61);
        let output = place.verify(&damaged);
        if output.status.success() && told(&output).contains("should be zero") {
            padding += 1;
            continue;
        }
        // Without its magic it is not a SIF at all.
        let code = if (32..42).contains(&at) { 4 } else { 5 };
        assert_eq!(output.status.code(), Some(code), "byte {at}: {}", told(&output));
    }
    assert!(padding < rounds / 4, "{padding} of {rounds} flips hit padding: the others prove too little");
}

#[test]
fn update_never_drops_what_others_added() {
    let place = Place::new();
    let build = |more: &[&str]| place.run(&[&["build"], more, &["image.sif", "image.tar"]].concat());
    let mut edited = place.sif.clone();
    edited.add(&objects()[0].1);
    edited.add(&objects()[3].1);
    place.put(&edited);
    for when in ["update", "reuse"] {
        let output = build(&["--if-exists", when]);
        assert!(output.status.success() && told(&output).contains("reused "), "{when}: {}", told(&output));
        assert!(place.held() == edited.0, "{when}");
    }
    // Another image, other options, or damage: an update would replace the file.
    let mut damaged = edited.clone();
    damaged.0[40_000] ^= 1;
    for (what, sif, options) in [("options", &edited, &["--workdir"][..]), ("damage", &damaged, &[])] {
        place.put(sif);
        let output = build(&[options, &["--if-exists", "update"]].concat());
        assert_eq!(output.status.code(), Some(8), "{what}: {}", told(&output));
        let said = told(&output);
        assert!(said.contains("Overlay") && said.contains("Signature") && said.contains("--force"), "{what}: {said}");
        assert!(place.held() == sif.0, "{what}: the file is not touched");
        let output = build(&[options, &["--force"]].concat());
        assert!(output.status.success(), "{what}: {}", told(&output));
        assert!(place.held() != sif.0, "{what}: forced");
    }
    // Damage alone is mended.
    let mut damaged = place.sif.clone();
    damaged.0[40_000] ^= 1;
    place.put(&damaged);
    let output = build(&["--if-exists", "update"]);
    assert!(output.status.success() && place.held() == place.sif.0, "{}", told(&output));
}

/// The same by the real programs.
#[test]
fn oracle_apptainer_edits_a_sif_of_ours_and_it_stays_sound() {
    let Some(oracles) = run::oracles() else { return };
    let place = Place::new();
    let path = place.directory.path();
    std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    std::os::unix::fs::chown(path.join("image.sif"), Some(1000), Some(1000)).unwrap();
    let step = |script: &str| {
        let done = run::run(oracles.user(path).args(["sh", "-c", script]));
        assert_eq!(done.code, 0, "{script}: {}{}", String::from_utf8(done.stdout).unwrap(), done.stderr);
        let output = place.run(&["verify", "image.sif"]);
        assert!(output.status.success(), "after {script}: {}", told(&output));
        assert!(!told(&output).contains("is not what was written"), "after {script}: {}", told(&output));
    };
    for script in [
        "echo '{\"spdx\":1}' >sbom; apptainer sif add --datatype 9 --sbomformat spdx-json image.sif sbom || \
         apptainer sif add --datatype 7 image.sif sbom",
        "echo '{}' >mine; apptainer sif add --datatype 6 --filename mine.json image.sif mine",
        "head -c 1000 /dev/urandom >any; apptainer sif add --datatype 7 image.sif any",
        "command -v mkfs.ext3 >/dev/null || exit 0; apptainer overlay create --size 64 image.sif",
        "printf 'Name-Real: T\\nName-Email: t@example.org\\n%%no-protection\\nKey-Type: RSA\\nKey-Length: 2048\\n' >k; \
         openssl genrsa -out key.pem 2048 2>/dev/null && apptainer sign --key key.pem image.sif",
        "apptainer sif del 8 image.sif",
        "apptainer sif del 6 image.sif",
        "apptainer sif add --datatype 7 image.sif mine",
        "apptainer sif del 1 image.sif",
    ] {
        step(script);
    }
}
