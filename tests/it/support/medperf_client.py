"""Calls the converter as the MedPerf client calls programs: one command line joined for a shell that is not there, one
pseudo-terminal of 24 x 80 for all three streams, and a limit on the silence between finished lines.

    medperf_client.py PROGRAM DIRECTORY

DIRECTORY holds what tests/it/medperf.rs has put there. Prints each failed expectation and ends with 1 if there was one.
"""

import json
import os
import pathlib
import re
import shlex
import sys

import pexpect

SILENCE_SECONDS = 10
PROGRAM, PLACE = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
PROGRESS = re.compile(r"^ *(\d+) s  \S")

failures = []


def expect(what, holds, shown):
    if not holds:
        failures.append(f"{what}: {shown}")


def call(*arguments, environment=None, program=PROGRAM):
    """The exit code, and all lines. Raises pexpect.TIMEOUT where the client would give up."""
    command = shlex.join([program, *arguments])
    env = {"PATH": os.environ["PATH"], "HOME": str(PLACE), "TERM": "xterm", **(environment or {})}
    child = pexpect.spawn(command, timeout=SILENCE_SECONDS, cwd=PLACE, env=env, dimensions=(24, 80))
    lines = []
    while child.expect(["\r\n", pexpect.EOF]) == 0:
        lines.append(child.before)
    rest = child.before
    child.close()
    expect(f"{command}: the last line ends", rest == b"", rest)
    code = child.exitstatus if child.exitstatus is not None else -child.signalstatus
    text = [line.decode("utf-8") for line in lines]
    for line in text:
        expect(f"{command}: no control characters", line.isprintable(), repr(line))
    seconds = [int(found.group(1)) for found in map(PROGRESS.match, text) if found]
    gaps = [later - earlier for earlier, later in zip(seconds, seconds[1:])]
    # Lines say whole seconds: two of them that are two seconds apart may differ by one.
    expect(f"{command}: lines are not too many", all(gap >= 1 for gap in gaps), seconds)
    expect(f"{command}: lines are not too few", all(gap <= 5 for gap in gaps), seconds)
    return code, text


def report(name):
    return json.loads((PLACE / name).read_text())


def succeeds():
    """An archive without an extension becomes a SIF; the report is read afterwards."""
    archive = PLACE / report("names.json")["archive"]
    slow = ["--compression", "gzip:12", "--jobs", "1"]
    config = ["--medperf-config", str(PLACE / "container_config.yaml")]
    code, lines = call("build", *slow, *config, "--report", "r.json", str(PLACE / "out.sif"), f"docker-archive://{archive}")
    expect("build: exit code", code == 0, lines)
    expect("build: begins with a line at once", lines and PROGRESS.match(lines[0]), lines)
    expect("build: says what was written", any(line.startswith('wrote "') for line in lines), lines)
    said = report("r.json")
    expect("build: report", said["status"] == "ok" and said["error"] is None, said)
    expect("build: input hash", said["source"]["sha256"] == archive.name, said["source"])
    expect("build: output hash", len(said["output"]["sha256"]) == 64, said["output"])
    before = (PLACE / "out.sif").stat()
    code, lines = call("build", *config, "--report", "r.json", str(PLACE / "out.sif"), str(archive))
    after = (PLACE / "out.sif").stat()
    expect("build again: exit code", code == 0, lines)
    expect("build again: the file is used as it is", before.st_ino == after.st_ino, lines)
    again = report("r.json")
    expect("build again: the same hash", again["output"]["sha256"] == said["output"]["sha256"], again["output"])
    code, lines = call(str(archive), "--to", "sif-rootfs", "-o", "x.tar", environment={"CONVERT_PROGRESS": "plain"})
    expect("sif-rootfs: exit code", code == 0, lines)
    code, lines = call("folder", "--to", "additional-files", "--progress", "plain", "--report", "r.json")
    expect("additional-files: exit code", code == 0, lines)
    sum_lines = [line for line in lines if line.endswith("  additional_files.tar.gz")]
    expect("additional-files: sum", sum_lines and sum_lines[0][:64] == report("r.json")["output"]["sha256"], lines)


