//! The texts in the hands of real shells: what comes out is compared byte for byte with what the image says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command as Process, Output};

use super::environment::Environment;
use super::runscript::{self, Command, Workdir};
use super::scripts;
use crate::model::Config;

/// Shells as `argv`. `sh` is there on every system that can build this crate; the others run where they are installed.
fn shells() -> Vec<Vec<&'static str>> {
    let candidates = [vec!["/bin/sh"], vec!["dash"], vec!["bash"], vec!["bash", "--posix"], vec!["busybox", "sh"]];
    let works = |shell: &Vec<&str>| {
        let works = run(shell, &["-c", "exit 7"], Path::new("/")).is_some_and(|output| output.status.code() == Some(7));
        assert!(works || std::env::var_os("ORACLES").is_none_or(|value| value != "require"), "{shell:?} is missing");
        if !works {
            println!("skipped: {shell:?} is not installed");
        }
        works
    };
    candidates.into_iter().filter(works).collect()
}

fn run(shell: &[&str], arguments: &[&str], directory: &Path) -> Option<Output> {
    let mut process = Process::new(shell[0]);
    process.args(&shell[1..]).args(arguments).current_dir(directory);
    process.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/home/user").output().ok()
}

/// Texts that have broken converters, and every control character.
fn nasty() -> Vec<String> {
    let mut texts: Vec<String> = [
        "plain",
        "",
        " ",
        "a b",
        " a  b ",
        "it's",
        "'",
        "''",
        "'\"'\"'",
        "'\\''",
        "\"",
        "\"q\"",
        "$HOME",
        "${X:-y}",
        "$(id)",
        "`id`",
        "$",
        "$$",
        "\\",
        "\\\\",
        "\\n",
        "back\\slash",
        "tail\\",
        "\\'",
        "a\nb",
        "\n",
        "a\n\n",
        "\\\nx",
        "\r",
        "a\r\nb",
        "\r\n",
        "\\\r\n",
        "\t",
        "*",
        "?[a-z]",
        "~",
        "~/x",
        "#c",
        " # c",
        "a;b&c|d>e<f",
        "!hist",
        "%s%d%%",
        "-n",
        "-e",
        "--",
        "-",
        "=",
        "a=b=c",
        "{a,b}",
        "()",
        "export Y=1",
        "$'x'",
        "a'b\"c`d$e\\f",
        "é中😀",
        "\u{80}\u{81}\u{88}\u{90}",
        "āƈ\u{2028}",
        "\u{fffd}",
        "\u{1b}[2J",
        "EOF\n)",
        runscript::MARKER,
        "fi\ndone\nesac",
        "[1, 2]",
        "{\"k\": \"v\"}",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.extend((1..128_u8).map(|byte| format!("a{}b", char::from(byte))));
    texts.push("x'".repeat(50_000));
    texts
}

fn config(execution: serde_json::Value) -> Config {
    Config::parse(serde_json::to_vec(&serde_json::json!({ "config": execution })).unwrap()).unwrap()
}

fn split_nul(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    assert_eq!(parts.pop(), Some(Vec::new()), "the output ends with NUL");
    parts
}

/// Sources `script` after `before` and returns the environment.
fn sourced(shell: &[&str], script: &str, before: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("script"), script).unwrap();
    let text = format!("{before}\n. ./script\nexec /usr/bin/env -0");
    let output = run(shell, &["-c", &text], directory.path()).unwrap();
    assert!(output.stderr.is_empty(), "{shell:?}: {}", output.stderr.escape_ascii());
    split_nul(&output.stdout).into_iter().map(|entry| String::from_utf8(entry).unwrap()).collect()
}

#[test]
fn environment_values_arrive_unchanged() {
    let mut want: Vec<String> = nasty().iter().enumerate().map(|(n, text)| format!("V{n}={text}")).collect();
    want.push("PATH=/a b:$x:'q'".into());
    let script = Environment::of(&config(serde_json::json!({ "Env": want }))).script();
    for shell in shells() {
        let environment = sourced(&shell, &script, "");
        for entry in &want {
            assert!(environment.contains(entry), "{shell:?} lost {entry:?}");
        }
    }
}

#[test]
fn environment_keeps_what_is_set_except_path() {
    let env =
        ["A=image", "B=image", "C=image", "PATH=/image", "HOME=/root", "IFS=,", "OPTIND=x", "PWD=/pwd", "BARE", "SET"];
    let script = Environment::of(&config(serde_json::json!({ "Env": env }))).script();
    for shell in shells() {
        let environment = sourced(&shell, &script, "A=set; B=; SET=set; export A B");
        for entry in ["A=set", "B=image", "C=image", "PATH=/image", "HOME=/home/user", "BARE=", "SET=set", "OPTIND=1"] {
            assert!(environment.contains(&entry.to_owned()), "{shell:?}: {entry} not in {environment:?}");
        }
    }
}

