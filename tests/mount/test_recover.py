"""The laptop is gone, the 24 words are not: everything that was on hosts is back, on another machine."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.drive import Drive, HostNetwork, differences, layrfs, run, wait_for
from tests.trees import MIB, decorate_tree, source_tree, write_stream


def recovered(directory: Path, first: Drive, hosts: HostNetwork) -> Drive:
    """Another machine with nothing but the first one's words and two addresses."""
    drive = Drive(str(directory), seeds=hosts.seeds, options=["take_over"])
    phrase = os.path.join(os.path.dirname(first.home), "phrase")
    layrfs(drive.home, "recover", "--phrase-file", phrase, *hosts.seeds)
    return drive


def test_a_lost_machine_costs_nothing_that_was_on_hosts(hosts: HostNetwork, tmp_path: Path, big: bool) -> None:
    tree = str(tmp_path / "tree")
    source_tree(tree, 5_000 if big else 300)
    decorate_tree(tree)
    write_stream(os.path.join(tree, "large"), 20 * MIB + 99)
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds) as drive:
        copy = os.path.join(drive.path, "tree")
        run("rsync", "-aHAX", f"{tree}/", f"{copy}/")
        drive.sync()
        for step in range(3):  # versions, and names that change places
            for place in (tree, copy):
                Path(place, "one").write_bytes(b"1" * step)
                Path(place, "other").write_bytes(b"2" * step)
                for old, new in (("one", "third"), ("other", "one"), ("third", "other")):
                    os.rename(os.path.join(place, old), os.path.join(place, new))
                for name in ("one", "other", "."):
                    os.utime(os.path.join(place, name), (1000, 2000 + step))
            drive.sync()
        assert drive.status()["published_version"] >= 4
        drive.crash()
        shutil.rmtree(drive.home)
    hosts.kill(3)
    with recovered(tmp_path / "second", drive, hosts) as second:
        assert differences(tree, os.path.join(second.path, "tree")) == ""
        Path(second.path, "new").write_text("written after")
        second.sync()
        assert second.status()["problems"] == []
    with recovered(tmp_path / "third", drive, hosts) as third:
        assert Path(third.path, "new").read_text() == "written after"


def test_what_never_reached_a_host_is_an_error_and_not_zeros(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["upload_after=1000"]) as drive:
        Path(drive.path, "sent").write_text("sent")
        drive.sync()
        before = drive.status()["published_version"]
        Path(drive.path, "unsent").write_bytes(b"x" * 5000)
        run("sync", os.path.join(drive.path, "unsent"))
        wait_for(lambda: is_published(drive, before), "the name is on the network, not its bytes")
        drive.crash()
    with recovered(tmp_path / "second", drive, hosts) as second:
        assert Path(second.path, "sent").read_text() == "sent"
        lost = os.path.join(second.path, "unsent")
        assert os.path.getsize(lost) == 5000
        assert second.state(lost) == "lost"
        with pytest.raises(OSError, match="Input/output error") as raised:
            Path(lost).read_bytes()
        assert raised.value.errno == errno.EIO
        Path(lost).write_text("written anew")
        second.make_safe(lost)


def is_published(drive: Drive, after: int) -> bool:
    """Whether everything but bytes is on hosts that was written after a version."""
    status = drive.status()
    return status["published_version"] > after and not status["unpublished"]


def test_what_a_volume_without_its_key_left_is_set_aside(hosts: HostNetwork, tmp_path: Path) -> None:
    with Drive(str(tmp_path / "first"), seeds=hosts.seeds, options=["upload_after=1000"]) as drive:
        Path(drive.path, "sent").write_text("sent")
        drive.sync()
        Path(drive.path, "unsent").write_bytes(b"nowhere but here")
        run("sync", os.path.join(drive.path, "unsent"))
        drive.crash()
        volume = Path(drive.home, "volumes", "default")
        (volume / "volume.key").unlink()
        phrase = os.path.join(os.path.dirname(drive.home), "phrase")
        said = layrfs(drive.home, "recover", "--phrase-file", phrase)
        (aside,) = volume.glob("before-*")
        assert str(aside) in said.stdout
        assert (aside / "metadata.db").exists()
        kept = [Path(top, name).read_bytes() for top, _, names in os.walk(aside / "cache") for name in names]
        assert b"nowhere but here" in kept
        drive.mount()
        assert Path(drive.path, "sent").read_text() == "sent"


def test_words_that_are_no_phrase_here_are_told_so(hosts: HostNetwork, tmp_path: Path) -> None:
    home, phrase = str(tmp_path / "home"), str(tmp_path / "phrase")
    for words, sentence in (
        ("abandon " * 23 + "art", "recover --scan"),
        ("abandon " * 24, "do not fit together"),
    ):
        Path(phrase).write_text(words)
        said = layrfs(home, "recover", "--phrase-file", phrase, *hosts.seeds, check=False)
        assert said.returncode != 0
        assert sentence in said.stderr
    assert not [name for _, _, names in os.walk(home) for name in names if name in {"volume.key", "metadata.db"}]
