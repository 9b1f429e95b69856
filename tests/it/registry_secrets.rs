//! Secrets appear in no message, no report and no event, wherever they were given and whoever repeats them.

use std::fs;

use crate::support::fake::{Answer, Fake};
use crate::support::run::{program, run, scratch};
use serde_json::json;

const SECRET: &str = "c0rrect-h0rse";

#[test]
fn passwords_in_addresses_are_not_repeated() {
    let place = scratch();
    let report = place.path().join("report.json");
    let cases: [(&[&str], &str); 9] = [
        (&["docker://u:c0rrect-h0rse@registry.invalid/x:1"], ""),
        (&["docker://u:c0rrect-h0rse@registry.invalid/x@latest"], ""),
        (&["docker://registry.invalid/x", "--mirror", "registry.invalid=u:c0rrect-h0rse@m"], ""),
        (&["docker://registry.invalid/x", "--mirror=registry.invalid=u:c0rrect-h0rse@m"], ""),
        (&["docker://registry.invalid/x", "--insecure", "u:c0rrect-h0rse@h"], ""),
        (&["docker://registry.invalid/x", "--insecure=http://u:c0rrect-h0rse@h"], ""),
        (&["docker-daemon:x"], "tcp://u:c0rrect-h0rse@127.0.0.1:1"),
        (&["docker-daemon:x"], "u:c0rrect-h0rse@127.0.0.1"),
        (&["docker-daemon:x"], "ssh://u:c0rrect-h0rse@-x"),
    ];
    for (arguments, docker_host) in cases {
        for more in [&["-v"][..], &["--progress", "json"]] {
            let mut command = program();
            command.current_dir(place.path()).env("HOME", place.path()).env("DOCKER_HOST", docker_host);
            command.args(arguments).args([
                "--to",
                "rootfs",
                "-o",
                "x.tar",
                "--report",
                "report.json",
                "--retries",
                "0",
            ]);
            let done = run(command.args(more));
            assert_ne!(done.code, 0, "{arguments:?}");
            let told = fs::read_to_string(&report).unwrap_or_default();
            assert!(!done.stderr.contains(SECRET) && !told.contains(SECRET), "{arguments:?}: {}{told}", done.stderr);
            assert!(done.stderr.contains("error"), "{}", done.stderr);
            let _ = fs::remove_file(&report);
        }
    }
}

#[test]
fn what_a_server_repeats_of_our_credentials_is_not_shown() {
    // "user:c0rrect-h0rse"
    let basic = "dXNlcjpjMHJyZWN0LWgwcnNl";
    for padding in [0, 270, 280, 290] {
        let fake = Fake::start(move |request| match request.header("authorization") {
            None => Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\""),
            Some(shown) => {
                let message = format!("{}{shown} or c0rrect-h0rse is bad", "-".repeat(padding));
                Answer::json(403, json!({ "errors": [{ "code": "DENIED", "message": message }] }))
            }
        });
        let place = scratch();
        let mut command = program();
        command.current_dir(place.path()).env("HOME", place.path());
        command.env("APPTAINER_DOCKER_USERNAME", "user").env("APPTAINER_DOCKER_PASSWORD", SECRET);
        command.args([
            &*format!("docker://{}/x:1", fake.host()),
            "--to",
            "rootfs",
            "-o",
            "x.tar",
            "--report",
            "r.json",
        ]);
        let done = run(&mut command);
        assert_eq!(done.code, 6, "{}", done.stderr);
        let told = fs::read_to_string(place.path().join("r.json")).unwrap();
        for part in [SECRET, basic, &basic[..8], "c0rrect"] {
            assert!(!done.stderr.contains(part) && !told.contains(part), "{part} is in {}{told}", done.stderr);
        }
        assert!(done.stderr.contains("DENIED"), "{}", done.stderr);
    }
}
