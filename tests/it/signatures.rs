//! Signatures of SIF files: Apptainer takes ours, we take Apptainer's, and neither takes what was changed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::random::Numbers;
use crate::support::run::{self, Oracles, Run, exit_code, program, scratch};
use crate::support::siftool::{Object, Sif};

const PAIRS: [&str; 4] = ["ed25519", "p256", "p384", "rsa"];

fn key(name: &str) -> String {
    format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn archive() -> String {
    format!("{}/fixtures/archives/hello.tar", env!("CARGO_MANIFEST_DIR"))
}

fn convert(directory: &Path, words: &[&str]) -> Run {
    run::run(program().current_dir(directory).args(words))
}

fn expect(directory: &Path, words: &[&str]) -> Run {
    let done = convert(directory, words);
    assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    done
}

/// A directory with `plain.sif` and all keys.
fn place() -> tempfile::TempDir {
    let directory = scratch();
    expect(directory.path(), &[&archive(), "--to", "sif", "-q", "-o", "plain.sif"]);
    for name in fs::read_dir(key("")).unwrap() {
        let name = name.unwrap();
        fs::copy(name.path(), directory.path().join(name.file_name())).unwrap();
    }
    directory
}

/// What a shell text in the oracles' tree says, and whether it succeeds.
fn shell(oracles: &Oracles, directory: &Path, script: &str) -> (bool, String) {
    let done = run::run(oracles.run(directory).args(["sh", "-c", script]));
    (done.code == 0, format!("{}{}", String::from_utf8(done.stdout).unwrap(), done.stderr))
}

#[test]
fn signing_at_once_and_later_gives_the_same_bytes() {
    let directory = place();
    let directory = directory.path();
    for pair in PAIRS {
        let (secret, shown) = (format!("{pair}.pem"), format!("{pair}.pub"));
        expect(directory, &[&archive(), "--to", "sif", "-q", "-o", "one.sif", "--sign-key", &secret]);
        expect(directory, &["sign", "plain.sif", "--key", &secret, "-o", "two.sif"]);
        assert_eq!(
            fs::read(directory.join("one.sif")).unwrap(),
            fs::read(directory.join("two.sif")).unwrap(),
            "{pair}"
        );
        let done = expect(directory, &["verify", "one.sif", "--key", &key("cosign.pub"), "--key", &shown]);
        let page = String::from_utf8(done.stdout).unwrap();
        assert!(page.contains("object group 1 is signed by SHA256:"), "{page}");
        assert!(!done.stderr.contains("warning"), "{}", done.stderr);
        let refused = convert(directory, &["verify", "one.sif", "--key", "cosign.pub"]);
        assert_eq!((refused.code, refused.stdout.len()), (exit_code("Mismatch"), 0), "{}", refused.stderr);
        let inspected = String::from_utf8(expect(directory, &["inspect", "one.sif"]).stdout).unwrap();
        assert!(inspected.contains("over group 1 by SHA256:") && inspected.contains("not checked"), "{inspected}");
        fs::remove_file(directory.join("one.sif")).unwrap();
        fs::remove_file(directory.join("two.sif")).unwrap();
    }
    let unsigned = convert(directory, &["verify", "plain.sif", "--key", "rsa.pub"]);
    assert_eq!(unsigned.code, exit_code("Mismatch"));
    assert!(unsigned.stderr.contains("it is not signed"), "{}", unsigned.stderr);
}

#[test]
fn an_existing_output_is_used_again_only_if_the_key_signed_it() {
    let directory = place();
    let again = |secret: &str, how: &str| {
        let words = [&archive(), "--to", "sif", "-o", "x.sif", "--if-exists", how, "--sign-key", secret];
        convert(directory.path(), &words)
    };
    assert_eq!(again("p256.pem", "fail").code, 0);
    let reused = again("p256.pem", "reuse");
    assert!(reused.code == 0 && reused.stderr.contains("reused \""), "{}", reused.stderr);
    let other = again("rsa.pem", "reuse");
    assert_eq!(other.code, exit_code("Output"), "{}", other.stderr);
    assert!(other.stderr.contains("is not signed as it would be"), "{}", other.stderr);
    // What another key signed is not thrown away unasked; what this one signed is signed anew.
    let update = |secret: &str| {
        let words = ["--env", "OTHER=1", "--if-exists", "update", "--sign-key", secret];
        convert(directory.path(), &[&[archive().as_str(), "--to", "sif", "-o", "x.sif"], &words[..]].concat())
    };
    let kept = update("rsa.pem");
    assert!(kept.code == exit_code("Output") && kept.stderr.contains("added to it later"), "{}", kept.stderr);
    assert_eq!(update("p256.pem").code, 0);
    expect(directory.path(), &["verify", "x.sif", "--key", "p256.pub"]);
    let replaced = again("rsa.pem", "replace");
    assert_eq!(replaced.code, 0, "{}", replaced.stderr);
    expect(directory.path(), &["verify", "x.sif", "--key", "rsa.pub"]);
}

#[test]
fn apptainer_accepts_ours_with_every_kind_of_key() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place();
    let directory = directory.path();
    for (secret, shown, passphrase) in [
        ("ed25519.pem", "ed25519.pub", None),
        ("p256.pem", "p256.pub", None),
        ("p384.pem", "p384.pub", None),
        ("rsa.pem", "rsa.pub", None),
        ("rsa-pkcs1.pem", "rsa.pub", None),
        ("p256-encrypted.pem", "p256.pub", Some("secret")),
        ("ed25519-encrypted.pem", "ed25519.pub", Some("secret\n")),
        ("cosign.key", "cosign.pub", Some("hunter2\r\n")),
    ] {
        let mut words = vec!["sign", "plain.sif", "--key", secret, "-o", "signed.sif", "-f"];
        if let Some(text) = passphrase {
            fs::write(directory.join("passphrase"), text).unwrap();
            words.extend(["--passphrase-file", "passphrase"]);
        }
        expect(directory, &words);
        let (accepts, said) = shell(&oracles, directory, &format!("apptainer verify --key {shown} signed.sif"));
        assert!(accepts && said.contains("Verified signature(s)"), "{secret}: {said}");
        let other = if shown == "p384.pub" { "rsa.pub" } else { "p384.pub" };
        let (accepts, said) = shell(&oracles, directory, &format!("apptainer verify --key {other} signed.sif"));
        assert!(!accepts, "{secret}: {said}");
    }
}

