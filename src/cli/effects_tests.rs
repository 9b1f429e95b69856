//! Every option of every command, for everything that can be written: it arrives in what will be done, or it is refused.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;

use super::args::{self, Parsed, Word};
use super::commands::additional_files;
use super::commands::convert::Convert;
use super::environment::Environment;
use super::options::{Feedback, Given, voice};
use super::registry;
use crate::error::{Error, ErrorKind, Result};
use crate::output::{AdditionalFiles, Target};

/// A value for each option that takes one: never its usual one.
fn value(id: &str) -> Option<&'static str> {
    Some(match id {
        "image" => "app:1",
        "platform" => "linux/s390x",
        "tmpdir" | "cache" => "elsewhere",
        "insecure" => "h.example",
        "mirror" => "docker.io=m.example",
        "retries" => "7",
        "timeout" => "9",
        "compression" => "gzip:3",
        "block_size" => "8192",
        "for" => "enroot",
        "if_exists" => "replace",
        "mode" => "640",
        "jobs" => "3",
        "max_memory" => "3G",
        "max_size" => "3GB",
        "expect_digest" | "expect_sha256" => "ABababababababababababababababababababababababababababababababab",
        "report" => "r.json",
        "provenance" => "p.json",
        "xattrs" => "all",
        "sign_key" => "fixtures/keys/ed25519.pem",
        "sign_passphrase_file" | "sign_detached" => "x",
        "policy" => "fixtures/keys/policy.json",
        "key" | "verify_key" | "rekor_key" => "fixtures/keys/p256.pub",
        "certificate" | "certificate_intermediates" | "certificate_roots" | "verify_root" => "fixtures/keys/ca.pem",
        "certificate_identity" | "certificate_oidc_issuer" => "x",
        "signature" => "fixtures/keys/hello.sig.json",
        "mkdir" | "mkfile" => "/made",
        "medperf_config" => "fixtures/container_config.yaml",
        "label" => "k=v",
        "arch" => "arm64",
        "reference" => "a/b:1",
        "tag" => "t:1",
        "sif_tag" => "other",
        "entrypoint" | "cmd" => "[\"x\"]",
        "env" => "A=1",
        "user" => "5:6",
        "progress" => "json",
        "older_than" | "mksquashfs_procs" | "depth" | "parallel" | "only" => "5",
        "list" | "tags" => "x",
        "names" => "nextflow",
        "bind" | "mksquashfs_mem" | "mksquashfs_args" => "1",
        "encrypt_passphrase_file" | "decrypt_passphrase_file" | "passphrase_file" => "fixtures/encryption/passphrase",
        "encrypt_pem" | "pem_path" => "fixtures/encryption/public.pem",
        "decrypt_pem" | "pem" => "fixtures/encryption/key.pem",
        "section" | "build_arg" | "build_arg_file" => "x",
        "input_command" => "cat x.tar",
        "authfile" => "fixtures/encryption/passphrase",
        "description" | "library" | "mount" => "x",
        "docker_host" => "tcp://h.example:1",
        "arch_variant" => "8",
        "against" => "y.tar",
        "to" | "output" => return None,
        _ => "",
    })
}

