//! The archives of `fixtures/archives` are what this file makes. `scripts/gen-fixtures` writes them.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::pack::{Squeeze, config, docker_archive_of};
use crate::support::{case, layer};

/// A small image for the demo: two layers, of which the upper one replaces and removes something of the lower.
const HELLO: &str = r##"
-- layer 0
dir  ./
dir  bin
file bin/hello 755 "#!/bin/sh\necho Hello from a container\n"
link bin/hi -> bin/hello
dir  etc
file etc/motd "This line is replaced by the layer above.\n"
file etc/secret 600 "This file is removed by the layer above.\n"
dir  tmp 1777
-- layer 1
dir  etc
file etc/motd "Layers are applied in order; the last word counts.\n"
file etc/.wh.secret
dir  home
dir  home/user 700 1000:1000
file home/user/notes 600 1000:1000 "Owners, permissions and times are kept.\n"
symlink home/user/motd 777 1000:1000 -> /etc/motd
-- tree
"##;

fn hello() -> Vec<u8> {
    let layers: Vec<Vec<u8>> = case::parse("hello", HELLO).layers.iter().map(layer::tar).collect();
    let mut config = config(&layers);
    config["config"]["Entrypoint"] = json!(["/bin/hello"]);
    config["config"]["Cmd"] = json!(null);
    config["config"]["Labels"] = json!({ "org.opencontainers.image.title": "hello" });
    docker_archive_of(&config, &layers, Squeeze::Not)
}

#[test]
fn archives_are_what_is_committed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives");
    let (path, bytes) = (directory.join("hello.tar"), hello());
    if std::env::var("FIXTURES").as_deref() == Ok("write") {
        fs::create_dir_all(&directory).unwrap();
        fs::write(&path, &bytes).unwrap();
    }
    let committed = fs::read(&path).unwrap_or_default();
    assert!(committed == bytes, "{} is not what tests/it/fixtures.rs makes: run scripts/gen-fixtures", path.display());
}