#[test]
fn ours_accepts_what_apptainer_signed() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place();
    let directory = directory.path();
    for pair in PAIRS {
        fs::copy(directory.join("plain.sif"), directory.join("signed.sif")).unwrap();
        let (signed, said) = shell(&oracles, directory, &format!("apptainer sign --key {pair}.pem signed.sif"));
        assert!(signed, "{said}");
        expect(directory, &["verify", "signed.sif", "--key", &format!("{pair}.pub")]);
        // What is signed is what we sign.
        expect(directory, &["sign", "plain.sif", "--key", &format!("{pair}.pem"), "--detached", "ours.json", "-f"]);
        let payload = |bytes: Vec<u8>| {
            let start = bytes.windows(11).rposition(|bytes| bytes == b"\"payload\":\"").unwrap() + 11;
            bytes[start..].split(|&byte| byte == b'"').next().unwrap().to_vec()
        };
        let theirs = fs::read(directory.join("signed.sif")).unwrap();
        assert_eq!(payload(theirs), payload(fs::read(directory.join("ours.json")).unwrap()), "{pair}");
    }
}

/// The bytes of a SIF of ours that a signature covers: fields of the header and descriptors, and all objects.
fn covered(sif: &Sif) -> Vec<std::ops::Range<usize>> {
    let mut covered = vec![0..45, 48..64];
    for id in sif.used().filter(|&id| sif.0[4096 + (id - 1) * 585] != 5) {
        let slot = 4096 + (id - 1) * 585;
        // Type, used; link; size; created; uid, gid, name, extra.
        covered.extend([slot..slot + 5, slot + 13..slot + 17, slot + 25..slot + 33, slot + 41..slot + 49]);
        covered.push(slot + 57..slot + 585);
        let number = |at: usize| i64::from_le_bytes(sif.0[slot + at..slot + at + 8].try_into().unwrap()) as usize;
        covered.push(number(17)..number(17) + number(25));
    }
    covered
}

