//! What a MedPerf `container_config.yaml` says about places inside an image: `mount_path` and `type` of every volume of
//! every task.
//!
//! The idea to hold: whatever a reader could take in two ways is refused with its line, for the client that reads the same
//! file takes it in one way only. Size and the number of volumes have bounds. Nothing here does I/O.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{BindKind, BindTarget, EntryPath, Quoted, YamlNode, load_yaml};

/// The longest file that is read, in bytes: real ones have a few thousand.
pub(crate) const BYTES_MAX: u64 = 1 << 20;
/// How many volumes are looked at, aliases counted as what they stand for.
const VOLUMES_MAX: usize = 10_000;

/// The places that the volumes of a configuration are bound to, each once, in the order of the file.
///
/// # Errors
/// [`ErrorKind::Usage`] with the line, where the text is not YAML, does not have the form of a configuration, or asks for
/// two things at one place.
pub(crate) fn bind_targets(text: &[u8]) -> Result<Vec<BindTarget>> {
    if text.len() as u64 > BYTES_MAX {
        return Err(refuse(format!("the file is longer than {BYTES_MAX} bytes"), "name a container_config.yaml"));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = text[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        refuse(format!("line {line}: this is not UTF-8 text"), "name a container_config.yaml")
    })?;
    read(text).map_err(|error| error.hint(FORM))
}

fn read(text: &str) -> Result<Vec<BindTarget>> {
    let root = load_yaml(text)?;
    if root.is_null() {
        return Err(refuse(format!("line {}: the configuration is not a mapping", root.line), FORM));
    }
    root.mapping("the configuration")?;
    let tasks = root.get("tasks")?.ok_or_else(|| {
        refuse("the configuration has no tasks", "name a container_config.yaml, whose volumes stand below \"tasks\"")
    })?;
    let mut targets = Targets::default();
    for (task, body) in tasks.entries("tasks")? {
        for group in ["input_volumes", "output_volumes"] {
            let below = format!("tasks.{}.{group}", task.name());
            let Some(volumes) = body.mapping(&format!("tasks.{}", task.name()))?.get(group)? else { continue };
            for (name, volume) in volumes.entries(&below)? {
                targets.add(name, volume, &format!("{below}.{}", name.name()))?;
            }
        }
    }
    targets.finish()
}

/// The places found so far, and where each was asked for.
#[derive(Default)]
struct Targets {
    list: Vec<BindTarget>,
    by_path: BTreeMap<EntryPath, usize>,
    volumes: usize,
}

impl Targets {
    fn add(&mut self, name: &YamlNode, volume: &YamlNode, place: &str) -> Result<()> {
        self.volumes += 1;
        if self.volumes > VOLUMES_MAX {
            return Err(refuse(format!("the configuration has more than {VOLUMES_MAX} volumes"), FORM));
        }
        let volume = volume.mapping(place)?;
        let kind = volume.required("type", place, name.line)?;
        let kind = match kind.text() {
            Some("directory") => BindKind::Directory,
            Some("file") => BindKind::File,
            _ => {
                let message = format!("line {}: {place}.type is neither \"directory\" nor \"file\"", kind.line);
                return Err(refuse(message, FORM));
            }
        };
        let path = volume.required("mount_path", place, name.line)?;
        let origin = format!("line {}, {place}", path.line);
        let path = mount_path(path, place)?;
        match self.by_path.get(&path).map(|&index| &self.list[index]) {
            Some(other) if other.kind != kind => {
                let message =
                    format!("{origin}: {path} is a {}, and a {} at {}", kind.word(), other.kind.word(), other.origin);
                Err(refuse(message, "give the two volumes different mount_paths"))
            }
            Some(_) => Ok(()),
            None => {
                self.by_path.insert(path.clone(), self.list.len());
                self.list.push(BindTarget { path, kind, origin });
                Ok(())
            }
        }
    }

