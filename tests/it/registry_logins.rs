//! Logins and tokens as registries and helpers in the field have them: expired, refused, empty, hanging. The registries are
//! our own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::fake::{Answer, Fake, Repository, Request};
use crate::support::layer;
use crate::support::run::{Run, program, run, scratch};

/// `user:hunter2` as RFC 7617 has it.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

fn repository() -> Repository {
    let mut tar = Vec::new();
    layer::member(&mut tar, "a", b"text");
    tar.resize(tar.len() + 1024, 0);
    Repository::of(&[tar])
}

fn unauthorized(challenge: Option<&str>) -> Answer {
    let errors = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication required" }] });
    let answer = Answer::json(401, errors);
    challenge.map_or(answer.clone(), |challenge| answer.with("WWW-Authenticate", challenge))
}

/// A place with a home directory to run in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(scratch())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn docker_login(&self, host: &str) {
        self.write(".docker/config.json", &json!({ "auths": { host: { "auth": "dXNlcjpodW50ZXIy" } } }).to_string());
    }

    fn command(&self, fake: &Fake) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("HOME", self.0.path());
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        command.env("PATH", path).arg(format!("docker://{}/x:1", fake.host()));
        command.args(["--to", "rootfs", "-o", "out.tar", "--force", "--retries", "1", "--report", "report.json"]);
        command
    }

    fn succeeds(&self, fake: &Fake) -> Run {
        let done = run(&mut self.command(fake));
        assert_eq!(done.code, 0, "{}", done.stderr);
        self.is_silent(&done);
        done
    }

    fn is_silent(&self, done: &Run) {
        let report = fs::read_to_string(self.0.path().join("report.json")).unwrap();
        for secret in ["hunter2", "dXNlcjpodW50ZXIy"] {
            assert!(!done.stderr.contains(secret) && !report.contains(secret), "{secret}: {}{report}", done.stderr);
        }
    }

    fn helper(&self, script: &str) {
        self.write("docker-credential-test", &format!("#!/bin/sh\n{script}\n"));
        let path = self.0.path().join("docker-credential-test");
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        self.write(".docker/config.json", &json!({ "credsStore": "test" }).to_string());
    }
}

/// A token server whose tokens are numbered.
fn numbered_tokens(expires_in: u64) -> (Arc<Fake>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&count);
    let fake = Fake::start(move |_| {
        let number = given.fetch_add(1, Ordering::SeqCst) + 1;
        Answer::json(200, json!({ "token": format!("t{number}"), "expires_in": expires_in }))
    });
    (Arc::new(fake), count)
}

/// Harbor answers a token that has expired with a Basic challenge.
#[test]
fn an_expired_token_is_replaced_whatever_the_challenge() {
    for challenge in [Some("Basic realm=\"harbor\""), None] {
        let (tokens, count) = numbered_tokens(3600);
        let (repository, realm) = (repository(), format!("Bearer realm=\"http://{}/t\"", tokens.host()));
        // The first token is good for the manifest only.
        let fake = Fake::start(move |request| match request.header("authorization") {
            None => unauthorized(Some(&realm)),
            Some("Bearer t1") if request.is_for("/blobs/") => unauthorized(challenge),
            Some(_) => repository.answer(request),
        });
        Place::new().succeeds(&fake);
        assert_eq!(count.load(Ordering::SeqCst), 2, "{challenge:?}");
    }
}

#[test]
fn tokens_are_renewed_before_they_expire() {
    let (tokens, count) = numbered_tokens(1);
    let (repository, realm) = (repository(), format!("Bearer realm=\"http://{}/t\"", tokens.host()));
    // An expired token would be answered with 403, which is final.
    let fake = Fake::start(move |request| match request.header("authorization") {
        None => unauthorized(Some(&realm)),
        Some("Bearer t1") if request.is_for("/blobs/") => Answer::new(403, "text/plain", "expired"),
        Some(_) => {
            std::thread::sleep(Duration::from_millis(if request.is_for("/manifests/") { 900 } else { 0 }));
            repository.answer(request)
        }
    });
    Place::new().succeeds(&fake);
    assert!(count.load(Ordering::SeqCst) >= 2);
}

/// Of some registries the anonymous learn that there is nothing, without a challenge.
#[test]
fn a_login_on_file_is_tried_where_anonymous_users_see_nothing() {
    for status in [401, 403, 404] {
        for root in [Some("Basic realm=\"x\""), None] {
            let held = repository();
            let fake = Fake::start(move |request| match request.header("authorization") {
                Some(BASIC) => held.answer(request),
                None if request.path == "/v2/" => unauthorized(root),
                _ => Answer::json(status, json!({ "errors": [{ "code": "NAME_UNKNOWN", "message": "unknown" }] })),
            });
            let place = Place::new();
            place.docker_login(&fake.host());
            place.succeeds(&fake);
            // Without a login, the answer is what it was.
            let done = run(&mut Place::new().command(&fake));
            assert_eq!(done.code, if status == 404 { 3 } else { 6 }, "{status}: {}", done.stderr);
            assert!(done.stderr.contains("NAME_UNKNOWN"), "{}", done.stderr);
        }
    }
    // What is missing for everyone is told as missing, and the login is tried once.
    let fake = Fake::start(|request| match request.path.as_str() {
        "/v2/" => unauthorized(Some("Basic realm=\"x\"")),
        _ => Answer::json(404, json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "unknown" }] })),
    });
    let place = Place::new();
    place.docker_login(&fake.host());
    let done = run(&mut place.command(&fake));
    assert!(done.code == 3 && done.stderr.contains("MANIFEST_UNKNOWN"), "{}", done.stderr);
    assert_eq!(fake.count("/manifests/"), 2);
}