/// Flips of one bit each, half of them in places that are small and would hardly be hit.
fn flips(sif: &Sif, count: usize, random: &mut Numbers) -> Vec<(usize, u8)> {
    let covered = covered(sif);
    let all: Vec<usize> = covered.iter().cloned().flatten().collect();
    (0..count)
        .map(|round| {
            let bit = 1 << random.below(8);
            let range = &covered[random.below(covered.len() as u64) as usize];
            let place = match round % 2 {
                0 => all[random.below(all.len() as u64) as usize],
                _ => range.start + random.below(range.len() as u64) as usize,
            };
            (place, bit)
        })
        .collect()
}

#[test]
fn a_flipped_bit_that_is_signed_is_found() {
    let directory = place();
    let directory = directory.path();
    expect(directory, &["sign", "plain.sif", "--key", "p256.pem"]);
    let whole = Sif(fs::read(directory.join("plain.sif")).unwrap());
    let keys = [sif_convert::trust::PublicKey::from_pem(&fs::read(key("p256.pub")).unwrap()).unwrap()];
    let path = directory.join("flipped.sif");
    let verified = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        sif_convert::output::verify_signatures(&path, &keys, &sif_convert::Monitor::default())
    };
    assert_eq!(verified(&whole.0).unwrap().len(), 1);
    let mut random = Numbers::new(16);
    for (place, bit) in flips(&whole, run::count("FLIPS", 2000), &mut random) {
        let mut bytes = whole.0.clone();
        bytes[place] ^= bit;
        let error = verified(&bytes).expect_err(&format!("byte {place} ^ {bit}"));
        let kind = format!("{:?}", error.kind());
        assert!(
            ["Mismatch", "InvalidImage", "Unsupported"].contains(&kind.as_str()),
            "byte {place} ^ {bit}: {error:?}"
        );
    }
    // Of the signature, all but its key's name and what JSON does not care about.
    let start = whole.0.windows(7).rposition(|bytes| bytes == b"\"sig\":\"").unwrap() + 7;
    for place in start..start + 90 {
        let mut bytes = whole.0.clone();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        assert!(verified(&bytes).is_err(), "byte {place}");
    }
}

#[test]
fn apptainer_finds_the_same_flipped_bits() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place();
    let directory = directory.path();
    expect(directory, &["sign", "plain.sif", "--key", "ed25519.pem"]);
    let whole = Sif(fs::read(directory.join("plain.sif")).unwrap());
    let mut script = "set -eu; check() { apptainer verify --key ed25519.pub $1 >said 2>&1; }\n\
                      check plain.sif || { cat said; exit 2; }\ncp plain.sif x.sif\n"
        .to_string();
    // Whatever is not 0 says to Apptainer that a slot is in use.
    let is_lax = |place: usize| (4096..32_176).contains(&place) && (place - 4096) % 585 == 4;
    let flips = flips(&whole, run::count("FLIPS", 40), &mut Numbers::new(4)).into_iter();
    for (place, bit) in flips.filter(|&(place, bit)| bit == 1 || !is_lax(place)) {
        let put =
            |byte: u8| format!("printf '\\{byte:03o}' | dd of=x.sif bs=1 seek={place} conv=notrunc status=none\n");
        script += &put(whole.0[place] ^ bit);
        script += &format!("if check x.sif; then echo accepted byte {place} bit {bit}; exit 1; fi\n");
        script += &put(whole.0[place]);
    }
    script += "check x.sif; echo all\n";
    fs::write(directory.join("script"), script).unwrap();
    let (passed, said) = shell(&oracles, directory, "sh script");
    assert!(passed && said.ends_with("all\n"), "{said}");
}

