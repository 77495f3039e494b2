"""From one version of a volume's tables to another: the change between the two, and what it touches.

Must not know files, memory or hosts. A version is a list of changesets in order; what leads from one to the other
is *one* changeset: the old ones undone and the new ones done, all of it netted out, so that merged segments cost rows
in proportion to what really changed. Where the changesets are not at hand, two whole databases are compared instead.

Functions here block and may run in a thread; applying is ``Database.apply``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from layrfs.errors import CorruptFile, LocalError
from layrfs.ids import InodeNumber
from layrfs.storage.journal import BlockKey
from layrfs.storage.schema import VOLUME_TABLES


def difference(undone: Sequence[bytes], done: Sequence[bytes]) -> bytes:
    """The change from where ``undone`` (oldest first) was applied last to where ``done`` is instead.

    Raises ``CorruptFile`` for what are no changesets.
    """
    builder = apsw.ChangesetBuilder()  # type: ignore[no-untyped-call]  # apsw's stub leaves __init__ untyped
    try:
        for changes in reversed(undone):
            builder.add(apsw.Changeset.invert(changes))
        for changes in done:
            builder.add(changes)
        return builder.output()
    except apsw.Error as error:
        raise CorruptFile(f"A segment of the volume's history is damaged: {error}") from error
    finally:
        builder.close()


def database_difference(old: str, new: str) -> bytes:
    """The change from the volume in one database to that in another; reads both with a connection of its own."""
    try:
        with contextlib.closing(apsw.Connection(new)) as connection:
            connection.execute("ATTACH DATABASE ? AS old", (old,))
            with contextlib.closing(apsw.Session(connection, "main")) as session:
                for table in VOLUME_TABLES:
                    session.attach(table)
                    session.diff("old", table)
                return session.changeset()
    except apsw.Error as error:
        raise LocalError(f"{old} and {new} cannot be compared: {error}") from error


class Touched(msgspec.Struct, frozen=True):
    """What a change is about, as far as anybody remembers or keeps something of it."""

    inodes: frozenset[InodeNumber] = frozenset()
    """With other attributes than before, or new."""
    removed: frozenset[InodeNumber] = frozenset()
    recut: frozenset[InodeNumber] = frozenset()
    """With blocks of another size than before."""
    blocks: frozenset[BlockKey] = frozenset()
    """With other bytes than before, or readable now and not before, or the other way round."""
    contents: frozenset[int] = frozenset()
    """Numbers that stand for other bytes than before: every block that names one is touched as well."""
    shards: frozenset[int] = frozenset()
    """With other pieces than before."""


def touched(changes: bytes) -> Touched:
    """What a changeset is about."""
    found: dict[str, set[Any]] = {name: set() for name in Touched.__struct_fields__}
    for change in apsw.Changeset.iter(changes):
        _note(change, found)
    return Touched(**{name: frozenset(values) for name, values in found.items()})


_BLOCK_BYTES, _DIGEST = 6, 1
"""Columns of ``inode`` and ``content``."""


def _is_changed(change: apsw.TableChange, column: int) -> bool:
    """Whether a row that was there before and is now has another value there."""
    return change.op == "UPDATE" and change.new is not None and change.new[column] is not apsw.no_change


def _note(change: apsw.TableChange, found: dict[str, set[Any]]) -> None:
    key = change.old or change.new or ()
    match change.name:
        case "inode":
            found["removed" if change.op == "DELETE" else "inodes"].add(key[0])
            if _is_changed(change, _BLOCK_BYTES):
                found["recut"].add(key[0])
        case "attribute":
            found["inodes"].add(key[0])
        case "block" | "unsent":
            found["blocks"].add(key[:2])
            found["inodes"].add(key[0])
        case "content":
            if _is_changed(change, _DIGEST):
                found["contents"].add(key[0])
        case "shard" | "piece":
            found["shards"].add(key[0])
        case _:
            pass