/// What a line of words will do, in full.
fn meaning(words: &[String]) -> Result<String> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let environment = Environment::bare();
    let feedback = |feedback: &Feedback| voice(feedback, &environment).map(|said| format!("{said:?}"));
    let (word, given) = match args::parse(&words)? {
        (Parsed::Convert(convert), given) => return conversion(&convert, &given, &environment),
        (Parsed::Word(word), given) => (word, given),
        (Parsed::Text(text), _) => panic!("{text}"),
    };
    match word {
        Word::Build(build) => {
            let environment = build.environment(&environment)?;
            let (convert, note) = build.into_convert(&given, &environment)?;
            // A shim adds these to whatever it is called with.
            let given = given.without(&registry::IDS).without(&["encrypt", "passphrase", "pem_path"]);
            Ok(format!("{} {note:?}", conversion(&convert, &given, &environment)?))
        }
        Word::Batch(batch) => {
            let (voice, mode) = voice(&batch.feedback, &environment)?;
            Ok(format!("{:?} {voice:?} {mode:?}", batch.resolve(&given, &environment)?))
        }
        Word::Inspect(inspect) => {
            let subject = inspect.resolve(&given, &environment)?;
            Ok(format!("{subject:?} {} {}", inspect.json, feedback(&inspect.feedback)?))
        }
        Word::Ls(ls) => {
            let look = ls.resolve(&given, &environment)?;
            let printed = (ls.json, ls.du, ls.depth);
            Ok(format!("{look:?} {printed:?} {}", feedback(&ls.feedback)?))
        }
        Word::Cat(cat) => Ok(format!("{:?} {}", cat.resolve(&given, &environment)?, feedback(&cat.feedback)?)),
        Word::Diff(diff) => {
            let looks = diff.resolve(&given, &environment)?;
            Ok(format!("{looks:?} {} {} {}", diff.json, diff.times, feedback(&diff.feedback)?))
        }
        Word::Verify(verify) => {
            let said = feedback(&verify.feedback)?;
            let (keys, secret) = (verify.keys()?, verify.decryption.secret()?);
            Ok(format!("{:?} {keys:?} {secret:?} {said}", verify.resolve(&given, &environment)?))
        }
        Word::Push(push) => {
            let said = feedback(&push.feedback)?;
            Ok(format!("{:?} {:?} {:?} {said}", push.resolve(&given, &environment)?, push.report, push.meaningless))
        }
        Word::Attach(attach) => {
            let (report, said) = (attach.report.clone(), feedback(&attach.feedback)?);
            Ok(format!("{:?} {report:?} {said}", attach.resolve(&given, &environment)?))
        }
        other => Ok(format!("{other:?}")),
    }
}

/// What a conversion will do, in full.
fn conversion(convert: &Convert, given: &Given, environment: &Environment) -> Result<String> {
    let (voice, mode) = voice(&convert.feedback, environment)?;
    let report = &convert.checks.report;
    if additional_files::is_asked(convert) {
        let packing = additional_files::resolve(convert, given, environment)?;
        return Ok(format!("{packing:?} {voice:?} {mode:?} {report:?}"));
    }
    let job = convert.resolve(given, environment)?;
    job.target.check(&job.destination, &job.options)?;
    Ok(format!("{job:?} {voice:?} {mode:?} {report:?}"))
}

/// The options of `command` that do something else than ending at once.
fn options(command: &Command) -> Vec<(String, String)> {
    let options = command.get_arguments().filter(|each| !each.is_positional());
    let named = options.filter_map(|each| Some((each.get_id().to_string(), each.get_long()?.to_string())));
    named.filter(|(id, _)| !["help", "version", "to", "output", "out"].contains(&id.as_str())).collect()
}

fn is_refusal(error: &Error) -> bool {
    let text = error.to_string();
    let says = [
        "cannot be reused",
        "is never replaced",
        "has no mode",
        "is not one file",
        "is not supported",
        "has no effect",
    ];
    error.kind() == ErrorKind::Usage && error.remedy().is_some() && says.iter().any(|said| text.contains(said))
}

#[test]
fn every_option_has_an_effect_on_every_target_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("container_config.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let names = Target::all().iter().map(Target::name).chain([AdditionalFiles::NAME]).collect::<Vec<_>>();
    let (mut effects, mut refusals) = (0, 0);
    for source in ["x.tar", "docker://h.example/x:1"] {
        for target in &names {
            let folder = directory.path().display().to_string();
            let source = if *target == AdditionalFiles::NAME { &folder } else { source };
            let plain: Vec<String> = ["sif-convert", source, "--to", target].map(str::to_string).into();
            let usual = meaning(&plain).unwrap();
            for option in options(&args::command()) {
                if has_effect(&plain, &usual, &option, &config) { effects += 1 } else { refusals += 1 }
            }
        }
    }
    assert!(effects > 100 && refusals > 50, "{effects} effects, {refusals} refusals");
}

