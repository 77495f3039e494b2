"""A host keeps the newest root record of each volume, and never goes back."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.root_body import open_root_body, seal_root_body
from layrfs.errors import BadMessage, LocalError, NoSpace, WrongBytes
from layrfs.ids import VolumeId
from layrfs.model.root_record import RootRecord, newest, root_places, verified_untrusted
from layrfs.storage.root_store import RootStore

KEY, OTHER = bytes(32), bytes([1]) * 32


def record(version: int, *, key: bytes = KEY, body: bytes = b"body", time_ms: int = 5) -> RootRecord:
    """One signed by a volume."""
    return RootRecord.sign(key, version=version, time_ms=time_ms, body=body)


def test_versions_only_grow(tmp_path: Path) -> None:
    store = RootStore(str(tmp_path))
    first, second = record(1), record(2)
    assert store.get(first.volume) is None
    assert store.put(first.to_bytes())
    assert store.put(first.to_bytes()), "the same again is no harm"
    assert store.put(second.to_bytes())
    assert not store.put(first.to_bytes()), "older"
    assert not store.put(record(2, body=b"another").to_bytes()), "the same version with other bytes"
    assert RootStore(str(tmp_path)).get(first.volume) == second.to_bytes()


def test_volumes_do_not_touch_each_other_and_are_counted(tmp_path: Path) -> None:
    store = RootStore(str(tmp_path), most=1)
    store.put(record(7).to_bytes())
    with pytest.raises(NoSpace):
        store.put(record(1, key=OTHER).to_bytes())
    assert store.put(record(8).to_bytes()), "a known volume always may"


@pytest.mark.parametrize("at", [0, 3, 40, -66, -65, -1])
def test_a_changed_record_is_refused(tmp_path: Path, at: int) -> None:
    data = bytearray(record(1).to_bytes())
    data[at] ^= 1
    with pytest.raises(BadMessage):
        RootStore(str(tmp_path)).put(bytes(data))


def test_a_damaged_file_is_no_record_and_can_be_replaced(tmp_path: Path) -> None:
    store, kept = RootStore(str(tmp_path)), record(3)
    store.put(kept.to_bytes())
    (path,) = (tmp_path / "roots").iterdir()
    path.write_bytes(kept.to_bytes()[:-1])
    assert store.get(kept.volume) is None
    assert store.put(kept.to_bytes())
    assert store.get(kept.volume) == kept.to_bytes()


def test_a_damaged_file_is_set_aside_and_counts_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, kept = RootStore(str(tmp_path), most=1), record(3)
    store.put(kept.to_bytes())
    path = tmp_path / "roots" / kept.volume.hex()
    for _ in range(2):
        path.write_bytes(b"damaged")
        assert store.get(kept.volume) is None
        assert [found.name for found in path.parent.iterdir()] == [path.name + ".damaged"]
        assert store.put(kept.to_bytes()), "there is room for it again"
    with pytest.raises(NoSpace):
        store.put(record(1, key=OTHER).to_bytes())
    reopened = RootStore(str(tmp_path), most=2)
    assert reopened.put(record(1, key=OTHER).to_bytes()), "what was set aside is no volume"
    assert "set aside" in caplog.text


def test_the_record_of_another_volume_under_the_name_is_damage(tmp_path: Path) -> None:
    store, ours, theirs = RootStore(str(tmp_path)), record(1), record(9, key=OTHER)
    store.put(ours.to_bytes())
    (tmp_path / "roots" / ours.volume.hex()).write_bytes(theirs.to_bytes())
    assert store.get(ours.volume) is None
    assert store.put(ours.to_bytes()), "their version 9 does not count against ours"


def test_what_a_crash_left_unfinished_is_removed_and_not_counted(tmp_path: Path) -> None:
    RootStore(str(tmp_path), most=1)
    (tmp_path / "roots" / ".new-abc").write_bytes(b"half")
    store = RootStore(str(tmp_path), most=1)
    assert list((tmp_path / "roots").iterdir()) == []
    assert store.put(record(1).to_bytes())


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "roots").write_bytes(b"")
    with pytest.raises(LocalError):
        RootStore(str(tmp_path))


def test_a_file_that_cannot_be_read_now_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "roots" / record(1).volume.hex()).mkdir(parents=True)
    with pytest.raises(LocalError):
        RootStore(str(tmp_path)).get(record(1).volume)


def test_of_many_at_once_the_highest_version_stays(tmp_path: Path) -> None:
    store, rivals = RootStore(str(tmp_path)), [record(version) for version in range(1, 25)]
    random.Random(7).shuffle(rivals)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: store.put(one.to_bytes()), rivals))
    assert store.get(rivals[0].volume) == record(24).to_bytes()
    assert len(list((tmp_path / "roots").iterdir())) == 1


@given(st.binary(max_size=300))
def test_noise_is_no_record(data: bytes) -> None:
    with pytest.raises(BadMessage):
        verified_untrusted(data)


def test_the_newest_counts() -> None:
    assert newest([]) is None
    assert newest([record(1), record(3), record(2)]) == record(3)
    assert newest([record(3, time_ms=1), record(3, time_ms=2)]) == record(3, time_ms=2)


def test_places_are_apart_and_a_volumes_own() -> None:
    places = {place for key in (KEY, OTHER) for place in root_places(VolumeId(record(1, key=key).volume))}
    assert len(places) == 8
    assert {len(place) for place in places} == {20}


def test_bodies_open_for_their_volume_and_version_only() -> None:
    body = seal_root_body(KEY, b"volume", 4, b"plain")
    assert body != seal_root_body(KEY, b"volume", 4, b"plain")
    assert open_root_body(KEY, b"volume", 4, body) == b"plain"
    for key, volume, version in [(OTHER, b"volume", 4), (KEY, b"volumf", 4), (KEY, b"volume", 5)]:
        with pytest.raises(WrongBytes):
            open_root_body(key, volume, version, body)
    with pytest.raises(WrongBytes):
        open_root_body(KEY, b"volume", 4, body[:20])


def test_another_spelling_of_a_record_is_none(tmp_path: Path) -> None:
    kept = record(5, body=b"body")
    longer = kept.to_bytes().replace(b"\xc4\x04body", b"\xc5\x00\x04body")
    assert longer != kept.to_bytes()
    with pytest.raises(BadMessage):
        RootStore(str(tmp_path)).put(longer)
