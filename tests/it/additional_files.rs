//! `convert FOLDER --to additional-files`: GNU tar and Python's tarfile unpack what it writes, and the bytes depend on
//! nothing but the folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::run::{Run, host_has, is_root, leave_out, program, run, scratch, skip};
use serde_json::Value;

/// A folder, and a place for outputs beside it.
struct Place(tempfile::TempDir);

impl Place {
    /// What people share: weights, parameters, a script, links, names of any kind.
    fn new() -> Self {
        let place = Place(scratch());
        place.shell(
            "mkdir -p folder/weights/deep 'folder/ün i' folder/empty
             head -c 3000000 /dev/urandom >folder/weights/model.bin
             head -c 40000 /dev/zero | tr '\\0' w >folder/weights/deep/text
             ln folder/weights/model.bin folder/weights/again.bin
             ln -s ../weights/model.bin folder/weights/link
             ln -s weights folder/current
             echo 'a: 1' >folder/parameters.yaml
             printf '#!/bin/sh\\necho hi\\n' >folder/run.sh && chmod 755 folder/run.sh
             echo x >\"folder/ün i/$(printf 'new\\nline')\"
             n=$(printf 'n%.0s' $(seq 200)); mkdir -p folder/$n/$n && echo deep >folder/$n/$n/$n
             touch -d @1500000000 folder/parameters.yaml folder/run.sh",
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn shell(&self, script: &str) -> String {
        let done = run(Command::new("sh").args(["-euc", script]).current_dir(self.0.path()));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    }

    fn pack(&self, arguments: &[&str]) -> Run {
        run(program().current_dir(self.0.path()).args(["folder", "--to", "additional-files"]).args(arguments))
    }
}

fn succeeded(run: &Run) -> String {
    assert_eq!(run.code, 0, "{}", run.stderr);
    String::from_utf8(run.stdout.clone()).unwrap()
}

/// What is below a directory: kind, executable or not, link target or content's hash, and inode sharing.
fn tree(place: &Place, directory: &str) -> String {
    place.shell(&format!(
        "cd {directory} && find . -mindepth 1 -printf '%y %Y %n %p -> %l\\0' | sort -z | tr '\\0' '\\n'
         find . -type f -print0 | sort -z | xargs -0 sha256sum
         find . -type f -perm /100 | sort"
    ))
}

#[test]
fn gnu_tar_and_python_unpack_it_whole() {
    let place = Place::new();
    succeeded(&place.pack(&[]));
    let expected = tree(&place, "folder");
    place.shell("mkdir by-tar && tar -xzf additional_files.tar.gz -C by-tar");
    assert_eq!(tree(&place, "by-tar"), expected, "GNU tar");
    assert_eq!(place.shell("stat -c %Y by-tar/parameters.yaml"), "1500000000\n", "times are kept");
    assert!(place.shell("tar -tzf additional_files.tar.gz").starts_with("./\n./current\n"), "named as tar names them");
    place.shell("gzip -t additional_files.tar.gz");
    if !host_has("python3") {
        return skip("python3 is missing");
    }
    // As the client unpacks it, as a stream, and as newer Pythons do by default.
    let has_filters = place.shell("python3 -c 'import tarfile; print(hasattr(tarfile, \"data_filter\"))'") == "True\n";
    for (name, mode, filter) in [("plain", "r:gz", ""), ("stream", "r|gz", ""), ("data", "r:gz", ", filter='data'")] {
        if !filter.is_empty() && !has_filters {
            leave_out("python3 is older than 3.11.4: its tarfile has no data filter");
            continue;
        }
        let script = format!(
            "import tarfile\n\
             with tarfile.open('additional_files.tar.gz', '{mode}') as t: t.extractall('{name}'{filter})"
        );
        fs::write(place.path("unpack.py"), script).unwrap();
        place.shell(&format!("mkdir {name} && python3 unpack.py"));
        assert_eq!(tree(&place, name), expected, "Python's tarfile, {name}");
    }
}

#[test]
fn the_sum_is_printed_and_reported() {
    let place = Place::new();
    let sums = succeeded(&place.pack(&["--report", "r.json"]));
    fs::write(place.path("sums"), &sums).unwrap();
    assert_eq!(place.shell("sha256sum --check --strict sums"), "additional_files.tar.gz: OK\n");
    let hex = sums.split(' ').next().unwrap();
    let report: Value = serde_json::from_slice(&fs::read(place.path("r.json")).unwrap()).unwrap();
    assert_eq!((&report["status"], &report["output"]["sha256"]), (&"ok".into(), &hex.into()));
    assert_eq!(
        (&report["source"]["kind"], &report["output"]["format"]),
        (&"folder".into(), &"additional-files".into())
    );
    assert_eq!(report["output"]["size"], fs::metadata(place.path("additional_files.tar.gz")).unwrap().len());
    // Standard output takes one thing.
    let done = place.pack(&["--report", "-", "-o", "other.tar.gz"]);
    let report: Value = serde_json::from_slice(&done.stdout).expect("the report and nothing else");
    assert_eq!(report["output"]["sha256"], hex, "{}", done.stderr);
    let streamed = place.pack(&["-o", "-"]);
    assert!(streamed.stdout == fs::read(place.path("additional_files.tar.gz")).unwrap(), "{}", streamed.stderr);
    assert!(streamed.stderr.contains(hex), "{}", streamed.stderr);
}

#[test]
fn bytes_depend_on_the_folder_alone() {
    let place = Place::new();
    fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let expected = succeeded(&place.pack(&["-o", "x.tar.gz"])).replace("x.tar.gz", "").trim().to_string();
    // Made again in another order, under another umask, by names that sort otherwise on the way.
    place.shell(
        "umask 077; mkdir again && cd folder && find . -type d | sort -r | (cd ../again; xargs -d '\\n' mkdir -p)
         find . -type f -print0 | sort -rz | (cd ../folder; xargs -0 -I{} cp -p --no-preserve=mode,ownership {} ../again/{})
         cd ../again && rm weights/again.bin && ln weights/model.bin weights/again.bin
         cp -P --preserve=timestamps ../folder/weights/link weights/link
         cp -P --preserve=timestamps ../folder/current current
         chmod u+x run.sh && touch -r ../folder/empty empty && mv ../folder ../first && mv ../again ../folder",
    );
    let same = |what: &str, done: Run| {
        let found = succeeded(&done);
        assert_eq!(found.split(' ').next().unwrap(), expected, "{what} changes the bytes");
    };
    same("a copy", place.pack(&["-o", "y.tar.gz"]));
    for jobs in ["1", "2", "5"] {
        same("the number of threads", place.pack(&["-f", "-o", "y.tar.gz", "-j", jobs]));
    }
    let changed = |name: &str, value: &str| {
        let mut command = program();
        command.current_dir(place.0.path()).args(["folder/", "--to", "additional-files", "-f", "-o", "y.tar.gz"]);
        run(command.env(name, value))
    };
    same("the time zone", changed("TZ", "Pacific/Kiritimati"));
    same("the locale", changed("LC_ALL", "tr_TR.UTF-8"));
    let shell = |script: &str| {
        run(Command::new("sh").args(["-euc", script, env!("CARGO_BIN_EXE_convert")]).current_dir(place.0.path()))
    };
    same("the umask", shell("umask 777; \"$0\" folder --to additional-files -f -o y.tar.gz"));
    same("the working directory", shell("cd folder; \"$0\" . --to additional-files -f -o ../y.tar.gz"));
    if !is_root() || !host_has("setpriv") {
        return skip("comparing root with another user needs root and setpriv");
    }
    place.shell(
        "chmod -R a+rX . && chmod 777 . && cp \"$CONVERT\" convert"
            .replace("$CONVERT", env!("CARGO_BIN_EXE_convert"))
            .as_str(),
    );
    same(
        "the user",
        shell("setpriv --reuid 1000 --regid 1000 --clear-groups ./convert folder --to additional-files -o u.tar.gz"),
    );
}

#[test]
fn source_date_epoch_bounds_times() {
    let place = Place::new();
    let with_epoch = |output: &str| {
        let mut command = program();
        command.current_dir(place.0.path()).args(["folder", "--to", "additional-files", "-o", output]);
        succeeded(&run(command.env("SOURCE_DATE_EPOCH", "1600000000")))
    };
    let first = with_epoch("a.tar.gz");
    place.shell("touch folder/weights/model.bin folder/weights folder");
    assert_eq!(with_epoch("b.tar.gz")[..64], first[..64], "times after it play no part");
    let listed = place.shell("TZ=UTC tar --full-time -tvzf a.tar.gz");
    assert!(listed.contains("2017-07-14 02:40:00 ./parameters.yaml"), "{listed}");
    assert!(listed.contains("2020-09-13 12:26:40 ./weights/model.bin"), "{listed}");
    assert!(listed.lines().all(|line| line.contains(" 0/0 ")), "{listed}");
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let place = Place::new();
    let refused = |arguments: &[&str], code: i32, message: &str| {
        let done = place.pack(arguments);
        assert!(done.code == code && done.stderr.contains(message), "{arguments:?}: {} {}", done.code, done.stderr);
        assert!(done.stderr.lines().last().unwrap().starts_with("hint: "), "{}", done.stderr);
    };
    refused(&["-o", "folder/x.tar.gz"], 2, "would lie in the folder that is packed");
    refused(&["--report", "folder/r.json"], 2, "would lie in the folder that is packed");
    refused(&["--workdir"], 2, "option --workdir has no effect on additional-files");
    refused(&["--expect-sha256", &"0".repeat(64)], 2, "option --expect-sha256 has no effect");
    refused(&["--compression", "zstd"], 2, "a .tar.gz is not compressed with zstd");
    place.shell("mkfifo folder/pipe && ln -s /etc folder/etc");
    refused(&[], 4, "named pipe \"pipe\", link \"etc\" to \"/etc\"");
    place.shell("rm folder/pipe folder/etc");
    let other = |source: &str| run(program().current_dir(place.0.path()).args([source, "--to", "additional-files"]));
    assert_eq!(other("nowhere").code, 3);
    assert_eq!(other("folder/run.sh").code, 2);
    assert_eq!(names(place.0.path()), ["folder"], "nothing is left");
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|each| each.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_output_that_exists_is_kept_replaced_or_reused() {
    let place = Place::new();
    succeeded(&place.pack(&["--mode", "600"]));
    let output = place.path("additional_files.tar.gz");
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(place.pack(&[]).code, 8);
    let reused = place.pack(&["--if-exists", "reuse"]);
    assert!(succeeded(&reused).len() > 64 && reused.stderr.contains("reused "), "{}", reused.stderr);
    fs::write(place.path("folder/parameters.yaml"), "a: 2").unwrap();
    let other = place.pack(&["--if-exists", "reuse"]);
    assert!(other.code == 8 && other.stderr.contains("is not what would be written"), "{}", other.stderr);
    succeeded(&place.pack(&["--force"]));
    succeeded(&place.pack(&["--if-exists", "update"]));
    assert_eq!(names(place.0.path()), ["additional_files.tar.gz", "folder"]);
}

#[test]
fn many_at_once_make_one() {
    let place = Place::new();
    for how in ["--if-exists=reuse", "--force"] {
        let start = |_| {
            let mut command = program();
            command.current_dir(place.0.path()).args(["folder", "--to", "additional-files", "-q", "-j1", how]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..12).map(start).collect();
        let sums: Vec<Vec<u8>> = children
            .into_iter()
            .map(|child| child.wait_with_output().unwrap())
            .map(|output| {
                assert!(output.status.success(), "{how}");
                output.stdout
            })
            .collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]));
        fs::write(place.path("sums"), &sums[0]).unwrap();
        place.shell("sha256sum --check --strict sums && rm sums additional_files.tar.gz");
    }
    assert_eq!(names(place.0.path()), ["folder"]);
}
