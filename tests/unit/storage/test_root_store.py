"""A host keeps the newest root record of each volume, and never goes back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.root_body import open_root_body, seal_root_body
from layrfs.errors import BadMessage, NoSpace, WrongBytes
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