/// Names that some shell holds read-only, or keeps for itself, must not break the names after them.
#[test]
fn names_that_shells_own_do_no_harm() {
    let names = [
        "BASHOPTS",
        "BASH_VERSINFO",
        "DIRSTACK",
        "FUNCNAME",
        "GROUPS",
        "LINENO",
        "PPID",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "UID",
        "EUID",
        "GID",
        "_",
        "PS1",
        "PS4",
        "SHLVL",
        "if",
        "test",
        "set",
    ];
    let mut env: Vec<String> = names.iter().map(|name| format!("{name}=1")).collect();
    env.push("LAST=here".into());
    let script = Environment::of(&config(serde_json::json!({ "Env": env }))).script();
    for shell in shells() {
        assert!(sourced(&shell, &script, "").contains(&"LAST=here".to_owned()), "{shell:?}");
    }
}

/// Runs a runscript; its command is expected to be a `printf '%s\0'`, whose words come back.
fn runscript_words(shell: &[&str], script: &str, arguments: &[String], directory: &Path) -> Vec<String> {
    let path = directory.join("runscript");
    std::fs::write(&path, script).unwrap();
    let arguments: Vec<&str> = ["./runscript"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let output = run(shell, &arguments, directory).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{shell:?}: {}", output.stderr.escape_ascii());
    split_nul(&output.stdout).into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
}

fn runscript_of(config: &Config) -> String {
    runscript::text(&Command::of(config), None, &Environment::of(config))
}

#[test]
fn words_arrive_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("-a b'$x`\"\\ é");
    std::os::unix::fs::symlink("/usr/bin/printf", &program).unwrap();
    let print = vec![program.to_str().unwrap().to_owned(), "%s\\0".to_owned()];
    let nasty = nasty();
    let (few, arguments) = (nasty[..40].to_vec(), nasty[20..60].to_vec());
    let with = |words: &[String]| [print.as_slice(), words].concat();
    let none: Vec<String> = Vec::new();
    // ENTRYPOINT, CMD, arguments, what printf gets.
    let cases = [
        (with(&nasty), none.clone(), none.clone(), nasty.clone()),
        (with(&few), none.clone(), arguments.clone(), [few.as_slice(), arguments.as_slice()].concat()),
        (with(&few), nasty.clone(), none.clone(), [few.as_slice(), nasty.as_slice()].concat()),
        (with(&few), nasty.clone(), arguments.clone(), [few.as_slice(), arguments.as_slice()].concat()),
        (none.clone(), with(&nasty), none.clone(), nasty.clone()),
        (none.clone(), with(&nasty), with(&arguments), arguments.clone()),
        (vec![String::new()], with(&nasty), none.clone(), nasty.clone()),
        (none.clone(), none.clone(), with(&arguments), arguments.clone()),
    ];
    for shell in shells() {
        for (number, (entrypoint, cmd, arguments, want)) in cases.iter().enumerate() {
            let config = config(serde_json::json!({ "Entrypoint": entrypoint, "Cmd": cmd }));
            let words = runscript_words(&shell, &runscript_of(&config), arguments, directory.path());
            assert_eq!(&words, want, "{shell:?}, case {number}");
        }
    }
}

#[test]
fn nothing_to_run_is_said() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("runscript"), runscript_of(&config(serde_json::json!({})))).unwrap();
    for shell in shells() {
        let output = run(&shell, &["./runscript"], directory.path()).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stderr, b"the image has neither ENTRYPOINT nor CMD: say what to run\n");
    }
}

#[test]
fn workdir_is_entered_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it's a $dir\n`x`");
    std::fs::create_dir(&path).unwrap();
    let config = config(serde_json::json!({ "Cmd": ["/bin/sh", "-c", "printf '%s\\0' \"$PWD\""] }));
    for has_shell in [true, false] {
        let workdir = Workdir { path: path.to_str().unwrap().to_owned(), has_shell };
        let script = runscript::text(&Command::of(&config), Some(&workdir), &Environment::of(&config));
        for shell in shells() {
            let directory = runscript_words(&shell, &script, &[], directory.path());
            assert_eq!(directory, [path.to_str().unwrap()], "{shell:?}");
        }
    }
    let missing = Workdir { path: "/no/such".to_owned(), has_shell: true };
    let script = runscript::text(&Command::of(&config), Some(&missing), &Environment::of(&config));
    std::fs::write(directory.path().join("runscript"), script).unwrap();
    for shell in shells() {
        let output = run(&shell, &["./runscript"], directory.path()).unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = output.stderr.escape_ascii().to_string();
        assert!(stderr.contains("cannot change to the image\\'s WORKDIR \\\"/no/such\\\""), "{shell:?}: {stderr}");
    }
}

