//! `registries.conf` as skopeo reads it: for each configuration, both ask the same servers for the same manifests in the
//! same order, and both succeed or both fail.
//!
//! Needs `scripts/oracles setup`; without it the comparison is skipped with a printed reason.

use std::fs;

use crate::support::fake::{Answer, Fake, Repository};
use crate::support::layer;
use crate::support::run::{self, program, scratch};

fn image() -> Repository {
    let mut tar = Vec::new();
    layer::member(&mut tar, "a", b"text");
    tar.resize(tar.len() + 1024, 0);
    Repository::of(&[tar])
}

/// Three registries: one that has the image, one that has nothing, one that fails.
struct Registries {
    good: Fake,
    empty: Fake,
    broken: Fake,
}

impl Registries {
    fn start() -> Self {
        let held = image();
        let root = |request: &crate::support::fake::Request| {
            (request.path == "/v2/").then(|| Answer::new(200, "text/plain", ""))
        };
        Registries {
            good: Fake::start(move |request| root(request).unwrap_or_else(|| held.answer(request))),
            empty: Fake::start(move |request| root(request).unwrap_or_else(|| Answer::new(404, "text/plain", ""))),
            broken: Fake::start(move |request| root(request).unwrap_or_else(|| Answer::new(403, "text/plain", ""))),
        }
    }

    fn filled(&self, text: &str) -> String {
        text.replace("GOOD", &self.good.host())
            .replace("EMPTY", &self.empty.host())
            .replace("BROKEN", &self.broken.host())
    }

    /// Which manifests were asked for, each server's in order, after so many requests to each.
    fn asked(&self, after: [usize; 3]) -> Vec<Vec<String>> {
        let of = |fake: &Fake, after: usize| {
            let log = fake.log();
            let mut paths: Vec<String> = log[after..]
                .iter()
                .map(|request| request.path.clone())
                // The fallback tag of referrers is none of what skopeo asks for.
                .filter(|path| path.contains("/manifests/") && !path.contains("/manifests/sha256-"))
                .collect();
            paths.dedup();
            paths
        };
        vec![of(&self.good, after[0]), of(&self.empty, after[1]), of(&self.broken, after[2])]
    }

    fn counts(&self) -> [usize; 3] {
        [&self.good, &self.empty, &self.broken].map(|fake| fake.log().len())
    }
}

/// One entry; more lines come after.
fn entry(lines: &str) -> String {
    format!("[[registry]]\n{lines}\n")
}

fn mirror(location: &str, more: &str) -> String {
    format!("[[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n{more}\n")
}

/// Configurations, and what is asked for.
fn cases() -> Vec<(String, &'static str)> {
    let digest: &'static str = Box::leak(
        format!("h.test/x@{}", {
            let (_, bytes) = &image().manifests["1"];
            format!("sha256:{}", crate::support::pack::sha256(bytes))
        })
        .into_boxed_str(),
    );
    let to = |prefix: &str, location: &str| {
        entry(&format!("prefix = \"{prefix}\"\nlocation = \"{location}\"\ninsecure = true"))
    };
    vec![
        (String::new(), "GOOD/x:1"),
        (entry("location = \"GOOD\"\ninsecure = true"), "GOOD/x:1"),
        (entry("location = \"GOOD/ns\"\ninsecure = true"), "GOOD/ns/x:1"),
        (to("h.test", "GOOD"), "h.test/x:1"),
        (to("h.test/", "GOOD/"), "h.test/x:1"),
        (to("h.test/a", "GOOD/b/c"), "h.test/a/x:1"),
        (to("h.test/a", "GOOD/b"), "h.test/ab/x:1"),
        (to("h.test/a", "EMPTY") + &to("h.test/a/b", "GOOD"), "h.test/a/b/x:1"),
        (to("h.test/a/b", "GOOD") + &to("h.test/a", "EMPTY"), "h.test/a/c/x:1"),
        (to("h.test/x", "GOOD/y"), "h.test/x:1"),
        (to("h.test/x:1", "GOOD/y:1"), "h.test/x:1"),
        (to("*.test", "GOOD"), "h.test/x:1"),
        (to("*.test/ns", "GOOD/ns2"), "a.b.test/ns/x:1"),
        (to("*.test", "EMPTY") + &to("h.test", "GOOD"), "h.test/x:1"),
        (to("*.test", "GOOD"), "test.org/x:1"),
        (entry("prefix = \"*.test\"\n") + &mirror("GOOD", ""), "h.test/x:1"),
        (to("h.test", "EMPTY") + &mirror("GOOD/m", ""), "h.test/x:1"),
        (to("h.test", "GOOD") + &mirror("EMPTY/m", ""), "h.test/x:1"),
        (to("h.test", "GOOD") + &mirror("BROKEN", "") + &mirror("EMPTY", ""), "h.test/x:1"),
        (to("h.test", "EMPTY") + &mirror("BROKEN", ""), "h.test/x:1"),
        (to("h.test", "GOOD") + &mirror("EMPTY", "pull-from-mirror = \"digest-only\""), "h.test/x:1"),
        (to("h.test", "GOOD") + &mirror("EMPTY", "pull-from-mirror = \"digest-only\""), digest),
        (to("h.test", "GOOD") + &mirror("EMPTY", "pull-from-mirror = \"tag-only\""), "h.test/x:1"),
        (to("h.test", "GOOD") + &mirror("EMPTY", "pull-from-mirror = \"tag-only\""), digest),
        (to("h.test", "GOOD") + &mirror("EMPTY", "pull-from-mirror = \"all\""), digest),
        (to("h.test", "GOOD\"\nmirror-by-digest-only = true\n#") + &mirror("EMPTY", ""), "h.test/x:1"),
        (to("h.test", "GOOD\"\nmirror-by-digest-only = true\n#") + &mirror("EMPTY", ""), digest),
        // skopeo asks a location all the same whose prefix is blocked, against the manual page; we do not.
        (entry("location = \"GOOD\"\nblocked = true\ninsecure = true"), "GOOD/x:1"),
        (to("h.test", "GOOD") + &mirror("EMPTY", "") + &entry("location = \"EMPTY\"\nblocked = true"), "h.test/x:1"),
        (to("h.test", "GOOD") + &entry("location = \"GOOD\"\nblocked = true\ninsecure = true"), "h.test/x:1"),
        (to("docker.io", "GOOD"), "x:1"),
        (to("docker.io/library", "GOOD"), "x:1"),
        (to("h.test", "GOOD") + "pull-from-mirror = \"all\"\n", "h.test/x:1"),
        (entry("prefix = \"h.test\"\n"), "h.test/x:1"),
        (to("h.test", "http://GOOD"), "h.test/x:1"),
        (to("h.test", "GOOD") + "[[registry.mirror]]\ninsecure = true\n", "h.test/x:1"),
        (to("h.test", "notahost"), "h.test/x:1"),
    ]
}

