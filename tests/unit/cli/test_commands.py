"""The commands as a person runs them: programs, exit codes, sentences; the drive behind them is a dictionary."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.cli.passphrase import VARIABLE
from tests.shell import REPOSITORY, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture
def volume(shell: Shell) -> Shell:
    shell.succeeds("init", "--phrase-file", str(shell.home.parent / "phrase"))
    return shell


@pytest.fixture
def drive(volume: Shell) -> Iterator[Shell]:
    command = [sys.executable, "-m", "tests.fakes.drive", "default"]
    environment = {**volume.environment()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield volume
        finally:
            process.terminate()


# ------------------------------------------------------------------------------------------------ the command line


def test_help_lists_every_command_and_each_explains_itself(shell: Shell) -> None:
    page = shell.succeeds("--help")
    assert shell.succeeds() == page
    for command in ("init", "umount", "status", "sync", "doctor", "install-helper", "download"):
        assert f"  {command} " in page
        assert f"layrfs {command}" in shell.succeeds(command, "--help")


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("no command 'fly'", ["fly"]),
        ("--bogus", ["status", "--bogus"]),
        ("--wat", ["status", "--wat"]),
        ("required", ["umount"]),
        ("what to pin", ["pin"]),
        ("invalid choice", ["cache", "burn"]),
        ("needs the HOST:PORT", ["net", "join"]),
        ("only join", ["net", "show", "h:1"]),
        ("is no address", ["net", "join", "nonsense"]),
        ("needs the name", ["snapshot", "delete"]),
        ("not allowed with", ["audit", "--deep", "--prove"]),
        ("number of seconds", ["gc", "--retention", "-1"]),
        ("takes no name", ["snapshot", "list", "x"]),
        ("is not a port", ["init", "--seed", "h:p"]),
        ("is no volume name", ["init", "--volume", "../x"]),
        ("is no policy", ["set", "/", "colour=blue"]),
        ("redundancy is", ["set", "/", "redundancy=rs:4"]),
        ("sharding is", ["set", "/", "sharding=count:0"]),
        ("do not go together", ["status", "--watch", "--json"]),
        ("not allowed with", ["umount", "/", "--wait", "--no-wait"]),
    ],
)
def test_mistakes_are_one_sentence(shell: Shell, words: str, arguments: list[str]) -> None:
    done = shell.run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not shell.home.exists()


def test_version(shell: Shell) -> None:
    assert shell.succeeds("--version").startswith("layrfs 0.")


# ------------------------------------------------------------------------------------------------ volumes and keys


def test_init_shows_the_phrase_once_and_phrase_shows_it_again(shell: Shell) -> None:
    page = shell.succeeds("init")
    words = [word for line in page.splitlines() if line.startswith("    ") for word in line.split() if word.isalpha()]
    assert len(words) == 24
    assert shell.succeeds("phrase").split() == words
    key = shell.home / "volumes" / "default" / "volume.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shell.fails(6, "already", "init")


def test_no_phrase_is_in_the_state_directory(shell: Shell) -> None:
    shell.succeeds("init")
    phrase = shell.succeeds("phrase").strip().encode()
    files = [path for path in shell.home.rglob("*") if path.is_file()]
    assert files
    assert all(phrase not in path.read_bytes() for path in files)


def test_a_phrase_file_is_private_and_never_overwritten(shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "phrase"
    assert "phrase is in" in shell.succeeds("init", "--phrase-file", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert shell.succeeds("phrase") == target.read_text()
    shell.fails(12, "not overwritten", "init", "--volume", "other", "--phrase-file", str(target))
    assert not (shell.home / "volumes" / "other").exists()


def test_a_phrase_file_goes_again_when_the_volume_cannot_be_made(shell: Shell, tmp_path: Path) -> None:
    (shell.home / "volumes").mkdir(parents=True)
    (shell.home / "volumes" / "default").write_text("in the way")
    done = shell.run("init", "--phrase-file", str(tmp_path / "phrase"))
    assert done.returncode == 1
    assert not (tmp_path / "phrase").exists()


def test_passphrases(shell: Shell, tmp_path: Path) -> None:
    passfile = tmp_path / "pass"
    passfile.write_text("open sesame\n")
    passfile.chmod(0o600)
    shell.succeeds("init", "--passfile", str(passfile))
    phrase = shell.succeeds("phrase", "--passfile", str(passfile))
    shell.fails(7, "passphrase", "phrase")
    shell.variables[VARIABLE] = "open sesame"
    assert shell.succeeds("phrase") == phrase
    shell.variables[VARIABLE] = "wrong"
    shell.fails(7, "passphrase", "phrase")


def test_passphrase_files_that_do_not_help(shell: Shell, tmp_path: Path) -> None:
    shell.fails(1, "cannot be read", "init", "--passfile", str(tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o600)
    shell.fails(2, "empty first line", "init", "--passfile", str(tmp_path / "empty"))


def test_damaged_newer_and_missing_state(volume: Shell) -> None:
    key = volume.home / "volumes" / "default" / "volume.key"
    good = key.read_bytes()
    key.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    volume.fails(8, "damaged", "phrase")
    key.write_bytes(b"\x00" * 40)
    volume.fails(8, "not a LayrFS key file", "phrase")
    key.write_bytes(good[:4] + b"\xff" + good[5:])
    volume.fails(8, "update", "phrase")
    volume.fails(
        6,
        "no volume 'other'; there is default".replace("; there", " on this machine; there"),
        "phrase",
        "--volume",
        "other",
    )
    (volume.home / "layout").write_text("2\n")
    volume.fails(8, "newer LayrFS", "phrase")


def test_several_volumes_must_be_told_apart(shell: Shell) -> None:
    shell.fails(6, "no volume on this machine yet", "status")
    for name in ("one", "two"):
        shell.succeeds("init", "--volume", name)
    shell.fails(2, "one, two", "phrase")
    assert len(shell.succeeds("phrase", "--volume", "two").split()) == 24
    shell.variables["LAYRFS_VOLUME"] = "two"
    assert len(shell.succeeds("phrase").split()) == 24


def test_seeds_that_do_not_answer_are_no_network(shell: Shell) -> None:
    shell.fails(11, "no seed answers: 127.0.0.1:9", "init", "--seed", "127.0.0.1:9")
    assert not (shell.home / "network.json").exists()
    assert not (shell.home / "volumes" / "default" / "volume.key").exists()


def test_volumes_of_one_machine_share_a_network(volume: Shell) -> None:
    volume.fails(2, "embedded network", "init", "--volume", "two", "--seed", "192.0.2.9:4747")


def test_a_network_can_be_chosen_before_there_is_a_volume(shell: Shell) -> None:
    assert "embedded" in shell.succeeds("net", "show")
    assert json.loads(shell.succeeds("net", "leave", "--json"))["embedded"] is True


# ------------------------------------------------------------------------------------------------ asking the drive


def test_status(drive: Shell) -> None:
    page = drive.succeeds("status")
    for words in (
        "volume default",
        "3 files",
        "3.0 MiB of 20 GiB",
        "5 s left",
        "2 with too few pieces",
        "! one host is silent",
    ):
        assert words in page
    status = json.loads(drive.succeeds("status", "--json"))
    assert (status["volume"], status["degraded_shards"], status["hosts"][0]["pieces"]) == ("default", 2, 211)


def test_watching_ends_quietly_with_ctrl_c(drive: Shell) -> None:
    command = [sys.executable, "-m", "layrfs.cli.main", "status", "--watch"]
    with subprocess.Popen(command, env=drive.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"volume default" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


def test_sync(drive: Shell) -> None:
    assert drive.succeeds("sync") == "everything is on hosts (100 B uploaded just now)\n"
    assert json.loads(drive.succeeds("sync", "--json")) == {
        "uploaded_bytes": 100,
        "degraded_shards": 0,
        "metadata_lacks_copies": False,
    }


def test_a_progress_bar_is_drawn_on_a_terminal_only(drive: Shell) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "layrfs.cli.main", "sync"]
    subprocess.run(command, env=drive.environment(), stdout=subprocess.PIPE, stderr=theirs, check=True)
    drawn = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "syncing  [" in drawn
    assert drawn.endswith("\x1b[2K")


def test_cache(drive: Shell) -> None:
    assert drive.succeeds("cache", "drop") == "dropped 3.0 MiB; 5.0 MiB kept, not on hosts yet\n"
    assert "3.0 MiB of at most 20 GiB" in drive.succeeds("cache", "show")
    assert json.loads(drive.succeeds("cache", "show", "--json"))["dirty_bytes"] == 5 << 20


def test_pin_lists_warns_of_what_is_larger_than_the_cache_and_waits(drive: Shell) -> None:
    done = drive.run("pin", "/docs")
    assert (done.returncode, done.stdout) == (0, "")
    assert "30 GiB, the cache's limit is 20 GiB" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert drive.succeeds("pin", "--list") == "/docs\n/a\\x1b[31m.txt\n3.0 MiB here, 1.0 MiB on the way\n"
    assert json.loads(drive.succeeds("pin", "--wait", "--json"))["missing_bytes"] == 1 << 20
    drive.succeeds("unpin", "/docs", "/other")


def test_snapshots(drive: Shell) -> None:
    assert drive.succeeds("snapshot", "create", "before") == (
        ".snapshots/before\n2 blocks written meanwhile cannot be read in it\n"
    )
    whole, partly = drive.succeeds("snapshot", "list").splitlines()
    assert whole.split()[-2:] == ["whole", "kept"]
    assert "\x1b" not in whole
    assert "1 block not on hosts then" in partly
    assert [one["unsent_blocks"] for one in json.loads(drive.succeeds("snapshot", "list", "--json"))] == [0, 1]
    missing = drive.run("snapshot", "delete", "never")
    assert missing.returncode != 0
    assert missing.stderr == "layrfs: There is no snapshot never; `layrfs snapshot list` shows them.\n"


def test_auditing(drive: Shell) -> None:
    whole = drive.succeeds("audit", "--deep").splitlines()
    assert whole[0].split("  ") == [
        "/docs/a\\x1b[31m.txt", "shard 5a5a5a5a5a5a", "piece 0", "host aaaaaaaaaaaa", "deep", "passed", "12 ms",
    ]  # fmt: skip
    assert "1 piece of 1 shard asked for (deep): 1 passed" in whole
    assert "the newest root record is shown by 3 hosts" in whole
    assert drive.succeeds("audit", "--host").startswith("host aaaaaaaaaaaa  new  1 passed\n")
    found = json.loads(drive.succeeds("audit", "--answer", "--json"))
    assert (found["level"], found["pieces"][0]["outcome"]) == ("answer", "passed")
    drive.fails(3, "not in a mounted", "audit", str(drive.home))
    drive.fails(12, "there is no", "audit", str(drive.home / "nothing"))


def test_patching(drive: Shell) -> None:
    assert drive.succeeds("patch").splitlines() == [
        "  shard 5a5a5a5a5a5a  soon  made 1 at bbbbbbbbbbbb",
        "1 of 1 shard patched, 0 lost",
    ]
    assert drive.succeeds("patch", "--dry-run").splitlines()[-1] == "1 of 1 shard would be patched, 0 lost"
    assert json.loads(drive.succeeds("patch", "--json"))["listed"][0]["made"][0]["generation"] == 2
    drive.fails(3, "not in a mounted", "patch", str(drive.home))


def test_collecting(drive: Shell) -> None:
    wanted, done = drive.succeeds("gc", "--dry-run"), drive.succeeds("gc", "--retention", "0")
    assert wanted.startswith("3 shards can go, 9.0 MiB on hosts\n")
    assert "1 nearly empty shard can be packed anew, which frees 3.0 MiB" in wanted
    assert "12 pieces dropped by hosts\n1 host did not answer; asked again later" in done
    assert "2 shards, 5.0 MiB kept for the snapshot before\\x1b[31m" in done
    assert json.loads(drive.succeeds("gc", "--json"))["waiting"][0]["version"] == 7


def test_list_goes_through_every_page_and_hides_nothing(drive: Shell) -> None:
    page = drive.succeeds("list")
    assert "/docs/a\\x1b[31m.txt" in page
    assert "\x1b" not in page
    entries = json.loads(drive.succeeds("list", "--json"))
    assert {os.fsencode(entry["path"]) for entry in entries} == {
        b"/docs",
        b"/top",
        b"/docs/a\x1b[31m.txt",
        b"/docs/\xff\xfe",
    }
    assert len(drive.succeeds("list", "/docs").splitlines()) == 2
    drive.fails(12, "/nowhere", "list", "/nowhere")


def test_upload_manifest_download(drive: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    assert "/file" in drive.succeeds("upload", str(tmp_path / "file"))
    drive.fails(12, "exists already", "upload", str(tmp_path / "file"))
    assert "/in/file" in drive.succeeds("upload", str(tmp_path / "file"), "--to", "in/")
    assert "layrfs-manifest" in drive.succeeds("manifest", "/file")
    drive.fails(12, "no /none", "manifest", "/none")


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (12, "there is no", ["upload", "missing"]),
        (2, "not a regular file", ["upload", "."]),
        (12, "there is no", ["download", "missing"]),
        (8, "directory", ["download", "."]),
        (8, "not a LayrFS manifest", ["download", "/etc/passwd"]),
        (3, "not in a mounted", ["status", "."]),
        (12, "there is no", ["status", "missing"]),
        (3, "not mounted", ["umount", "."]),
        (3, "not in a mounted", ["set", ".", "redundancy=mirror:2"]),
    ],
)
def test_wrong_paths(drive: Shell, code: int, words: str, arguments: list[str]) -> None:
    drive.fails(code, words, *arguments)


def test_net(drive: Shell) -> None:
    assert "4 of 5 known hosts answer" in drive.succeeds("net", "show")
    assert "seed 192.0.2.1:4747" in drive.succeeds("net", "join", "192.0.2.1:4747")


def test_hosts_that_cannot_be_reached(volume: Shell) -> None:
    volume.variables["LAYRFS_FAKE_TROUBLE"] = "1"
    command = [sys.executable, "-m", "tests.fakes.drive", "default"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=volume.environment(), cwd=REPOSITORY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        volume.fails(11, "no host answers", "sync")
        process.terminate()


def test_a_reader_that_goes_away(drive: Shell) -> None:
    command = [sys.executable, "-m", "layrfs.cli.main", "list"]
    with subprocess.Popen(command, env=drive.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        errors = process.stderr.read() if process.stderr else b""
        assert (process.wait(20), errors) == (141, b"")


def test_not_mounted(volume: Shell) -> None:
    volume.fails(3, "not mounted", "status")
    volume.fails(3, "not mounted", "sync")


# ------------------------------------------------------------------------------------------------ mount.layrfs


def mountpoint(shell: Shell) -> str:
    path = shell.home.parent / "mnt"
    path.mkdir(exist_ok=True)
    return str(path)


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "required", []),
        (2, "'bogus'", ["MNT", "-o", "rw,bogus"]),
        (4, "does not exist", ["MNT/none"]),
        (4, "not a directory", ["/etc/passwd"]),
        (4, "not empty", ["/etc"]),
        (6, "no volume 'other'", ["other", "MNT"]),
        (2, "too many", ["a", "b", "MNT"]),
        (2, "cache_size", ["MNT", "-o", "cache_size=1"]),
    ],
)
def test_mounts_that_cannot_be(volume: Shell, code: int, words: str, arguments: list[str]) -> None:
    place = mountpoint(volume)
    volume.fails(code, words, *(word.replace("MNT", place) for word in arguments), module="mount")


def test_without_a_volume_and_a_terminal_none_is_made(shell: Shell) -> None:
    shell.fails(6, "layrfs init", mountpoint(shell), module="mount")
    assert not shell.home.exists()


def test_a_volume_in_use_says_where(drive: Shell) -> None:
    drive.fails(9, "in use by another command", mountpoint(drive), module="mount")


def test_doctor_finds_open_keys_and_says_what_to_do(volume: Shell) -> None:
    (volume.home / "volumes" / "default" / "volume.key").chmod(0o644)
    done = volume.run("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 1
    keys = next(finding for finding in findings if finding["check"] == "keys")
    assert keys["verdict"] == "problem"
    assert keys["remedy"].startswith("chmod 600 ")
    assert all(finding["verdict"] == "ok" or finding["remedy"] for finding in findings)


def test_doctor_asks_the_drive(drive: Shell) -> None:
    page = drive.run("doctor").stdout
    assert "4 of 5 known hosts answer" in page
    assert "one host is silent" in page