/// Every text is one that the shells read without complaint.
#[test]
fn scripts_parse() {
    let directory = tempfile::tempdir().unwrap();
    for text in [
        scripts::EXEC,
        scripts::RUN,
        scripts::SHELL,
        scripts::START,
        scripts::TEST,
        scripts::ENVIRONMENT_FIRST,
        scripts::ENVIRONMENT,
        scripts::ENVIRONMENT_APPS,
        scripts::ENVIRONMENT_BASE,
        scripts::ENVIRONMENT_RUNTIME,
        scripts::STARTSCRIPT,
    ] {
        assert!(text.starts_with("#!/bin/sh\n") && text.ends_with('\n'));
        std::fs::write(directory.path().join("script"), text).unwrap();
        for shell in shells() {
            let output = run(&shell, &["-n", "./script"], directory.path()).unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{shell:?}: {text}");
        }
    }
}

#[test]
fn base_environment_appends_libraries_and_sets_a_prompt() {
    for shell in shells() {
        let environment = sourced(&shell, scripts::ENVIRONMENT_BASE, "unset PS1");
        assert!(environment.contains(&"LD_LIBRARY_PATH=/.singularity.d/libs".to_owned()));
        assert!(environment.contains(&"PS1=Apptainer> ".to_owned()));
        let environment = sourced(&shell, scripts::ENVIRONMENT_BASE, "LD_LIBRARY_PATH=/x; PS1=mine");
        assert!(environment.contains(&"LD_LIBRARY_PATH=/x:/.singularity.d/libs".to_owned()));
        assert!(environment.contains(&"PS1=mine".to_owned()));
    }
}

#[test]
fn runtime_path_variables_are_applied_and_removed() {
    let before = "PATH=/p; SING_USER_DEFINED_PREPEND_PATH=/first; SING_USER_DEFINED_APPEND_PATH=/last; \
                  export SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH";
    for shell in shells() {
        let environment = sourced(&shell, scripts::ENVIRONMENT_RUNTIME, before);
        assert!(environment.contains(&"PATH=/first:/p:/last".to_owned()), "{environment:?}");
        assert!(!environment.iter().any(|entry| entry.starts_with("SING_USER")));
        let environment = sourced(&shell, scripts::ENVIRONMENT_RUNTIME, "SING_USER_DEFINED_PATH=/only");
        assert!(environment.contains(&"PATH=/only".to_owned()));
    }
}

/// The scripts name absolute paths; here they are moved below a directory of our own, which is all they lack to run.
fn relocate(text: &str, root: &str) -> String {
    text.replace("/.singularity.d", &format!("{root}/.singularity.d"))
        .replace("/scif/apps", &format!("{root}/scif/apps"))
}

fn write_program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What old runtimes do: execute `actions/*` with the image's shell.
#[test]
fn actions_read_the_environment_and_run() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    let at = |path: &str| directory.path().join(path);
    let image = config(serde_json::json!({ "Env": ["A=it's", "PATH=/usr/bin:/bin"] }));
    let env = at(".singularity.d/env");
    write_program(&env.join("10-docker2singularity.sh"), &Environment::of(&image).script());
    write_program(&env.join("95-apps.sh"), &relocate(scripts::ENVIRONMENT_APPS, root));
    write_program(&env.join("99-base.sh"), scripts::ENVIRONMENT_BASE);
    std::fs::create_dir(env.join("98-directory.sh")).unwrap();
    let show = "#!/bin/sh\nprintf '%s|' \"${0##*/}\" \"$A\" \"$LD_LIBRARY_PATH\" \"${SCIF_APPROOT:-none}\" \"$@\"\n";
    write_program(&at(".singularity.d/runscript"), show);
    write_program(&at("scif/apps/foo/scif/runscript"), show);
    let mut names = Vec::new();
    for (name, text) in
        [("run", scripts::RUN), ("exec", scripts::EXEC), ("test", scripts::TEST), ("shell", scripts::SHELL)]
    {
        write_program(&at(name), &relocate(text, root));
        names.push(name);
    }
    for shell in shells() {
        let go = |before: &str, arguments: &str| {
            let output = run(&shell, &["-c", &format!("{before} . ./{arguments}")], directory.path()).unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let libs = "/.singularity.d/libs";
        let set = |words: &str| format!("set -- {words};");
        assert_eq!(go(&set("1 '2 3'"), "run").1, format!("runscript|it's|{libs}|none|1|2 3|"), "{shell:?}");
        assert_eq!(go(&set("printf %s= a 'b c'"), "exec").1, "a=b c=", "{shell:?}");
        let app = go("SINGULARITY_APPNAME=foo;", "run").1;
        assert_eq!(app, format!("runscript|it's|{libs}|{root}/scif/apps/foo|"), "{shell:?}");
        let missing = go("SINGULARITY_APPNAME=bar;", "run");
        assert_eq!((missing.0, missing.1.as_str()), (Some(1), ""));
        assert!(missing.2.contains("this image has no app bar"), "{shell:?}: {}", missing.2);
        assert_eq!(go("", "test").0, Some(0));
        assert_eq!(go(&format!("SINGULARITY_SHELL=/bin/sh; {}", set("-c 'printf %s \"$A\"'")), "shell").1, "it's");
    }
}