def fails():
    """Each kind of failure: exit code, cause and remedy at the end, the same in the report."""
    names = report("names.json")
    archive, damaged = names["archive"], names["damaged"]
    zeros = "0" * 64
    cases = [
        ("wrong use", 2, ["build", "--medperf-confi", "new.sif", archive], "--medperf-confi", "--medperf-config"),
        ("no source", 3, ["build", "new.sif", "/no/such/archive"], "/no/such/archive", "check the path"),
        ("no image", 4, ["build", "new.sif", "text"], "text file", "docker save"),
        ("cut short", 4, ["build", "new.sif", "short"], "short", "again"),
        ("damaged", 4, ["build", "new.sif", damaged], "layer 1", "again"),
        ("another layer", 5, ["build", "new.sif", "exchanged"], "digest", "again"),
        ("another file", 5, ["build", "--expect-sha256", zeros, "new.sif", archive], zeros, "--expect-sha256"),
        ("another image", 5, ["build", "--expect-digest", zeros, "new.sif", archive], zeros, "--expect-digest"),
        ("full disk", 7, [archive, "--to", "sif-rootfs", "-o", "/dev/full", "--progress", "plain"], "No space", "free"),
        ("output exists", 8, ["build", "other.sif", archive], "exists", "--force"),
        ("no directory", 8, ["build", "no/such/new.sif", archive], "no/such/new.sif", "mkdir -p no/such"),
        ("bad configuration", 2, ["build", "--medperf-config", "bad.yaml", "new.sif", archive], "line 4", "type"),
        ("conflict", 2, ["build", "--medperf-config", "conflict.yaml", "new.sif", archive], "line 5", "mount_path"),
        ("a pipe in a folder", 4, ["pipes", "--to", "additional-files", "-o", "pipes.tar.gz", "--progress", "plain"], "named pipe", "take them"),
    ]
    for what, expected, arguments, cause, remedy in cases:
        (PLACE / "r.json").unlink(missing_ok=True)
        code, lines = call(*arguments, "--report", "r.json")
        expect(f"{what}: exit code", code == expected, (code, lines))
        errors = [line for line in lines if line.startswith("error: ")]
        expect(f"{what}: cause", len(errors) == 1 and cause in errors[0], lines)
        expect(f"{what}: last line is the remedy", lines[-1].startswith("hint: ") and remedy in lines[-1], lines)
        said = report("r.json")
        expect(f"{what}: report", said["status"] == "error" and said["error"]["exit_code"] == expected, said)
        expect(f"{what}: report has the words", f"hint: {said['error']['hint']}" == lines[-1], said["error"])
        expect(f"{what}: nothing appears", not (PLACE / "new.sif").exists(), os.listdir(PLACE))


def is_interrupted():
    """Control-C reaches the program through the terminal."""
    archive = report("names.json")["archive"]
    command = shlex.join([PROGRAM, "build", "--compression", "gzip:12", "-j", "1", "--report", "r.json", "int.sif", archive])
    child = pexpect.spawn(command, timeout=SILENCE_SECONDS, cwd=PLACE, env={"PATH": os.environ["PATH"], "TERM": "xterm"})
    child.expect("opening the source\r\n")
    child.sendintr()
    rest = child.read().decode()
    child.close()
    if child.exitstatus == 0:
        return
    expect("interrupted: exit code", child.exitstatus == 130, (child.exitstatus, child.signalstatus, rest))
    expect("interrupted: last line", rest.rstrip().splitlines()[-1].startswith("hint: "), rest)
    expect("interrupted: report", report("r.json")["error"]["kind"] == "interrupted", report("r.json"))
    expect("interrupted: nothing appears", not (PLACE / "int.sif").exists(), os.listdir(PLACE))


succeeds()
fails()
is_interrupted()
print("\n".join(failures))
sys.exit(1 if failures else 0)
