//! A real Apptainer on a site without overlay and underlay, called with what the MedPerf client gives it.
//!
//! Needs Docker and `scripts/oracles setup`; without them the test is skipped with a printed reason, and fails under
//! `ORACLES=require`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::docker::DockerImage;
use crate::support::run::{self, program};

/// No /mlcommons, and an entrypoint that is found in WORKDIR only.
const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir /app && printf 'cat /mlcommons/volumes/parameters.yaml /mlcommons/volumes/data/one\necho $* >/mlcommons/volumes/out/made\n' >/app/main.sh
WORKDIR /app
ENTRYPOINT ["sh", "main.sh"]
CMD ["default"]
"#;

const CONFIG: &str = "\
container_type: DockerImage
tasks:
  infer:
    input_volumes:
      data_path: { mount_path: /mlcommons/volumes/data, type: directory }
      parameters_file: { mount_path: /mlcommons/volumes/parameters.yaml, type: file }
    output_volumes:
      output_path: { mount_path: /mlcommons/volumes/out, type: directory }
";

/// A copy of the site's configuration, and the client's call.
const RUN: &str = r#"
sed -e 's/^enable overlay = .*/enable overlay = no/' -e 's/^enable underlay = .*/enable underlay = no/' \
    /etc/apptainer/apptainer.conf >conf
[ "$(grep -c '^enable \(overlay\|underlay\) = no$' conf)" = 2 ]
rm -f out/made
apptainer --silent -c conf run -eC --no-mount home,cwd --bind data:/mlcommons/volumes/data:ro \
    --bind out:/mlcommons/volumes/out:rw --bind parameters.yaml:/mlcommons/volumes/parameters.yaml:ro "$1" "$2"
"#;

#[test]
fn it_runs_with_its_binds_where_nothing_can_be_added_to_an_image() {
    let Some(oracles) = run::oracles() else { return };
    let Some(image) = DockerImage::build_of("medperf-binds", DOCKERFILE) else { return };
    let place = image.place.path();
    fs::write(place.join("container_config.yaml"), CONFIG).unwrap();
    fs::write(place.join("parameters.yaml"), "a: 1\n").unwrap();
    for directory in ["data", "out"] {
        fs::create_dir(place.join(directory)).unwrap();
        fs::set_permissions(place.join(directory), fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::write(place.join("data/one"), "one\n").unwrap();
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    let convert = |output: &str, options: &[&str]| {
        let mut command = program();
        command.current_dir(place).arg("build").args(options).args([output, "docker-archive:image.tar"]);
        let done = run::run(&mut command);
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stderr
    };
    let config = ["--medperf-config", "container_config.yaml"];
    convert("plain.sif", &["--workdir"]);
    convert("bound.sif", &[&config[..], &["--workdir"]].concat());
    let warned = convert("lost.sif", &config);
    assert!(warned.contains("convert with --workdir"), "{warned}");
    let call = |sif: &str| run::run(oracles.user(place).args(["sh", "-euc", RUN, "sh", sif, "an argument"]));

    let without = call("plain.sif");
    assert!(without.code != 0 && without.stderr.contains("doesn't exist in container"), "{}", without.stderr);
    let with = call("bound.sif");
    assert_eq!(with.code, 0, "{}", with.stderr);
    assert_eq!(with.stdout, b"a: 1\none\n");
    assert_eq!(fs::read(place.join("out/made")).unwrap(), b"an argument\n");
    assert_ne!(call("lost.sif").code, 0, "the warning is right: main.sh is in WORKDIR only");
}
