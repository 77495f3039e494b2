from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage, LocalError, NoSpace, Unavailable
from layrfs.ids import NodeId, PieceId, VolumeId
from layrfs.model.redundancy import Redundancy
from layrfs.pipeline.jobs import (
    Attempt,
    ContentAnswer,
    ContentQuestion,
    Done,
    Failed,
    PlacesQuestion,
    Start,
    Unpacker,
    Upload,
    Wish,
    WorkerKeys,
    from_worker_untrusted,
    pack,
    to_worker_untrusted,
)
from layrfs.pipeline.transfers import Duplicate, Slot, SourcePart, Stored, StoredPart, Uploaded, Zero

KEYS = WorkerKeys(b"c" * 32, b"m" * 32, b"d" * 32, VolumeId(b"v" * 32), b"n" * 32, b"w" * 32)
TO_WORKER = [
    Start(KEYS),
    Upload(7, (SourcePart(2, 0, "/some/path", 0, 4096),), Redundancy(1, 3)),
    ContentAnswer(7, 1, ((b"d" * 32, 5, 100),)),
]
FROM_WORKER = [
    ContentQuestion(7, 1, (b"d" * 32,)),
    PlacesQuestion(7, 2, (Wish(Slot(0, 0), PieceId(b"p" * 32), 100, NodeId(b"h" * 20), "refused"),)),
    Done(7, Uploaded((Stored(StoredPart(b"d" * 32, 0, 9)), Duplicate(3, 8), Zero()), None)),
    Failed(8, "Unavailable", "No.", (Attempt(PieceId(b"p" * 32), NodeId(b"h" * 20), "late", 0.5),)),
]


@given(st.lists(st.integers(1, 50), max_size=40))
def test_messages_survive_being_cut_anywhere(cuts: list[int]) -> None:
    stream = b"".join(pack(message) for message in TO_WORKER)
    unpacker, bodies = Unpacker(), []
    for cut in [*cuts, len(stream)]:
        unpacker.feed(stream[:cut])
        stream = stream[cut:]
        bodies += list(unpacker.bodies_untrusted())
    assert [to_worker_untrusted(body) for body in bodies] == TO_WORKER


@pytest.mark.parametrize("message", FROM_WORKER)
def test_what_a_worker_says_is_understood(message: Done | Failed | ContentQuestion | PlacesQuestion) -> None:
    unpacker = Unpacker()
    unpacker.feed(pack(message))
    assert [from_worker_untrusted(body) for body in unpacker.bodies_untrusted()] == [message]


def test_an_impossible_length_is_refused_before_anything_is_kept_for_it() -> None:
    unpacker = Unpacker()
    unpacker.feed(b"\xff\xff\xff\xff")
    with pytest.raises(BadMessage):
        list(unpacker.bodies_untrusted())


@given(st.binary(max_size=200))
def test_other_bytes_are_bad_messages(data: bytes) -> None:
    for decode in (to_worker_untrusted, from_worker_untrusted):
        with pytest.raises(BadMessage):
            decode(b"\x00" + data)


@pytest.mark.parametrize(
    ("kind", "error"), [("Unavailable", Unavailable), ("NoSpace", NoSpace), ("SystemExit", LocalError)]
)
def test_a_failure_becomes_one_of_our_errors(kind: str, error: type[Exception]) -> None:
    assert type(Failed(1, kind, "Why.").error()) is error


def test_keys_are_not_printed() -> None:
    assert "cccc" not in repr(Start(KEYS))
    assert "nnnn" not in str(KEYS)
