//! What `sif-rootfs` and `sif` add to an image, so that the rest can be compared with the image itself.

use super::entry::{MADE, When};
use super::listing::{Listing, Node, Path, What, file, made_directory, parts, show};

/// What `sif-rootfs` and `sif` may add to any image.
const ADDED_DIRECTORIES: [(&str, u32); 10] = [
    (".singularity.d", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];
const ADDED_LINKS: [(&str, &str); 6] = [
    ("singularity", ".singularity.d/runscript"),
    (".run", ".singularity.d/actions/run"),
    (".exec", ".singularity.d/actions/exec"),
    (".test", ".singularity.d/actions/test"),
    (".shell", ".singularity.d/actions/shell"),
    ("environment", ".singularity.d/env/90-environment.sh"),
];

/// Takes away what was added, after a look at what must be there.
pub fn subtract(expected: &mut Listing, found: &mut Listing) -> Result<(), String> {
    for path in ["etc/hosts", "etc/resolv.conf"] {
        let path = parts(path.as_bytes());
        let found = found.names.remove(&path).map(|id| found.nodes[id].what.clone());
        expected.names.remove(&path);
        if found != Some(file(b"")) {
            return Err(format!("{} is {found:?}", show(&path)));
        }
    }
    for (name, target) in ADDED_LINKS {
        let path = parts(name.as_bytes());
        if found.node(&path).map(|node| &node.what) != Some(&What::Symlink(target.into())) {
            return Err(format!("{name} does not lead to {target}"));
        }
        found.names.remove(&path);
        expected.names.remove(&path);
    }
    let inside = |path: &Path| path.len() > 1 && path[0] == b".singularity.d";
    for script in ["actions/run", "env/10-docker2singularity.sh", "runscript", "labels.json", "Singularity"] {
        let path = parts(format!(".singularity.d/{script}").as_bytes());
        found.node(&path).ok_or_else(|| format!("there is no {}", show(&path)))?;
    }
    found.names.retain(|path, _| !inside(path));
    for (name, mode) in ADDED_DIRECTORIES {
        let path = parts(name.as_bytes());
        let made = found.node(&path) == Some(&Node { mode, time: When::At(MADE), ..made_directory() });
        if made && !expected.names.contains_key(&path) {
            found.names.remove(&path);
        }
    }
    Ok(())
}
