"""A host's directory: one process, one identity, what it was last run with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layrfs.errors import CorruptFile, LocalError, NewerFormat, NotRunning, StateInUse
from layrfs.host.directory import HostDirectory, HostSettings

SETTINGS = HostSettings("ab" * 32, "127.0.0.1", 4747, 1 << 30, "192.0.2.1")


@pytest.fixture
def directory(tmp_path: Path) -> HostDirectory:
    made = HostDirectory(str(tmp_path / "host"))
    made.lock()
    return made


def test_one_process_at_a_time(directory: HostDirectory) -> None:
    second = HostDirectory(directory.path)
    assert second.is_running()
    assert not second.try_lock()
    with pytest.raises(StateInUse, match="another process"):
        second.lock()
    directory.unlock()
    assert not second.is_running()
    second.lock()
    second.unlock()


def test_the_directory_is_private(directory: HostDirectory) -> None:
    assert os.stat(directory.path).st_mode & 0o077 == 0


def test_the_identity_stays_the_same(directory: HostDirectory) -> None:
    with pytest.raises(NotRunning):
        directory.existing_identity()
    assert directory.identity().node_id == directory.existing_identity().node_id


def test_settings_come_back(directory: HostDirectory) -> None:
    assert directory.settings() is None
    directory.save_settings(SETTINGS)
    assert HostDirectory(directory.path).settings() == SETTINGS


def test_no_directory_has_no_settings_and_nothing_running(tmp_path: Path) -> None:
    nowhere = HostDirectory(str(tmp_path / "nowhere"))
    assert nowhere.settings() is None
    assert not nowhere.is_running()
    assert not os.path.exists(nowhere.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": "x"}', "\0\xff"])
def test_damaged_settings_are_one_sentence(directory: HostDirectory, text: str) -> None:
    Path(directory.path, "host.json").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptFile, match="does not describe a host"):
        directory.settings()


def test_newer_settings(directory: HostDirectory) -> None:
    Path(directory.path, "host.json").write_text('{"version": 2, "new": 1}')
    with pytest.raises(NewerFormat):
        directory.settings()


def test_a_place_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="cannot be used"):
        HostDirectory(str(tmp_path / "file" / "host")).lock()


def test_peers_are_a_hint_and_never_an_error(directory: HostDirectory) -> None:
    assert directory.peers() == []
    directory.save_peers(["192.0.2.1:1"])
    assert directory.peers() == ["192.0.2.1:1"]
    Path(directory.path, "peers.json").write_text('{"no": 1}')
    assert directory.peers() == []