/// Whether the option has an effect beside the words `plain`, which without it mean `usual`; where not, it is refused.
fn has_effect(plain: &[String], usual: &str, (id, long): &(String, String), config: &Path) -> bool {
    let mut line = plain.to_vec();
    line.push(format!("--{long}"));
    match value(id) {
        Some("") => {}
        Some(_) if id == "medperf_config" => line.push(config.display().to_string()),
        Some(value) => line.push(value.to_string()),
        None => panic!("a value for --{long} is missing here"),
    }
    match meaning(&line) {
        Ok(changed) => {
            assert!(changed != usual, "{line:?} does what it does without --{long}");
            true
        }
        Err(error) => {
            assert!(is_refusal(&error), "{line:?}: {error}");
            false
        }
    }
}

#[test]
fn every_option_has_an_effect_on_what_is_pushed_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("container_config.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let (mut effects, mut refusals) = (0, 0);
    for source in ["x.tar", "docker://h.example/x:1"] {
        for (target, output) in [
            ("oci", "docker://r.example/y:1"),
            ("docker-archive", "docker://r.example/y:1"),
            ("sif", "oras://r.example/y:1"),
        ] {
            let plain: Vec<String> = ["sif-convert", source, "--to", target, "-o", output].map(str::to_string).into();
            let usual = meaning(&plain).unwrap();
            for option in options(&args::command()) {
                if has_effect(&plain, &usual, &option, &config) { effects += 1 } else { refusals += 1 }
            }
        }
    }
    assert!(effects > 100 && refusals > 30, "{effects} effects, {refusals} refusals");
}

#[test]
fn every_option_of_the_other_commands_has_an_effect_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("container_config.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let sif = directory.path().join("x.sif");
    std::fs::write(&sif, [&[b' '; 32][..], b"SIF_MAGIC\0"].concat()).unwrap();
    let sif = sif.display().to_string();
    // Each with how many options have an effect and how many are refused, at least.
    let lines: [(&[&str], &[&str], usize, usize); 20] = [
        (&["batch"], &["docker://h.example/x:1", "--to", "sif", "--out", "d"], 40, 4),
        (&["batch"], &["docker://h.example/x:1", "--to", "rootfs", "--out", "d"], 25, 12),
        (&["build"], &["x.sif", "docker://h.example/x:1"], 34, 9),
        (&["inspect"], &["docker://h.example/x:1"], 10, 0),
        (&["inspect"], &["x.tar"], 5, 5),
        (&["inspect"], &[&sif], 3, 8),
        (&["ls"], &["docker://h.example/x:1"], 16, 0),
        (&["ls"], &["x.sif", "/etc"], 11, 5),
        (&["cat"], &["docker://h.example/x:1", "etc/motd"], 13, 0),
        (&["cat"], &["x.sif", "etc/motd"], 8, 5),
        (&["diff"], &["x.tar", "docker://h.example/x:1"], 16, 0),
        (&["diff"], &["x.tar", "x.sif"], 11, 5),
        (&["verify"], &["docker://h.example/x:1"], 5, 0),
        (&["verify"], &["x.tar"], 5, 0),
        (&["verify"], &[&sif], 2, 3),
        (&["cache", "prune"], &["x"], 2, 0),
        (&["decrypt"], &["x.sif", "-o", "y.sif"], 6, 0),
        (&["attach"], &["docker://h.example/x:1"], 20, 2),
        (&["push"], &["x.sif", "oras://h.example/x:1"], 14, 2),
        (&["config"], &[], 0, 0),
    ];
    for (command, operands, least_effects, least_refusals) in lines {
        let whole = args::command();
        let named = command.iter().fold(&whole, |at, name| at.find_subcommand(name).unwrap());
        let words = [&["sif-convert"], command, operands].concat();
        let plain: Vec<String> = words.iter().map(ToString::to_string).collect();
        let usual = meaning(&plain).unwrap();
        let (mut effects, mut refusals) = (0, 0);
        for option in options(named) {
            if has_effect(&plain, &usual, &option, &config) { effects += 1 } else { refusals += 1 }
        }
        assert!(
            effects >= least_effects && refusals >= least_refusals,
            "{plain:?}: {effects} effects, {refusals} refusals"
        );
    }
}

/// A configuration that binds to one directory.
const CONFIG: &str = "tasks:\n  run:\n    input_volumes:\n      data: { mount_path: /data, type: directory }\n";