#[test]
fn an_empty_token_beside_an_access_token_is_passed_over() {
    let tokens = Fake::start(|_| Answer::json(200, json!({ "token": "", "access_token": "good" })));
    let (held, realm) = (repository(), format!("Bearer realm=\"http://{}/t\"", tokens.host()));
    let fake = Fake::start(move |request| match request.header("authorization") {
        Some("Bearer good") => held.answer(request),
        _ => unauthorized(Some(&realm)),
    });
    Place::new().succeeds(&fake);
}

/// `k8s.gcr.io` and others send every request on to another registry, which has tokens of its own.
#[test]
fn a_registry_that_sends_everything_to_another_one_is_followed() {
    let (tokens, _) = numbered_tokens(3600);
    let (held, realm) = (repository(), format!("Bearer realm=\"http://{}/t\"", tokens.host()));
    let new = Arc::new(Fake::start(move |request| match request.header("authorization") {
        Some(token) if token.starts_with("Bearer t") => held.answer(request),
        Some(other) => panic!("{other} is not for this registry"),
        None => unauthorized(Some(&realm)),
    }));
    let to = new.host();
    let old = Fake::start(move |request| {
        assert!(request.header("authorization").is_none(), "a token went back");
        Answer::redirect(&format!("http://{to}{}", request.path))
    });
    let place = Place::new();
    place.succeeds(&old);
    // The login for the old one is not for the new one; that for the new one is.
    place.docker_login(&old.host());
    place.succeeds(&old);
    assert!(tokens.log().iter().all(|request| request.header("authorization").is_none()));
    place.docker_login(&new.host());
    new.log();
    let before = tokens.log().len();
    let done = run(&mut place.command(&old));
    assert_eq!(tokens.log()[before].header("authorization"), Some(BASIC), "{}", done.stderr);
}

#[test]
fn blobs_called_web_pages_are_judged_by_their_digest() {
    let held = repository();
    let fake = Fake::start(move |request| {
        let mut answer = held.answer(request);
        answer.headers.retain(|(name, _)| name != "Content-Type");
        answer.with("Content-Type", "text/html; charset=utf-8")
    });
    Place::new().succeeds(&fake);
}

#[test]
fn bodies_are_asked_for_as_they_are() {
    let held = repository();
    let fake = Fake::start(move |request| held.answer(request));
    Place::new().succeeds(&fake);
    assert!(fake.log().iter().all(|request| request.header("accept-encoding") == Some("identity")));
}

/// A public image behind a token server: anonymous tokens are as good as others, and a wrong login is refused.
fn public() -> (Fake, Arc<Fake>) {
    let tokens = Arc::new(Fake::start(|request| match request.header("authorization") {
        None => Answer::json(200, json!({ "token": "an0nymous" })),
        Some(BASIC) => Answer::json(200, json!({ "token": "us3r" })),
        Some(_) => unauthorized(None),
    }));
    let (held, realm) = (repository(), format!("Bearer realm=\"http://{}/t\"", tokens.host()));
    let fake = Fake::start(move |request: &Request| match request.header("authorization") {
        Some("Bearer an0nymous" | "Bearer us3r") => held.answer(request),
        _ => unauthorized(Some(&realm)),
    });
    (fake, tokens)
}

/// The public image is read anonymously, with a warning that has these words.
fn warns(place: &Place, fake: &Fake, words: &str) {
    let done = place.succeeds(fake);
    let warnings: Vec<&str> = done.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    let told = warnings.iter().filter(|line| line.contains(words)).count();
    assert!(told > 0, "no {words:?} in {}", done.stderr);
}