#[test]
fn a_signature_travels_and_fits_one_sif_only() {
    let directory = place();
    let (owner, site) = (scratch(), directory.path());
    // The owner has an archive in another form, another directory, time zone, umask and number of threads.
    let oci = owner.path().join("image.oci");
    expect(owner.path(), &[&archive(), "--to", "oci", "-q", "-o", "image.oci"]);
    let made = run::run(
        Command::new("sh")
            .args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sif-convert")])
            .arg(&oci)
            .args(["--to", "sif", "-q", "-j", "1", "--sign-key", &key("p384.pem"), "--sign-detached", "owner.json"])
            .env("TZ", "Asia/Tokyo")
            .current_dir(owner.path()),
    );
    assert_eq!(made.code, 0, "{}", made.stderr);
    let left: Vec<_> = fs::read_dir(owner.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the signature only: {left:?}");
    let carried = owner.path().join("owner.json").display().to_string();
    assert!(fs::metadata(&carried).unwrap().len() < 2500);

    // The site appends it to what it converted itself, at once or later.
    expect(site, &[&archive(), "--to", "sif", "-q", "-o", "at-once.sif", "--signature", &carried]);
    expect(site, &["sign", "plain.sif", "--signature", &carried, "-o", "later.sif"]);
    assert_eq!(fs::read(site.join("at-once.sif")).unwrap(), fs::read(site.join("later.sif")).unwrap());
    expect(site, &["verify", "later.sif", "--key", "p384.pub"]);
    let reused =
        expect(site, &[&archive(), "--to", "sif", "-o", "later.sif", "--if-exists", "reuse", "--signature", &carried]);
    assert!(reused.stderr.contains("reused \""), "{}", reused.stderr);

    // It fits nothing else.
    let other = ["--to", "sif", "-q", "-o", "other.sif", "--label", "a=b", "--signature", &carried];
    let refused = convert(site, &[&[archive().as_str()], &other[..]].concat());
    assert_eq!(refused.code, exit_code("Mismatch"), "{}", refused.stderr);
    assert!(refused.stderr.contains("the signature is of another SIF"), "{}", refused.stderr);
    assert!(!site.join("other.sif").exists());
    expect(site, &[&archive(), "--to", "sif", "-q", "-o", "labelled.sif", "--label", "a=b"]);
    let before = fs::read(site.join("labelled.sif")).unwrap();
    assert_eq!(convert(site, &["sign", "labelled.sif", "--signature", &carried]).code, exit_code("Mismatch"));
    assert_eq!(fs::read(site.join("labelled.sif")).unwrap(), before);

    let Some(oracles) = run::oracles() else { return };
    let (accepts, said) = shell(&oracles, site, "apptainer verify --key p384.pub at-once.sif");
    assert!(accepts, "{said}");
}

#[test]
fn what_is_added_after_signing_is_not_signed() {
    let directory = place();
    let directory = directory.path();
    expect(directory, &["sign", "plain.sif", "--key", "rsa.pem"]);
    let mut sif = Sif(fs::read(directory.join("plain.sif")).unwrap());
    sif.add(&Object { kind: 7, group: 1, name: "more", bytes: b"not signed", ..Object::default() });
    fs::write(directory.join("plain.sif"), &sif.0).unwrap();
    let refused = convert(directory, &["verify", "plain.sif", "--key", "rsa.pub"]);
    assert_eq!(refused.code, exit_code("Mismatch"), "{}", refused.stderr);
    assert!(refused.stderr.contains("is not signed by any of the keys"), "{}", refused.stderr);
    // Signed once more, it is.
    expect(directory, &["sign", "plain.sif", "--key", "ed25519.pem"]);
    expect(directory, &["verify", "plain.sif", "--key", "ed25519.pub"]);
    // What is in no group cannot be.
    let mut sif = Sif(fs::read(directory.join("plain.sif")).unwrap());
    sif.add(&Object { kind: 7, group: 0, name: "loose", bytes: b"loose", ..Object::default() });
    fs::write(directory.join("plain.sif"), &sif.0).unwrap();
    for words in [["verify", "plain.sif", "--key", "ed25519.pub"], ["sign", "plain.sif", "--key", "ed25519.pem"]] {
        let refused = convert(directory, &words);
        assert_eq!(refused.code, exit_code("Unsupported"), "{}", refused.stderr);
        assert!(refused.stderr.contains("is in no group"), "{}", refused.stderr);
    }
}

#[test]
fn a_pgp_signature_is_named_and_never_good() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place();
    let directory = directory.path();
    let script = "export APPTAINER_CONFIGDIR=/mnt/config; apptainer key newpair --name x --email x@example.org --comment x \
                  --password '' --push=false && apptainer sign plain.sif && apptainer verify --local plain.sif";
    let (signed, said) = shell(&oracles, directory, script);
    assert!(signed, "{said}");
    let inspected = String::from_utf8(expect(directory, &["inspect", "plain.sif"]).stdout).unwrap();
    assert!(inspected.contains("over group 1 by "), "{inspected}");
    let unkeyed = expect(directory, &["verify", "plain.sif"]);
    assert!(unkeyed.stderr.contains("signatures were not verified"), "{}", unkeyed.stderr);
    let refused = convert(directory, &["verify", "plain.sif", "--key", "rsa.pub"]);
    assert_eq!(refused.code, exit_code("Mismatch"));
    assert!(refused.stderr.contains("PGP is not checked here"), "{}", refused.stderr);
}

