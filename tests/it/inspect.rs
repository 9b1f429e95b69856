//! What `inspect` shows of images and of SIFs.

use std::fs;

use serde_json::{Value, json};

use crate::support::fake::{Fake, Repository};
use crate::support::pack::{self, Squeeze};
use crate::support::{layer, run};

/// A directory with an image that has a history, and a SIF made of it.
fn place() -> tempfile::TempDir {
    let place = run::scratch();
    let layers = [layer::tar_of(&[]), layer::tar_of(&[])];
    let mut config = pack::config(&layers);
    config["config"] = json!({
        "Entrypoint": ["/bin/app", "--flag"], "Cmd": ["one"], "Env": ["A=b c", "PATH=/bin"], "User": "7:8",
        "WorkingDir": "/work", "Labels": { "org.example.name": "app" },
    });
    config["history"] = json!([
        { "created_by": "/bin/sh -c #(nop) ADD file:1 in / " },
        { "created_by": "ENV A=b c", "empty_layer": true },
        { "created_by": format!("RUN /bin/sh -c make {} # buildkit", "and make ".repeat(20)) },
    ]);
    fs::write(place.path().join("app.tar"), pack::docker_archive_of(&config, &layers, Squeeze::Gzip)).unwrap();
    said(&place, "app.tar --to sif --workdir");
    place
}

fn said(place: &tempfile::TempDir, line: &str) -> String {
    let done = run::run(run::program().current_dir(place.path()).args(line.split(' ')));
    assert_eq!(done.code, 0, "{line}: {}", done.stderr);
    String::from_utf8(done.stdout).unwrap()
}

fn json_of(place: &tempfile::TempDir, source: &str) -> Value {
    serde_json::from_str(&said(place, &format!("inspect --json {source}"))).unwrap()
}

#[test]
fn layers_are_a_table_of_80_columns() {
    let place = place();
    let page = said(&place, "inspect app.tar");
    let rows: Vec<&str> = page.lines().skip_while(|line| !line.contains("MADE BY")).take(3).collect();
    assert!(rows.iter().all(|row| row.chars().count() <= 80), "{page}");
    assert!(rows[1].ends_with("  ADD file:1 in /") && rows[1].contains("  gzip  "), "{page}");
    assert!(rows[2].contains("  RUN make and make ") && rows[2].ends_with("..."), "{page}");
    let layers = &json_of(&place, "app.tar")["images"][0]["layers"];
    assert_eq!(layers[0]["created_by"], "/bin/sh -c #(nop) ADD file:1 in / ");
    assert!(rows[2].contains(&layers[1]["diff_id"].as_str().unwrap()["sha256:".len()..][..12]), "{page}");
}

/// Layers that are not fetched are shown as their media types say.
#[test]
fn layers_on_a_registry_are_as_their_manifest_says() {
    let registry = Repository::of(&[layer::tar_of(&[])]);
    let server = Fake::start(move |request| registry.answer(request));
    let host = server.host();
    let page = said(&run::scratch(), &format!("inspect --insecure {host} docker://{host}/x:1"));
    let rows: Vec<&str> = page.lines().skip_while(|line| !line.contains("MADE BY")).skip(1).collect();
    assert!(rows[0].contains("  gzip  "), "{page}");
}

#[test]
fn a_sif_shows_what_the_image_showed() {
    let place = place();
    let (image, sif) = (json_of(&place, "app.tar"), json_of(&place, "app.sif"));
    let (theirs, ours) = (&image["images"][0], &sif["images"][0]);
    for key in ["id", "created", "platform"] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    for key in ["entrypoint", "cmd", "user", "working_dir"] {
        assert_eq!(theirs["config"][key], ours["config"][key], "{key}");
    }
    assert_eq!(ours["config"]["labels"]["org.example.name"], "app");
    assert!(ours["config"]["env"].as_array().unwrap().contains(&json!("A=b c")));
    assert_eq!((&image["sif"], &sif["sif"]["signatures"]), (&Value::Null, &json!([])));
    let objects = sif["sif"]["objects"].as_array().unwrap();
    let partition = objects.iter().find(|object| object["kind"].as_str().unwrap().starts_with("FS ")).unwrap();
    let length = fs::metadata(place.path().join("app.sif")).unwrap().len();
    assert!(partition["size"].as_u64().unwrap() < length && sif["source"]["size"] == length);
    let page = said(&place, "inspect app.sif");
    for part in ["entrypoint   \"/bin/app\" \"--flag\"", "signatures   none", "oci-config.json", "launched by"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let table = page.lines().skip_while(|line| !line.contains("HOLDS"));
    assert!(!page.contains("layers") && table.map(|line| line.chars().count()).all(|columns| columns <= 80), "{page}");
}

/// Signatures of Apptainer are listed, with what they are over.
#[test]
fn signatures_are_listed() {
    let Some(oracles) = run::oracles() else { return };
    let place = place();
    let script = "openssl genrsa -out key.pem 2048 2>/dev/null && apptainer sign --key key.pem app.sif";
    let done = run::run(oracles.run(place.path()).args(["sh", "-c", script]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let signatures = json_of(&place, "app.sif")["sif"]["signatures"].clone();
    assert_eq!((&signatures[0]["over"], &signatures[0]["fingerprint"]), (&json!("group 1"), &Value::Null));
    let page = said(&place, "inspect app.sif");
    assert!(page.contains("over group 1 by SHA256:") && page.contains(", not checked"), "{page}");
}
