//! The shell texts that are the same in every image. Runtimes of the last years run the `actions` themselves, in an
//! embedded shell; old ones execute these files with the image's `/bin/sh`, which may be dash, bash or busybox ash.
//!
//! Variables of the scripts' own begin with `_singularity_`, because the image's environment is in the same scope.

/// Reads all of `env/*.sh` in the order of their names.
macro_rules! read_environment {
    () => {
        r#"for _singularity_file in /.singularity.d/env/*.sh; do
    if [ -f "$_singularity_file" ]; then
        . "$_singularity_file"
    fi
done
unset _singularity_file
"#
    };
}

/// `actions/exec`
pub(super) const EXEC: &str = concat!("#!/bin/sh\n", read_environment!(), "exec \"$@\"\n");

/// `actions/run`
pub(super) const RUN: &str = concat!(
    "#!/bin/sh\n",
    read_environment!(),
    r#"if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    for _singularity_app in "$SINGULARITY_APPNAME" singularity; do
        if [ -x "/scif/apps/$_singularity_app/scif/runscript" ]; then
            exec "/scif/apps/$_singularity_app/scif/runscript" "$@"
        fi
    done
    printf 'no runscript for the app %s\n' "$SINGULARITY_APPNAME" >&2
    exit 1
fi
if [ -x /.singularity.d/runscript ]; then
    exec /.singularity.d/runscript "$@"
fi
printf 'this image has no runscript: starting /bin/sh\n' >&2
exec /bin/sh "$@"
"#
);

/// `actions/shell`
pub(super) const SHELL: &str = concat!(
    "#!/bin/sh\n",
    read_environment!(),
    r#"if [ -n "${SINGULARITY_SHELL:-}" ] && [ -x "$SINGULARITY_SHELL" ]; then
    exec "$SINGULARITY_SHELL" "$@"
fi
if [ -x /bin/bash ]; then
    SHELL=/bin/bash
    PS1="Apptainer ${APPTAINER_NAME:-${SINGULARITY_NAME:-}}:\\w> "
    export SHELL PS1
    exec /bin/bash --norc "$@"
fi
if [ -x /bin/sh ]; then
    SHELL=/bin/sh
    export SHELL
    exec /bin/sh "$@"
fi
printf 'this image has no /bin/sh\n' >&2
exit 1
"#
);

/// `actions/start`
pub(super) const START: &str = concat!(
    "#!/bin/sh\n",
    "# The instance waits, stopped, until its namespace is ready.\n",
    "kill -CONT 1\n",
    read_environment!(),
    r#"if [ -x /.singularity.d/startscript ]; then
    exec /.singularity.d/startscript "$@"
fi
"#
);

/// `actions/test`
pub(super) const TEST: &str = concat!(
    "#!/bin/sh\n",
    read_environment!(),
    r#"if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    for _singularity_app in "$SINGULARITY_APPNAME" singularity; do
        if [ -x "/scif/apps/$_singularity_app/scif/test" ]; then
            exec "/scif/apps/$_singularity_app/scif/test" "$@"
        fi
    done
    printf 'no tests for the app %s\n' "$SINGULARITY_APPNAME" >&2
    exit 1
fi
if [ -x /.singularity.d/test ]; then
    exec /.singularity.d/test "$@"
fi
printf 'this image has no test: running true\n' >&2
exec /bin/sh -c true
"#
);

/// `env/01-base.sh`
pub(super) const ENVIRONMENT_FIRST: &str =
    "#!/bin/sh\n# Read first; the image's ENV follows in 10-docker2singularity.sh.\n";

/// `env/90-environment.sh`
pub(super) const ENVIRONMENT: &str = "#!/bin/sh\n# The %environment of a definition file goes here.\n";

/// `env/95-apps.sh`: the environment of a SCIF app.
pub(super) const ENVIRONMENT_APPS: &str = r#"#!/bin/sh
# The environment of the app that is asked for with --app.
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    export SINGULARITY_APPNAME
    if [ ! -d "/scif/apps/$SINGULARITY_APPNAME" ]; then
        printf 'this image has no app %s\n' "$SINGULARITY_APPNAME" >&2
        exit 1
    fi
    SCIF_APPS=/scif/apps
    SCIF_APPROOT="/scif/apps/$SINGULARITY_APPNAME"
    export SCIF_APPS SCIF_APPROOT
    PATH="$SCIF_APPROOT:/scif/apps/singularity:$PATH"
    if [ -d "$SCIF_APPROOT/bin" ]; then
        PATH="$SCIF_APPROOT/bin:$PATH"
    fi
    if [ -d "$SCIF_APPROOT/lib" ]; then
        LD_LIBRARY_PATH="$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        export LD_LIBRARY_PATH
    fi
    if [ -f "$SCIF_APPROOT/scif/env/01-base.sh" ]; then
        . "$SCIF_APPROOT/scif/env/01-base.sh"
    elif [ -f /scif/apps/singularity/scif/env/01-base.sh ]; then
        . /scif/apps/singularity/scif/env/01-base.sh
    fi
    if [ -f "$SCIF_APPROOT/scif/env/90-environment.sh" ]; then
        . "$SCIF_APPROOT/scif/env/90-environment.sh"
    elif [ -f /scif/apps/singularity/scif/env/90-environment.sh ]; then
        . /scif/apps/singularity/scif/env/90-environment.sh
    fi
    export PATH
fi
"#;

/// `env/99-base.sh`. The runtime adds the variables of `--env` right after a file of this name.
pub(super) const ENVIRONMENT_BASE: &str = r#"#!/bin/sh
# Libraries that the runtime binds into the container come last.
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
PS1="${PS1:-Apptainer> }"
export LD_LIBRARY_PATH PS1
"#;

/// `env/99-runtimevars.sh`. New runtimes read a text of their own under this name.
pub(super) const ENVIRONMENT_RUNTIME: &str = r#"#!/bin/sh
# PATH as asked for on the command line.
if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"
fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then
    PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"
fi
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PATH"
fi
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
"#;

/// `startscript`: what an instance runs. Docker images have none.
pub(super) const STARTSCRIPT: &str = "#!/bin/sh\n# An instance of this image starts nothing of its own.\n";
