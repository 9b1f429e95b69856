//! Images that Docker builds, saves and runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::run::{self, convert_to_stdout, host_has, skip};

/// An image that Docker builds and runs: BusyBox, files that come and go from layer to layer, and a config that is hard to
/// quote.
pub const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /data/sub && echo one >/data/one && echo two >/data/sub/two && ln /data/one /data/hard && ln -s sub /data/link
RUN echo root:x:0:0:root:/root:/bin/sh >/etc/passwd && chmod 4755 /data/one && chown 12:34 /data/sub/two
RUN rm -r /data/sub && mkdir /data/sub && echo three >/data/sub/three
RUN rm /data/one && mkfifo /data/fifo && echo written >/data/link/through
RUN rm /data/link && mkdir /data/link && touch /data/link/inside && mv /data/hard /data/moved
RUN printf '#!/bin/sh\nenv | grep ^T_ | sort\nfor a in "$@"; do printf "<%%s>" "$a"; done\n' >/bin/show && chmod 755 /bin/show
ENV T_PLAIN=plain T_SPACE="two  words" T_QUOTE="it's \"quoted\"" T_DOLLAR="a\$HOME\`id\`" T_EMPTY=
LABEL org.example.one="1" org.example.quote="say \"hi\""
ENTRYPOINT ["/bin/show", "fixed word"]
CMD ["it's", "", "$HOME", "-n", "*"]
"#;

/// Held by whoever builds or removes an image: a build fails when the layer that it found in the cache goes with the last
/// image that had it.
static BUILDS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    BUILDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is an engine; where there is none, what calls it is skipped.
pub fn answers() -> bool {
    let answers = host_has("docker") && run::run(Command::new("docker").arg("info")).code == 0;
    if !answers {
        skip("no Docker engine answers");
    }
    answers
}

pub struct DockerImage {
    pub name: String,
    pub place: tempfile::TempDir,
}

impl DockerImage {
    /// Builds the image of [`DOCKERFILE`] and saves it as `image.tar`.
    pub fn build(name: &str) -> Option<Self> {
        Self::build_of(name, DOCKERFILE)
    }

    /// The same of another text; a static `busybox` is beside it.
    pub fn build_of(name: &str, dockerfile: &str) -> Option<Self> {
        if !answers() {
            return None;
        }
        let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists())
        else {
            skip("there is no static busybox: apt-get install busybox-static");
            return None;
        };
        let place = run::scratch();
        fs::create_dir(place.path().join("context")).unwrap();
        fs::copy(busybox, place.path().join("context/busybox")).unwrap();
        fs::write(place.path().join("context/Dockerfile"), dockerfile).unwrap();
        let image = DockerImage { name: format!("sif-convert-test/{name}:1"), place };
        image.docker(&["build", "--quiet", "--tag", &image.name, "context"]);
        image.docker(&["save", "--output", "image.tar", &image.name]);
        Some(image)
    }

    /// What a command of Docker's that must succeed prints.
    pub fn docker(&self, arguments: &[&str]) -> Vec<u8> {
        let _alone = matches!(arguments, ["build" | "rmi", ..]).then(alone);
        let mut command = Command::new("docker");
        // The classic builder needs no plugin.
        let command = command.env("DOCKER_BUILDKIT", "0").current_dir(self.place.path()).args(arguments);
        let done = run::run(command.stdin(Stdio::null()));
        assert_eq!(done.code, 0, "docker {arguments:?}: {}", done.stderr);
        done.stdout
    }

    pub fn archive(&self) -> PathBuf {
        self.place.path().join("image.tar")
    }

    pub fn convert(&self, format: &str) -> Vec<u8> {
        let made = convert_to_stdout(&self.archive(), format, &[]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        made.stdout
    }
}

impl Drop for DockerImage {
    fn drop(&mut self) {
        let _alone = alone();
        let _ = Command::new("docker").args(["rmi", "--force", &self.name]).output();
    }
}