#[test]
fn what_skopeo_asks_for_is_asked_for_oracle() {
    let Some(oracles) = run::oracles() else { return };
    let place = scratch();
    let registries = Registries::start();
    let cases = cases();
    assert!(cases.len() >= 30);
    let mut differences = Vec::new();
    for (text, name) in &cases {
        let (text, name) = (registries.filled(text), registries.filled(name));
        fs::write(place.path().join("registries.conf"), &text).unwrap();
        let before = registries.counts();
        let insecure = if text.is_empty() { "--tls-verify=false" } else { "" };
        let script =
            format!("skopeo --registries-conf registries.conf inspect {insecure} --raw docker://{name} >/dev/null");
        let theirs = run::run(oracles.run(place.path()).args(["sh", "-c", &script]));
        let asked_by_skopeo = registries.asked(before);
        let before = registries.counts();
        let mut command = program();
        command
            .current_dir(place.path())
            .env("HOME", place.path())
            .env("CONTAINERS_REGISTRIES_CONF", "registries.conf");
        let ours = run::run(command.args(["inspect", &format!("docker://{name}")]));
        let asked = registries.asked(before);
        if (theirs.code == 0, &asked_by_skopeo) != (ours.code == 0, &asked) {
            let (told, said) = (theirs.stderr.trim().to_string(), ours.stderr.trim().to_string());
            differences.push(format!("{text}\n{name}: skopeo {asked_by_skopeo:?} {told}\nours {asked:?} {said}\n"));
        }
    }
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), cases.len(), differences.join("\n"));
}

#[test]
fn the_users_file_and_what_is_added_to_it_are_found() {
    let place = scratch();
    let registries = Registries::start();
    let to = |location: &str| registries.filled(&entry(&format!("prefix = \"h.test\"\nlocation = \"{location}\"")));
    let directory = place.path().join(".config/containers/registries.conf.d");
    fs::create_dir_all(&directory).unwrap();
    let converted = |arguments: &[&str]| {
        let mut command = program();
        command.current_dir(place.path()).env("HOME", place.path()).env_remove("CONTAINERS_REGISTRIES_CONF");
        run::run(command.args(["docker://h.test/x:1", "--to", "rootfs", "-o", "-", "--retries", "0"]).args(arguments))
    };
    fs::write(place.path().join(".config/containers/registries.conf"), to("EMPTY")).unwrap();
    assert_eq!(converted(&[]).code, 3);
    fs::write(directory.join("50-mirror.conf"), to("GOOD")).unwrap();
    assert_eq!(converted(&[]).code, 0);
    // A mirror that is given goes before those of the file.
    let before = registries.counts();
    let given = registries.filled("h.test=EMPTY");
    let done = converted(&["--mirror", &given]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(registries.asked(before)[1].len() == 1, "the mirror was not asked");
    // A file that cannot be understood is told.
    fs::write(directory.join("60-bad.conf"), "[[registry").unwrap();
    let done = converted(&[]);
    assert!(done.code == 6 && done.stderr.contains("60-bad.conf"), "{}", done.stderr);
}
