//! Transcripts of the program: arguments, exit code, stdout, stderr.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use serde_json::Value;

/// A directory of its own to run the program in, with nothing of this machine's environment.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).expect("a file");
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).expect("a report")).expect("JSON")
    }

    fn command(&self, line: &str) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_sif-convert"));
        command.args(words(line)).current_dir(self.0.path()).env_clear();
        command
    }

    /// What a run said and how it ended.
    fn transcript(&self, line: &str) -> String {
        transcript(&mut self.command(line))
    }

    fn spawn(&self, line: &str) -> Child {
        // A test that runs in the background of a script has SIGINT ignored, and what is ignored is inherited.
        let mut command = std::process::Command::new("/usr/bin/env");
        command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_sif-convert")]);
        command.args(words(line)).current_dir(self.0.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program")
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').filter(|word| !word.is_empty())
}

fn transcript(command: &mut assert_cmd::Command) -> String {
    let output = command.output().expect("the program runs");
    let mut text = format!("exit {}\n", output.status.code().expect("an exit code"));
    for (stream, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let said = String::from_utf8(bytes).expect("UTF-8");
        if !said.is_empty() {
            let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
            let _ = write!(text, "-- {stream}\n{}\n", lines.join("\n"));
        }
    }
    text
}

/// Whether `path` is named by a report as where something lies.
fn is_named(value: &Value, path: &Path) -> bool {
    value.as_str().is_some_and(|text| Path::new(text).file_name() == path.file_name() && Path::new(text).is_absolute())
}

#[test]
fn help_is_for_newcomers() {
    assert_snapshot!(Place::new().transcript("--help"), @r#"
    exit 0
    -- stdout
    Converts Docker and OCI images for Singularity and Apptainer, and into each other: in one pass,
    without root, without a daemon, and with the same bytes every time.

    The kind of SOURCE is detected from its content, not from its name. It is one of
      PATH                         an archive from "docker save", an OCI archive or an OCI layout
                                   directory; compressed or not; a SIF; a squashfs; the tar or
                                   the directory of a root file system
      docker-archive:PATH[:TAG]    these three say what PATH must be, and which image of it is meant
      oci-archive:PATH[:REF]
      oci:DIR[:REF]
      -                            an archive from standard input, from a pipe of any kind
      docker-daemon:NAME[:TAG]     an image of the local Docker or Podman engine, by name or ID
      docker://HOST/NAME[:TAG]     an image on a registry; short names as Docker has them
      oras://HOST/NAME[:TAG]       a SIF on a registry
      https://HOST/PATH            an archive or a SIF on a web server; logins come from ~/.netrc

    A file that is named like one of the commands below is written ./inspect or docker-archive:inspect.

    Usage: sif-convert [OPTIONS] --to <FORMAT> <SOURCE>
           sif-convert <COMMAND>

    Commands:
      build        Write a SIF, with the options and the order of "singularity build"
      batch        Convert many images: of a list, or the tags of a repository
      pull         Fetch or convert what a URI names, with the options of "apptainer pull"
      push         Push a SIF as it is, signatures included, with the options of "apptainer push"
      attach       Attach SIFs to a hosted image: one place for Docker and for Singularity
      shim         Write "singularity" and "apptainer" programs that hand images to this one
      inspect      Show what a source holds: images, tags, platform, config, layers, warnings
      ls           List the files in a source, without unpacking it
      cat          Print files of a source, without unpacking it
      diff         Compare two sources: files, owners, contents, config; exit code 1 where they differ
      verify       Check that a SIF, archive or layout is intact
      sign         Sign a SIF, as "apptainer sign --key" does
      decrypt      Decrypt an encrypted SIF
      cache        Manage the cache
      config       Show the settings that are in effect, and where each comes from
      completions  Print a completion script for a shell
      man          Print a manual page: "sif-convert man | man -l -"

    Arguments:
      <SOURCE>
              Where the image comes from: a file, a directory, "-", or TRANSPORT:…

    Options:
      -t, --to <FORMAT>
              What to write

              sif: a SIF file, which Singularity and Apptainer run.
              sif-rootfs: one flattened tar with all that Singularity expects inside.
              rootfs: one flattened tar, the image's files and nothing else.
              squashfs: a file system to mount, the image's files and nothing else.
              dir: a directory (sandbox), which Singularity and Apptainer run and build from.
              oci: an OCI layout directory; the image is added where there is one.
              oci-archive: the same as one tar.
              docker-archive: a tar that docker load takes.
              additional-files: a folder, SOURCE, as a reproducible .tar.gz for a MedPerf submission.

              [possible values: sif, sif-rootfs, rootfs, squashfs, dir, oci, oci-archive,
              docker-archive, additional-files]

      -o, --output <FILE>
              Where to write it; "-" is standard output [default: here, named after SOURCE]

              docker://HOST/NAME[:TAG] pushes an image (oci, docker-archive),
              oras://HOST/NAME:TAG a sif.

          --input-command <COMMAND>
              Run this shell command and read the archive that it prints; SOURCE is "-"

              Nothing is written unless it exits with 0, as with set -o pipefail: gpg, ssh, curl.

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Which image:
          --image <NAME|ID|DIGEST|NUMBER>
              Which image, where the source holds several

          --platform <OS/ARCH[/VARIANT]>
              Which platform, where the image has several [default: linux on this CPU]

          --tmpdir <DIR>
              Where an unnamed temporary file goes when one is needed [default: see Environment, then
              /tmp]

    Registries:
          --insecure <HOST[:PORT]>
              Speak plain HTTP to this registry; may be repeated

          --mirror <HOST=MIRROR>
              Ask MIRROR first for images of HOST, and HOST where it fails; may be repeated

          --cache <DIR>
              Keep downloads and compressed layers in this directory, for later conversions; many may
              share it [default: none]

          --retries <N>
              Retries after a transient failure [default: 5]

          --timeout <SECONDS>
              Give up when a server sends nothing for this long [default: 60]

    Output:
          --compression <KIND[:LEVEL]>
              none, gzip[:LEVEL] or zstd[:LEVEL]; for oci and oci-archive, applies to layers not yet
              compressed [default: gzip for sif, none for layers, else by the output's name]

          --block-size <BYTES>
              Bytes in a block of a sif or squashfs, a power of two from 4096 to 1048576 [default:
              131072]

          --for <RUNTIME>
              Add what a runtime expects inside of a squashfs: plain, enroot or charliecloud [default:
              plain]

          --with-sbom
              Carry the SBOM and the provenance that BuildKit attached to the image (sif)

      -f, --force
              Replace an output that exists, at once and whole

          --if-exists <WHAT>
              What to do when the output exists [default: fail]

              reuse: use it if it is whole and is what this call would make; else fail.
              update: use it on the same terms; else replace it.

              [possible values: fail, replace, reuse, update]

          --mode <OCTAL>
              Permissions of the output, octal [default: 666, for a sif 777, less the umask]

      -j, --jobs <N>
              How many threads may work at once [default: as many as this machine runs]

          --max-memory <SIZE>
              Refuse an image whose list of files takes more memory than this [default: 2G]

              A number of bytes, or with K, M or G. A file takes about 700 bytes and
              three times its name: 2G is enough for 2 million files.

    Checks and records:
          --expect-digest <DIGEST>
              Fail unless the manifest, index or config (image ID) has this digest

          --expect-sha256 <HEX>
              Fail unless the input file or stream has this SHA-256

          --verify-key <PUB.pem>
              Refuse an image without a signature by this public key, in PEM; may be repeated: by any of
              them

              Signatures of cosign in either form, on the registry or in the OCI layout or archive
              that holds the image, over the digest that was asked for. Nothing of the image is
              read before.

          --verify-root <ROOTS.pem>
              Refuse an image without a signature whose certificate was issued under these roots

              All certificates in this file, in PEM, are believed. A certificate must be valid now,
              or with --rekor-key at the time that Rekor noted.

          --certificate-identity <ID>
              The e-mail address or URI that the certificate must have been issued to

          --certificate-oidc-issuer <URL>
              The URL of the OIDC issuer that must have vouched for the identity

          --rekor-key <PUB.pem>
              Require that Rekor, whose public key this is, recorded the signature; may be repeated: any
              of them

          --policy <FILE>
              Obey a policy.json of containers/image, for example /etc/containers/policy.json

          --report <FILE>
              Write a JSON report, on success and on failure; "-" is standard output

          --provenance <FILE>
              Write what the output was made from as an in-toto statement (SLSA provenance), on success;
              "-" is standard output

    Inside the root (sif, sif-rootfs and dir):
          --xattrs <WHICH>
              Which extended attributes are kept [default: none]

              [possible values: none, capabilities, all]

          --all-root
              Give everything to root (0:0); from a directory, for any format

          --fix-perms
              Let the owner read and write all files and enter all directories

          --keep-devices
              Keep device nodes, which only root can unpack

          --workdir[=<DIR>]
              Change to WORKDIR in the runscript, as Docker does; with =DIR, set WORKDIR (of an image,
              too)

          --mkdir <PATH>
              Create a directory where the image has none, to bind to; may be repeated

          --mkfile <PATH>
              Create an empty file where the image has none, to bind to; may be repeated

          --medperf-config <FILE>
              Create what a MedPerf container_config.yaml binds to: mount_path and type of every volume

          --label <KEY=VALUE>
              Add a label (to an image, too); may be repeated

          --arch <ARCH>
              What the programs inside run on, whatever the image says of it (sif)

          --reference <NAME>
              Record this name in the definition and labels [default: the image ID]

    Encryption (sif):
          --encrypt-passphrase-file <FILE>
              Encrypt the SIF with the passphrase in this file

              For apptainer run --passphrase. The same image, options and passphrase give the same
              bytes.

          --encrypt-pem <FILE>
              Encrypt the SIF for the owner of this public RSA key in PEM

              For apptainer run --pem-path. No two outputs are the same.

          --decrypt-passphrase-file <FILE>
              Open an encrypted SIF with the passphrase in this file

          --decrypt-pem <FILE>
              Open an encrypted SIF with this private RSA key in PEM

    The image (oci, oci-archive and docker-archive):
          --flatten
              Make one layer of all

          --tag <NAME[:TAG]>
              What the image is called in the output; may be repeated [default: as in the source]

    How it runs (all formats but rootfs, and squashfs without --for):
          --entrypoint <WORDS>
              Set ENTRYPOINT, as a JSON list or as a line for /bin/sh -c; "" for none. Resets CMD

          --cmd <WORDS>
              Set CMD, as a JSON list or as a line for /bin/sh -c; "" for none

          --env <NAME=VALUE>
              Set an environment variable; may be repeated

          --user <USER[:GROUP]>
              Set USER

          --keep-singularity
              Keep what Singularity added to the root of a SIF, squashfs or directory

    Signatures (sif):
          --sign-key <KEY.pem>
              Sign with this private key: PEM of Ed25519, ECDSA (P-256, P-384) or RSA, encrypted or not;
              cosign's too

          --sign-passphrase-file <FILE>
              Where the passphrase of that key is: the first line of a file; /dev/fd/N is descriptor N
              [default: ask]

          --sign-detached <FILE>
              Write the signature of the SIF alone into this file, for others who convert the same image

          --signature <FILE|referrer>
              Add a signature that was made elsewhere, if it is of the very SIF that is written

              The word "referrer" stands for the one that is attached to the image on its registry
              (sif-convert attach --signature); a file of that name is written ./referrer.

    Messages (all on standard error):
          --progress <HOW>
              How progress is shown [default: auto]

              auto: a bar on a terminal, else plain. plain: one line at each phase and every few
              seconds.
              json: one object a line.

              [possible values: auto, bar, plain, json, none]

      -q, --quiet
              Print errors only

      -v, --verbose
              Also print how long each phase and each request took

    Examples:
      docker save ubuntu:24.04 -o ubuntu.tar
      sif-convert ubuntu.tar --to sif                      writes ubuntu.sif, to be run
      sif-convert ubuntu.tar --to sif-rootfs               writes ubuntu.sif-rootfs.tar
      sif-convert ubuntu.tar --to rootfs -o - | tar -t     lists the image's files
      sif-convert two.tar --image app:1.0 --to sif-rootfs --compression zstd
      sif-convert ubuntu.tar --to oci --flatten            writes ubuntu.oci, an image of one layer
      sif-convert docker-daemon:ubuntu:24.04 --to sif      asks the local Docker or Podman engine
      gpg -d app.tar.gpg | sif-convert - --to sif -o app.sif
      sif-convert build app.sif docker-archive:app.tar     as singularity build is called
      sif-convert docker://ghcr.io/org/app:1.0 --to sif    writes app_1.0.sif
      sif-convert batch images.txt --to sif --out sifs     converts the images of a list
      sif-convert weights --to additional-files            packs a folder, prints its SHA-256
      sif-convert inspect ubuntu.tar                       shows what an image holds
      sif-convert ls app.sif /etc                          lists files; sif-convert cat prints one
      sif-convert diff app.tar app.sif                     compares files and config
      sif-convert verify app.sif                           checks that it is intact
      sif-convert sign app.sif --key key.pem               signs it, for apptainer verify --key
      sif-convert push app.sif oras://ghcr.io/org/app:1    pushes it as it is

    Environment:
      APPTAINER_TMPDIR, SINGULARITY_TMPDIR, TMPDIR     where --tmpdir is not given, in this order
      CONVERT_PROGRESS                                 where --progress is not given
      APPTAINER_ENCRYPTION_PASSPHRASE, APPTAINER_ENCRYPTION_PEM_PATH, APPTAINER_ENCRYPTION_PEM_DATA
                                                       (or SINGULARITY_…) the key for build --encrypt
      DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG,      where the engine of docker-daemon: is, as for
      DOCKER_TLS_VERIFY, DOCKER_CERT_PATH              the docker command
      CONTAINER_HOST, XDG_RUNTIME_DIR                  where Podman is, when there is no Docker
      APPTAINER_DOCKER_USERNAME, APPTAINER_DOCKER_PASSWORD (or SINGULARITY_…)
                                                       the login for a registry; else those of
                                                       docker login, podman login or apptainer
      DOCKER_CONFIG, REGISTRY_AUTH_FILE                where these are
      HTTP_PROXY, HTTPS_PROXY, NO_PROXY                how registries are reached
      SSL_CERT_FILE, SSL_CERT_DIR                      whom to trust instead of the system's roots
      XDG_CONFIG_HOME                                  where sif-convert/config.toml is, which wins over
                                                       /etc/sif-convert.toml
      SOURCE_DATE_EPOCH                                the time, in seconds, of what is made rather than
                                                       read; default: the image's creation

    Exit codes:
      0         done: the output is complete
      1         anything not below
      2         wrong use
      3         the source is not there or cannot be read
      4         the source is not a valid image, or holds something unsupported
      5         a digest or hash does not match
      6         daemon, network, authentication
      7         no space
      8         the output cannot be written, or exists
      70        a bug of ours
      130, 143  interrupted, terminated: nothing is left behind
    "#);
}

#[test]
fn short_help_fits_a_screen() {
    assert_snapshot!(Place::new().transcript("-h"), @r#"
    exit 0
    -- stdout
    Converts Docker and OCI images for Singularity and Apptainer

    Usage: sif-convert [OPTIONS] --to <FORMAT> <SOURCE>
           sif-convert <COMMAND>

    Commands:
      build        Write a SIF, with the options and the order of "singularity build"
      batch        Convert many images: of a list, or the tags of a repository
      pull         Fetch or convert what a URI names, with the options of "apptainer pull"
      push         Push a SIF as it is, signatures included, with the options of "apptainer push"
      attach       Attach SIFs to a hosted image: one place for Docker and for Singularity
      shim         Write "singularity" and "apptainer" programs that hand images to this one
      inspect      Show what a source holds: images, tags, platform, config, layers, warnings
      ls           List the files in a source, without unpacking it
      cat          Print files of a source, without unpacking it
      diff         Compare two sources: files, owners, contents, config; exit code 1 where they differ
      verify       Check that a SIF, archive or layout is intact
      sign         Sign a SIF, as "apptainer sign --key" does
      decrypt      Decrypt an encrypted SIF
      cache        Manage the cache
      config       Show the settings that are in effect, and where each comes from
      completions  Print a completion script for a shell
      man          Print a manual page: "sif-convert man | man -l -"

    Options:
      -t, --to <FORMAT>    What to write [possible values: sif, sif-rootfs, rootfs, squashfs, dir, oci,
                           oci-archive, docker-archive, additional-files]
      -o, --output <FILE>  Where to write it; "-" is standard output [default: here, named after SOURCE]
      -f, --force          Replace an output that exists, at once and whole
      -q, --quiet          Print errors only
      -v, --verbose        Also print how long each phase and each request took
      -h, --help           Print help (see more with '--help')
      -V, --version        Print version

    Examples:
      sif-convert docker://ubuntu:24.04 --to sif           writes ubuntu_24.04.sif
      sif-convert app.tar --to sif -o app.sif              app.tar is from docker save
      sif-convert inspect app.sif                          shows what it holds
    "sif-convert --help" has all options, sources and more examples.
    "#);
}

#[test]
fn inspect_has_help() {
    assert_snapshot!(Place::new().transcript("inspect -h"), @r#"
    exit 0
    -- stdout
    Show what a source holds: images, tags, platform, config, layers, warnings

    Usage: sif-convert inspect [OPTIONS] <SOURCE>

    Arguments:
      <SOURCE>  Where the image comes from: a file, a directory, "-", or TRANSPORT:…

    Options:
          --json  Print JSON instead of words
      -h, --help  Print help (see more with '--help')

    Which image:
          --image <NAME|ID|DIGEST|NUMBER>  Which image, where the source holds several
          --platform <OS/ARCH[/VARIANT]>   Which platform, where the image has several [default: linux
                                           on this CPU]
          --tmpdir <DIR>                   Where an unnamed temporary file goes when one is needed
                                           [default: see Environment, then /tmp]

    Registries:
          --insecure <HOST[:PORT]>  Speak plain HTTP to this registry; may be repeated
          --mirror <HOST=MIRROR>    Ask MIRROR first for images of HOST, and HOST where it fails; may be
                                    repeated
          --cache <DIR>             Keep downloads and compressed layers in this directory, for later
                                    conversions; many may share it [default: none]
          --retries <N>             Retries after a transient failure [default: 5]
          --timeout <SECONDS>       Give up when a server sends nothing for this long [default: 60]

    Messages (all on standard error):
          --progress <HOW>  How progress is shown [default: auto] [possible values: auto, bar, plain,
                            json, none]
      -q, --quiet           Print errors only
      -v, --verbose         Also print how long each phase and each request took
    "#);
}

#[test]
fn version() {
    let expected = format!("exit 0\n-- stdout\nsif-convert {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Place::new().transcript("--version"), expected);
}

#[test]
fn completions_and_manual_are_generated() {
    let place = Place::new();
    for (line, sign) in [
        ("completions bash", "complete -F _sif_convert sif-convert"),
        ("completions zsh", "#compdef sif-convert"),
        ("completions fish", "complete -c sif-convert"),
        ("man", ".TH sif-convert 1"),
    ] {
        let said = place.transcript(line);
        assert!(said.starts_with("exit 0\n-- stdout\n") && said.contains(sign), "{line}: {said}");
        assert!(!said.contains("-- stderr"), "{line}: {said}");
    }
    assert!(place.transcript("completions tcsh").starts_with("exit 2\n"));
    assert_eq!(place.transcript("man --directory new/man1"), "exit 0\n");
    let page = std::fs::read_to_string(place.path("new/man1/sif-convert-build.1")).unwrap();
    assert!(page.contains(".TH sif-convert-build 1"), "{page}");
    let said = place.transcript("man --directory new/man1/sif-convert.1/x");
    assert!(
        said.starts_with("exit 8\n-- stderr\nerror: writing manual pages into \"new/man1/sif-convert.1/x\": "),
        "{said}"
    );
}

#[test]
fn wrong_environment_is_wrong_use() {
    let place = Place::new();
    let mut command = place.command("x.tar --to rootfs");
    assert_snapshot!(transcript(command.env("SOURCE_DATE_EPOCH", "yesterday")), @r#"
    exit 2
    -- stderr
    error: environment SOURCE_DATE_EPOCH: "yesterday" is not a number of seconds
    hint: set it to whole seconds since 1970, or unset it
    "#);
    let mut command = place.command("x.tar --to rootfs");
    assert_snapshot!(transcript(command.env("CONVERT_PROGRESS", "loud")), @r#"
    exit 2
    -- stderr
    error: environment CONVERT_PROGRESS: "loud" is not a way to show progress
    hint: set it to auto, bar, plain, json or none
    "#);
}

#[test]
fn a_source_that_is_not_there() {
    let place = Place::new();
    for line in ["/no/such.tar --to sif-rootfs -q", "inspect /no/such.tar", "oci:/no/such --to rootfs -q"] {
        let said = place.transcript(line);
        assert!(said.starts_with("exit 3\n-- stderr\nerror: ") && said.contains("/no/such"), "{line}: {said}");
        assert!(said.lines().last().is_some_and(|last| last.starts_with("hint: ")), "{line}: {said}");
        assert!(place.names().is_empty(), "{line} left {:?}", place.names());
    }
}

#[test]
fn a_source_that_is_no_image() {
    let place = Place::new();
    place.put("text", b"this is not an archive, however long one looks at it\n");
    for line in ["text --to sif-rootfs -q", "inspect text -q"] {
        let said = place.transcript(line);
        assert!(said.starts_with("exit 4\n-- stderr\nerror: ") && said.contains("\"text\""), "{line}: {said}");
    }
    assert_eq!(place.names(), ["text"]);
}

#[test]
fn progress_takes_the_form_that_was_asked_for() {
    let place = Place::new();
    let said = |options: &str| place.transcript(&format!("/no/such.tar --to rootfs {options}"));
    assert!(said("").contains("-- stderr\n   0 s  opening the source\nerror: "), "{}", said(""));
    assert!(said("--progress bar").contains("   0 s  opening the source\n"), "no terminal, no bar");
    assert!(said("--progress none").contains("-- stderr\nerror: "));
    assert!(said("-q").contains("-- stderr\nerror: "));
    let json = said("--progress json");
    let events: Vec<Value> =
        json.lines().skip(2).map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let kinds: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, ["progress", "error"]);
    assert_eq!((&events[0]["phase"], &events[1]["exit_code"]), (&"open".into(), &3.into()));
}

#[test]
fn a_failure_is_reported() {
    let place = Place::new();
    place.put("r.json", b"{\n  \"schema_version\": 1, \"status\": \"ok\"}");
    place.put("text", b"no archive");
    place.command("text --to sif-rootfs -q --report r.json").assert().code(4);
    let report = place.json("r.json");
    assert_eq!((&report["schema_version"], &report["status"]), (&1.into(), &"error".into()));
    assert_eq!(report["error"]["exit_code"], 4);
    assert!(report["error"]["message"].as_str().is_some_and(|message| message.contains("\"text\"")), "{report}");
    assert!(report["error"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{report}");
    assert_eq!((&report["source"]["spelling"], &report["source"]["size"]), (&"text".into(), &10.into()));
    assert!(is_named(&report["source"]["path"], Path::new("text")), "{report}");
    assert_eq!((&report["image"], &report["output"]), (&Value::Null, &Value::Null));
    assert_eq!(report["arguments"][2], "sif-rootfs");
    assert_eq!(place.names(), ["r.json", "text"]);
}

#[test]
fn wrong_use_is_reported() {
    let place = Place::new();
    for line in ["x.tar --report=a.json --bad", "x.tar --to rootfs -j 0 --report a.json"] {
        place.command(line).assert().code(2);
        let report = place.json("a.json");
        assert_eq!((&report["error"]["kind"], &report["error"]["exit_code"]), (&"usage".into(), &2.into()), "{line}");
        std::fs::remove_file(place.path("a.json")).expect("the report");
    }
    let output = place.command("x.tar --to nothing --report -").output().expect("the program runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is the report and nothing else");
    assert_eq!(report["status"], "error");
}

#[test]
fn a_report_that_cannot_be_written_is_found_out_first() {
    assert_snapshot!(Place::new().transcript("/no/such.tar --to rootfs --report no/r.json"), @r#"
    exit 8
    -- stderr
    error: report "no/r.json": its directory does not exist
    hint: name a file in a directory that exists with --report
    "#);
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let place = Place::new();
    let mut command = place.command("--to rootfs -q");
    let said = transcript(command.arg("\x1b[2Jx\nerror: forged"));
    assert!(!said.contains('\x1b') && !said.contains("\nerror: forged"), "{said:?}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = Place::new().spawn("completions bash");
    // The script is larger than what is read here; closing the pipe early must not make the program fail.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

/// A report that goes to a pipe which nobody reads blocks the program before it begins; a signal must end it all the same,
/// by itself or by the exit code that stands for it.
#[test]
fn signals_end_a_blocked_program() {
    for (signal, code) in
        [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143), (rustix::process::Signal::HUP, 143)]
    {
        let place = Place::new();
        let pipe = place.path("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).expect("a pipe");
        let mut child = place.spawn("/no/such.tar --to rootfs --report pipe");
        let pid = rustix::process::Pid::from_child(&child);
        let began = Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        rustix::process::kill_process(pid, signal).expect("a signal");
        let status = child.wait().expect("the program ends");
        let by_itself = std::os::unix::process::ExitStatusExt::signal(&status) == Some(signal.as_raw());
        assert!(by_itself || status.code() == Some(code), "{signal:?}: {status:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
        assert_eq!(place.names(), ["pipe"]);
    }
}

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("README.md")
}

/// The first two cells of each row of the table under `heading` in README.md.
fn readme_table(heading: &str) -> Vec<(String, String)> {
    let readme = readme();
    let (_, section) = readme.split_once(&format!("\n{heading}\n")).expect("the heading");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let cells = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_string());
        (cells.next().expect("a cell"), cells.next().expect("a second cell"))
    });
    cells.collect()
}

fn help() -> String {
    let output = Place::new().command("--help").output().expect("the program runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn readme_and_help_list_the_same_exit_codes() {
    let help = help();
    let (_, codes) = help.split_once("\nExit codes:\n").expect("help lists exit codes");
    let codes = codes.lines().map(|line| line.trim().split_once("  ").expect("a code and its meaning"));
    let codes: Vec<(String, String)> = codes.map(|(code, text)| (code.to_string(), text.trim().to_string())).collect();
    assert!(codes.len() >= 10, "{codes:?}");
    assert_eq!(readme_table("## Exit codes"), codes);
}

#[test]
fn readme_has_every_format_and_no_option_that_is_not_there() {
    let help = help();
    let values = help.split_once("[possible values: ").and_then(|(_, rest)| rest.split_once(']')).expect("formats").0;
    let formats = readme_table("### Formats");
    for format in values.split(',').map(str::trim) {
        assert!(formats.iter().any(|(name, _)| *name == format!("`{format}`")), "README.md has no row for {format}");
    }
    // Options of other programs.
    let others = ["--bench", "--locked", "--path"];
    let of_command = |command: &&str| {
        let output = Place::new().command(&format!("{command} --help")).output().expect("the program runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let known = options(&(help + &["batch", "ls", "verify"].iter().map(of_command).collect::<String>()));
    let named = options(&readme());
    let unknown: Vec<&String> = named.iter().filter(|o| !known.contains(*o) && !others.contains(&o.as_str())).collect();
    assert!(named.len() > 10 && unknown.is_empty(), "README.md names options that help does not: {unknown:?}");
}

/// The long options that a text names.
fn options(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_option = |word: &&str| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic));
    words.filter(is_option).map(str::to_string).chain(["--help".to_string()]).collect()
}