    /// Nothing can lie inside of a file.
    fn finish(self) -> Result<Vec<BindTarget>> {
        for inner in &self.list {
            let mut above = inner.path.clone();
            while let Some((parent, _)) = above.clone().split_last() {
                above = EntryPath::parse(parent).map_err(|error| refuse(error, FORM))?;
                let Some(outer) = self.by_path.get(&above).map(|&index| &self.list[index]) else { continue };
                if outer.kind == BindKind::File {
                    let message = format!(
                        "{}: {} lies below {}, a file at {}",
                        inner.origin, inner.path, outer.path, outer.origin
                    );
                    return Err(refuse(
                        message,
                        "give the two volumes mount_paths of which neither is inside the other",
                    ));
                }
            }
        }
        Ok(self.list)
    }
}

fn mount_path(node: &YamlNode, place: &str) -> Result<EntryPath> {
    let wrong = |why: &str| {
        refuse(format!("line {}: {place}.mount_path {why}", node.line), "write an absolute path inside the image")
    };
    let text = node.text().ok_or_else(|| wrong("is not text"))?;
    let quoted = Quoted(text.as_bytes());
    if !text.starts_with('/') {
        return Err(wrong(&format!("is not absolute: {quoted}")));
    }
    let path = EntryPath::parse(text.as_bytes()).map_err(|error| wrong(&format!("cannot be: {error}")))?;
    if path.is_root() { Err(wrong("is the root itself")) } else { Ok(path) }
}

/// What every complaint about the form says.
const FORM: &str = "every volume below tasks.TASK.input_volumes and tasks.TASK.output_volumes has a mount_path, which is \
                    absolute, and a type, which is \"directory\" or \"file\"";

