//! The same image, options and version give the same bytes: whatever the number of threads, the machine's settings, who
//! runs it, from where, and what the input is called.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::large::layers;
use crate::support::pack::{Squeeze, docker_archive, sha256};
use crate::support::run::{host_has, is_root, program, run, skip};

const FORMATS: [&str; 2] = ["rootfs", "sif-rootfs"];

/// A directory that anyone may enter, with the image and a copy of the program.
fn prepare(squeeze: Squeeze) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(directory.path().join("image.tar"), docker_archive(&layers(), squeeze)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_convert"), directory.path().join("convert")).unwrap();
    directory
}

fn digest(command: &mut Command) -> String {
    let run = run(command);
    assert_eq!(run.code, 0, "{command:?}: {}", run.stderr);
    sha256(&run.stdout)
}

fn plain(directory: &Path, format: &str) -> Command {
    let mut command = program();
    command.current_dir(directory).args(["image.tar", "--to", format, "-o", "-"]);
    command
}

#[test]
fn bytes_do_not_depend_on_threads_or_settings() {
    for squeeze in [Squeeze::Not, Squeeze::Gzip, Squeeze::Zstd] {
        let directory = prepare(squeeze);
        for format in FORMATS {
            let expected = digest(&mut plain(directory.path(), format));
            let same = |what: &str, command: &mut Command| {
                assert_eq!(digest(command), expected, "{format}, layers {squeeze:?}: {what} changes the bytes");
            };
            same("running it twice", &mut plain(directory.path(), format));
            for jobs in ["1", "2", "7"] {
                same("the number of threads", plain(directory.path(), format).args(["--jobs", jobs]));
                let output = directory.path().join("out.tar");
                let mut to_file = program();
                to_file.current_dir(directory.path()).args(["image.tar", "--to", format, "--force", "--jobs", jobs]);
                assert_eq!(run(to_file.arg("-o").arg(&output)).code, 0);
                assert_eq!(sha256(&fs::read(&output).unwrap()), expected, "{format}: a file, {jobs} threads");
            }
            same("the time zone", plain(directory.path(), format).env("TZ", "Pacific/Kiritimati"));
            same("the locale", plain(directory.path(), format).env("LANG", "tr_TR.UTF-8").env("LC_ALL", "tr_TR.UTF-8"));
            same("HOME and USER", plain(directory.path(), format).env("HOME", "/nowhere").env("USER", "someone"));
        }
    }
}

#[test]
fn bytes_do_not_depend_on_where_and_how_the_image_is_read() {
    let directory = prepare(Squeeze::Gzip);
    let here = directory.path();
    for format in FORMATS {
        let expected = digest(&mut plain(here, format));
        let from = |path: &str, arguments: &[&str]| digest(program().current_dir("/").arg(path).args(arguments));
        let to_stdout = ["--to", format, "-o", "-"];
        let absolute = here.join("image.tar");
        assert_eq!(from(absolute.to_str().unwrap(), &to_stdout), expected, "an absolute path");
        fs::copy(&absolute, here.join("other name.img")).unwrap();
        assert_eq!(from(here.join("other name.img").to_str().unwrap(), &to_stdout), expected, "another name");
        let output = here.join(format!("{format}.tar"));
        let made = run(program().arg(&absolute).args(["--to", format, "-o"]).arg(&output));
        assert_eq!(made.code, 0, "{}", made.stderr);
        assert_eq!(sha256(&fs::read(&output).unwrap()), expected, "an output file");
    }
}

#[test]
fn bytes_do_not_depend_on_umask_or_user() {
    let directory = prepare(Squeeze::Not);
    let here = directory.path();
    for format in FORMATS {
        let expected = digest(&mut plain(here, format));
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(here);
            command.args(["-c", script, "sh", format]);
            digest(&mut command)
        };
        for umask in ["000", "077", "777"] {
            let script = format!("umask {umask}; exec ./convert image.tar --to \"$1\" -o -");
            assert_eq!(shell(&script), expected, "umask {umask}");
        }
        if !is_root() || !host_has("setpriv") {
            skip("comparing root with another user needs root and setpriv");
            continue;
        }
        let script = "exec setpriv --reuid 1000 --regid 1000 --clear-groups ./convert image.tar --to \"$1\" -o -";
        assert_eq!(shell(script), expected, "uid 1000");
    }
}

#[test]
fn bytes_do_not_depend_on_a_pipe() {
    let directory = prepare(Squeeze::Gzip);
    for format in FORMATS {
        let expected = digest(&mut plain(directory.path(), format));
        let mut piped = program();
        piped.args(["-", "--to", format, "-o", "-"]).stdin(File::open(directory.path().join("image.tar")).unwrap());
        assert_eq!(digest(&mut piped), expected, "standard input");
    }
}

/// A converted image, wrapped as an image of one layer and converted again, is itself.
#[test]
fn a_rootfs_is_its_own_rootfs() {
    let directory = prepare(Squeeze::Not);
    let first = run(&mut plain(directory.path(), "rootfs"));
    assert_eq!(first.code, 0, "{}", first.stderr);
    fs::write(directory.path().join("image.tar"), docker_archive(std::slice::from_ref(&first.stdout), Squeeze::Not))
        .unwrap();
    let second = run(&mut plain(directory.path(), "rootfs"));
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(first.stdout == second.stdout, "{} and {}", sha256(&first.stdout), sha256(&second.stdout));
}