#[test]
fn build_signs_too() {
    let directory = place();
    let directory = directory.path();
    fs::write(directory.join("passphrase"), "secret\n").unwrap();
    let key = ["--sign-key", "p256-encrypted.pem", "--sign-passphrase-file", "passphrase"];
    expect(directory, &[&["build", "built.sif", &format!("docker-archive:{}", archive())], &key[..]].concat());
    expect(directory, &["sign", "plain.sif", "--key", "p256.pem", "-o", "signed.sif"]);
    assert_eq!(fs::read(directory.join("built.sif")).unwrap(), fs::read(directory.join("signed.sif")).unwrap());
    let idle = convert(directory, &["build", "x.sif", &archive(), "--sign-passphrase-file", "passphrase"]);
    assert_eq!(idle.code, exit_code("Usage"), "{}", idle.stderr);
}

#[test]
fn signing_in_place_is_all_or_nothing() {
    let directory = place();
    let directory = directory.path();
    let path = directory.join("plain.sif");
    let plain = fs::read(&path).unwrap();
    expect(directory, &["sign", "plain.sif", "--key", "p256.pem", "-o", "signed.sif"]);
    let signed = fs::read(directory.join("signed.sif")).unwrap();
    for round in 0..40_u64 {
        fs::write(&path, &plain).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sif-convert"));
        command.args(["sign", "plain.sif", "--key", "p256.pem"]).current_dir(directory).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(500 * round));
        let _ = child.kill();
        child.wait().unwrap();
        let found = fs::read(&path).unwrap();
        assert!(found == plain || found == signed, "round {round}");
    }
    // A link to a SIF stays a link.
    fs::write(&path, &plain).unwrap();
    std::os::unix::fs::symlink("plain.sif", directory.join("link.sif")).unwrap();
    expect(directory, &["sign", "link.sif", "--key", "p256.pem"]);
    assert_eq!(fs::read(&path).unwrap(), signed);
    assert!(fs::symlink_metadata(directory.join("link.sif")).unwrap().is_symlink());
}

#[test]
fn passphrases_come_from_files_descriptors_and_the_terminal_and_are_never_shown() {
    let directory = place();
    let directory = directory.path();
    let sign = "sign plain.sif --key p256-encrypted.pem -o x.sif -f";
    let words: Vec<&str> = sign.split(' ').collect();
    fs::write(directory.join("right"), "secret\n").unwrap();
    fs::write(directory.join("wrong"), "TheWrongPassphrase\n").unwrap();
    expect(directory, &[&words[..], &["--passphrase-file", "right"]].concat());
    let refused = convert(directory, &[&words[..], &["--passphrase-file", "wrong"]].concat());
    assert_eq!(refused.code, exit_code("Usage"));
    assert!(
        refused.stderr.contains("the passphrase is not") && !refused.stderr.contains("TheWrong"),
        "{}",
        refused.stderr
    );
    let program = env!("CARGO_BIN_EXE_sif-convert");
    let piped = format!("printf secret | {{ {program} {sign} --passphrase-file /dev/fd/9 9<&0 </dev/null; }}");
    let done = run::run(Command::new("sh").args(["-c", &piped]).current_dir(directory));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let alone = run::run(Command::new("setsid").arg(program).args(&words).current_dir(directory).stdin(Stdio::null()));
    assert_eq!(alone.code, exit_code("Usage"), "{}", alone.stderr);
    assert!(alone.stderr.contains("there is no terminal"), "{}", alone.stderr);

    let typed = |keys: &str, code: i32| {
        let Some(said) = run::typed(directory, sign, keys) else { return };
        assert!(said.contains("passphrase of") && said.contains(&format!("exit {code}")), "{said}");
        assert!(!said.contains("sec") && !said.contains("silent"), "typed and shown, or silent for good: {said}");
    };
    typed("secreT\\177t\\r", 0);
    typed("nonsense\\r", exit_code("Usage"));
    typed("sec\\003", 130);
}
