"""Key files on a disk: private, whole or absent, never replaced by accident."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layrfs.crypto import keybox, keys
from layrfs.errors import AlreadyExists, CorruptFile, LocalError, NewerFormat, WrongPassphrase, WrongPhrase
from layrfs.storage import keyring

PHRASE = "abandon " * 23 + "art"


def never() -> str:
    raise AssertionError("nobody should be asked")


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real cost is tested in test_keybox; here it would only cost time."""
    cheap = keybox.ScryptCost(log2_n=4, r=1, p=1)
    monkeypatch.setattr(keybox.lock, "__kwdefaults__", {"cost": cheap})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "volume.key")


def test_without_a_passphrase_nobody_is_asked(path: str) -> None:
    keyring.save_volume_key(path, PHRASE, None)
    assert keyring.load_volume_key(path, never) == keys.VolumeKeys.from_phrase(PHRASE)
    assert keyring.load_phrase(path, never) == PHRASE


def test_with_a_passphrase(path: str) -> None:
    keyring.save_volume_key(path, PHRASE, "p\u00e9n")
    assert keyring.load_volume_key(path, lambda: "pe\u0301n") == keys.VolumeKeys.from_phrase(PHRASE)
    with pytest.raises(WrongPassphrase):
        keyring.load_volume_key(path, lambda: "pen")


def test_an_empty_passphrase_is_one(path: str) -> None:
    keyring.save_volume_key(path, PHRASE, "")
    assert keyring.load_phrase(path, lambda: "") == PHRASE
    with pytest.raises(WrongPassphrase):
        keyring.load_phrase(path, lambda: "x")


def test_private_whatever_the_umask(path: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keyring.save_volume_key(path, PHRASE, None)
        keyring.load_or_create_identity(str(tmp_path / "node.key"))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()} == {0o600}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["node.key", "volume.key"]


def test_a_key_file_is_never_overwritten(path: str, tmp_path: Path) -> None:
    keyring.save_volume_key(path, PHRASE, None)
    with pytest.raises(AlreadyExists):
        keyring.save_volume_key(path, keys.new_phrase(), None)
    assert keyring.load_phrase(path, never) == PHRASE
    assert os.listdir(tmp_path) == ["volume.key"]


def test_a_dangling_link_is_something(path: str) -> None:
    os.symlink("nowhere", path)
    with pytest.raises(AlreadyExists):
        keyring.save_volume_key(path, PHRASE, None)


def test_a_wrong_phrase_touches_nothing(path: str) -> None:
    with pytest.raises(WrongPhrase):
        keyring.save_volume_key(path, "abandon", None)
    assert not os.path.exists(path)


def test_change_passphrase(path: str) -> None:
    keyring.save_volume_key(path, PHRASE, None)
    keyring.change_passphrase(path, never, "new")
    assert keyring.load_phrase(path, lambda: "new") == PHRASE
    with pytest.raises(WrongPassphrase):
        keyring.change_passphrase(path, lambda: "old", None)
    keyring.change_passphrase(path, lambda: "new", None)
    assert keyring.load_phrase(path, never) == PHRASE
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (b"", CorruptFile),
        (b"nonsense", CorruptFile),
        (bytes(1 << 20), CorruptFile),
        (b"LYRK\x09 from the future", NewerFormat),
        (keybox.lock(b"16 bytes are few", None), CorruptFile),
    ],
)
def test_foreign_files(path: str, blob: bytes, error: type[Exception]) -> None:
    Path(path).write_bytes(blob)
    for load in (lambda: keyring.load_volume_key(path, never), lambda: keyring.load_or_create_identity(path)):
        with pytest.raises(error):
            load()
    assert Path(path).read_bytes() == blob


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be read: No such file"):
        keyring.load_volume_key(str(tmp_path / "absent"), never)
    with pytest.raises(LocalError, match="cannot be read: Is a directory"):
        keyring.load_volume_key(str(tmp_path), never)
    with pytest.raises(LocalError, match="cannot be written"):
        keyring.save_volume_key(str(tmp_path / "absent" / "volume.key"), PHRASE, None)


def test_a_full_disk_leaves_nothing_behind(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.save_volume_key(path, PHRASE, None)

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LocalError, match="No space left"):
        keyring.change_passphrase(path, never, "new")
    assert os.listdir(tmp_path) == ["volume.key"]
    assert keyring.load_phrase(path, never) == PHRASE


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    path = str(tmp_path / "node.key")
    assert keyring.load_or_create_identity(path).private == keyring.load_or_create_identity(path).private


def test_two_first_starts_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process wrote its key between our look and our link."""
    path = str(tmp_path / "node.key")
    first = keyring.load_or_create_identity(path)
    monkeypatch.setattr(os.path, "lexists", lambda name: name != path and os.access(name, os.F_OK))
    assert keyring.load_or_create_identity(path).node_id == first.node_id
    assert os.listdir(tmp_path) == ["node.key"]


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keyring.save_volume_key("volume.key", PHRASE, None)
    assert keyring.load_phrase("volume.key", never) == PHRASE