#[test]
fn files_of_logins_that_are_no_use_are_no_obstacle() {
    let (fake, tokens) = public();
    let host = fake.host();
    let cases = [
        ("", "the file is empty"),
        ("{", "the file is not JSON"),
        ("{\"auths\":{\"HOST\":{\"auth\":\"%%%\"}}}", "its entry for that registry is malformed"),
        // "user:hun\nter2"
        ("{\"auths\":{\"HOST\":{\"auth\":\"dXNlcjpodW4KdGVyMg==\"}}}", "its entry for that registry is malformed"),
        ("{\"credsStore\":\"missing-helper\"}", "docker-credential-missing-helper cannot be run"),
        // "user:wrong"
        ("{\"auths\":{\"HOST\":{\"auth\":\"dXNlcjp3cm9uZw==\"}}}", "refused the login of \"user\""),
    ];
    for (text, words) in cases {
        let place = Place::new();
        place.write(".docker/config.json", &text.replace("HOST", &host));
        warns(&place, &fake, words);
        if words.contains("refused") {
            continue;
        }
        // The next file is still looked at.
        place.write(
            ".apptainer/docker-config.json",
            &json!({ "auths": { &host: { "auth": "dXNlcjpodW50ZXIy" } } }).to_string(),
        );
        warns(&place, &fake, words);
        assert_eq!(tokens.log().last().unwrap().header("authorization"), Some(BASIC), "{text}");
    }
    // An entry without anything in it says that there is a login elsewhere, or none.
    let place = Place::new();
    place.write(".docker/config.json", &json!({ "auths": { &host: { "auth": "" } } }).to_string());
    assert!(!place.succeeds(&fake).stderr.contains("warning: "));
    // Zeros and newlines after a password: "user:hunter2\0", "user:hunter2\n".
    for auth in ["dXNlcjpodW50ZXIyAA==", "dXNlcjpodW50ZXIyCg=="] {
        place.write(".docker/config.json", &json!({ "auths": { &host: { "auth": auth } } }).to_string());
        place.succeeds(&fake);
        assert_eq!(tokens.log().last().unwrap().header("authorization"), Some(BASIC), "{auth}");
    }
}

#[test]
fn helpers_that_fail_are_no_obstacle() {
    let (fake, tokens) = public();
    for (script, words) in [
        ("echo hunter2; exit 3", "docker-credential-test failed"),
        ("echo 'hunter2 is not JSON'", "docker-credential-test did not answer with credentials"),
        ("echo '{\"Username\":\"hunter2\"}'", "docker-credential-test did not answer with credentials"),
        ("", "docker-credential-test did not answer with credentials"),
    ] {
        let place = Place::new();
        place.helper(script);
        warns(&place, &fake, words);
    }
    // One that does not read its question answers all the same, every time.
    let place = Place::new();
    place.helper("exec <&-; echo '{\"Username\":\"user\",\"Secret\":\"hunter2\"}'");
    for _ in 0..20 {
        place.succeeds(&fake);
        assert_eq!(tokens.log().last().unwrap().header("authorization"), Some(BASIC));
    }
    // Where the login is needed, what kept it from being found is told as the cause.
    let wants = Fake::start(|_| unauthorized(Some("Basic realm=\"x\"")));
    let place = Place::new();
    place.helper("exit 3");
    let done = run(&mut place.command(&wants));
    assert!(done.code == 6 && done.stderr.contains("requires a login"), "{}", done.stderr);
    assert!(
        done.stderr.contains("caused by: ") && done.stderr.contains("docker-credential-test failed"),
        "{}",
        done.stderr
    );
}

/// Time, memory and processes of a helper have limits, and nothing of it is left.
#[test]
fn helpers_that_hang_or_never_end_are_killed_as_a_group() {
    let (fake, _tokens) = public();
    let place = Place::new();
    let pids = place.0.path().join("pids");
    for (script, words) in [
        ("echo $$ >>pids; sleep 300 & echo $! >>pids; wait", "gave no answer in time"),
        ("echo $$ >>pids; yes hunter2", "says too much"),
        ("echo $$ >>pids; yes hunter2 >&2", "says too much"),
    ] {
        let _ = fs::remove_file(&pids);
        place.helper(script);
        let began = Instant::now();
        let done = run(place.command(&fake).args(["--timeout", "1"]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        place.is_silent(&done);
        assert!(done.stderr.contains(words), "no {words:?} in {}", done.stderr);
        assert!(began.elapsed() < Duration::from_secs(20), "{words}");
        for pid in fs::read_to_string(&pids).unwrap().lines() {
            let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
            assert!(
                (0..50).any(|_| gone() || {
                    std::thread::sleep(Duration::from_millis(20));
                    false
                }),
                "{pid} lives"
            );
        }
    }
}

#[test]
fn a_named_pipe_in_place_of_a_file_of_logins_does_not_hang() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (fake, _tokens) = public();
    let place = Place::new();
    fs::create_dir_all(place.0.path().join(".docker")).unwrap();
    mknodat(CWD, place.0.path().join(".docker/config.json"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    warns(&place, &fake, "not a regular file");
}

#[test]
fn a_login_that_was_given_for_this_run_must_be_right() {
    let (fake, _tokens) = public();
    let place = Place::new();
    let mut command = place.command(&fake);
    command.env("APPTAINER_DOCKER_USERNAME", "user").env("APPTAINER_DOCKER_PASSWORD", "wrong");
    let done = run(&mut command);
    assert!(done.code == 6 && done.stderr.contains("refused the login of \"user\""), "{}", done.stderr);
}

#[test]
fn a_web_page_in_place_of_a_document_is_told() {
    for kind in ["/manifests/", "/blobs/"] {
        let held = repository();
        let fake = Fake::start(move |request| match request.is_for(kind) {
            true => Answer::new(200, "text/html", "<html>please log in</html>"),
            false => held.answer(request),
        });
        let done = run(&mut Place::new().command(&fake));
        assert!(done.code == 6 && done.stderr.contains("with a web page"), "{}", done.stderr);
    }
}