fn refuse(message: impl std::fmt::Display, hint: &str) -> Error {
    Error::new(ErrorKind::Usage, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A real configuration in the form that MedPerf's examples have.
    const REAL: &str = "\
container_type: DockerImage
image: mlcommons/chestxray-prep:0.0.1
tasks:
  prepare:
    input_volumes:
      data_path:
        mount_path: /mlcommons/volumes/raw_data
        type: directory
      parameters_file: { mount_path: /mlcommons/volumes/parameters/parameters.yaml, type: file }
    output_volumes:
      output_path: &out
        mount_path: /mlcommons/volumes/data
        type: directory
  statistics:
    entrypoint: python3 /app/statistics.py
    input_volumes:
      data_path: *out
    output_volumes:
  sanity_check:
additional_files: {}
";

    fn found(text: &str) -> Result<Vec<(String, &'static str)>> {
        let targets = bind_targets(text.as_bytes())?;
        Ok(targets.iter().map(|target| (target.path.to_string(), target.kind.word())).collect())
    }

    fn refused(text: &str) -> String {
        let error = bind_targets(text.as_bytes()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        assert!(error.remedy().is_some(), "{text}");
        error.to_string()
    }

    fn volume(body: &str) -> String {
        format!("tasks:\n  t:\n    input_volumes:\n      v:\n{body}\n")
    }

    #[test]
    fn every_volume_of_every_task_is_found_once() {
        let expected = [
            ("\"mlcommons/volumes/raw_data\"", "directory"),
            ("\"mlcommons/volumes/parameters/parameters.yaml\"", "file"),
            ("\"mlcommons/volumes/data\"", "directory"),
        ];
        assert_eq!(found(REAL).unwrap(), expected.map(|(path, kind)| (path.to_string(), kind)));
        let first = &bind_targets(REAL.as_bytes()).unwrap()[0];
        assert_eq!(first.origin, "line 7, tasks.prepare.input_volumes.data_path");
        assert_eq!(found("tasks: {}").unwrap(), []);
        assert_eq!(found("tasks:").unwrap(), []);
        assert_eq!(
            found("{\"tasks\": {\"t\": {\"input_volumes\": {\"v\": {\"mount_path\": \"/a\", \"type\": \"file\"}}}}}")
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        for (text, message) in [
            (String::new(), "the file is empty"),
            ("- a".into(), "line 1: the configuration is not a mapping"),
            ("image: x".into(), "the configuration has no tasks"),
            ("tasks: [a]".into(), "line 1: tasks is not a mapping"),
            ("tasks:\n  t: 3".into(), "line 2: tasks.t is not a mapping"),
            ("tasks:\n  t:\n    input_volumes: x".into(), "line 3: tasks.t.input_volumes is not a mapping"),
            ("a: b: c".into(), "line 1, column 5: this is not YAML"),
            ("tasks:\n\tt: 1".into(), "line 2"),
            ("a: 1\n---\nb: 2\n".into(), "a second document begins"),
            ("tasks:\n  <<: *x".into(), "line 2"),
            ("d: &d {}\ntasks:\n  <<: *d".into(), "line 3: merge keys (<<) are not read"),
            ("tasks: {}\ntasks: {}".into(), "lines 1 and 2 both have tasks"),
            (volume("        type: file"), "line 4: tasks.t.input_volumes.v has no mount_path"),
            (volume("        mount_path: /a"), "line 4: tasks.t.input_volumes.v has no type"),
            (volume("        mount_path: /a\n        type: dir"), "line 6: tasks.t.input_volumes.v.type is neither"),
            (
                volume("        mount_path: a\n        type: file"),
                "line 5: tasks.t.input_volumes.v.mount_path is not absolute: \"a\"",
            ),
            (
                volume("        mount_path: /..\n        type: file"),
                "line 5: tasks.t.input_volumes.v.mount_path is the root itself",
            ),
            (
                volume("        mount_path: [/a]\n        type: file"),
                "line 5: tasks.t.input_volumes.v.mount_path is not text",
            ),
            (volume("        mount_path:\n        type: file"), "mount_path is not text"),
            (
                volume(
                    "        mount_path: /a\n        type: file\n      w:\n        mount_path: /a/\n        type: directory",
                ),
                "line 8, tasks.t.input_volumes.w: \"a\" is a directory, and a file at line 5, tasks.t.input_volumes.v",
            ),
            (
                volume(
                    "        mount_path: /a\n        type: file\n      w:\n        mount_path: /a/b/c\n        type: directory",
                ),
                "line 8, tasks.t.input_volumes.w: \"a/b/c\" lies below \"a\", a file at line 5",
            ),
        ] {
            let said = refused(&text);
            assert!(said.contains(message), "{text}\n{said}");
        }
        assert!(bind_targets(b"tasks: {}\n# \xff").unwrap_err().to_string().contains("line 2: this is not UTF-8"));
    }

    #[test]
    fn a_file_may_lie_in_a_directory_that_is_bound_too() {
        let text = volume(
            "        mount_path: /a\n        type: directory\n      w:\n        mount_path: /a/b\n        type: file",
        );
        assert_eq!(found(&text).unwrap().len(), 2);
    }

    /// Ten aliases of ten aliases of …: 10^30 nodes if anyone wrote them out.
    #[test]
    fn bombs_are_harmless() {
        let mut text = String::from("a0: &a0 {mount_path: /a, type: file}\n");
        for level in 1..30 {
            let one = |number: usize| format!("k{number}: *a{}", level - 1);
            let all: Vec<String> = (0..10).map(one).collect();
            text.push_str(&format!("a{level}: &a{level} {{{}}}\n", all.join(", ")));
        }
        assert_eq!(found(&format!("{text}tasks: *a29")).unwrap(), [], "tasks without volumes");
        assert!(refused(&format!("{text}tasks: {{t: {{input_volumes: *a29}}}}")).contains("has no type"));
        let wide: String = (0..200).map(|n| format!("  v{n}: &v{n} {{mount_path: /m{n}, type: file}}\n")).collect();
        let tasks: String = (0..200).map(|n| format!("  t{n}: {{input_volumes: *volumes}}\n")).collect();
        assert!(refused(&format!("x: &volumes\n{wide}tasks:\n{tasks}")).contains("more than 10000 volumes"));
        assert!(refused(&"[".repeat(100_000)).contains("recursion limit exceeded"));
        let mut chain = String::from("a0: &a0 {}\n");
        (1..2000).for_each(|n| chain.push_str(&format!("a{n}: &a{n} {{x: *a{}}}\n", n - 1)));
        assert!(refused(&chain).contains("more than 64 levels"));
        assert!(refused("tasks: &t {t: *t}").contains("line 1"));
        assert!(refused(&format!("tasks: {{}}\n#{}", "x".repeat(1 << 20))).contains("longer than 1048576 bytes"));
    }
}
