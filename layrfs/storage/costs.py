"""What files cost: pieces of the shards that directories have bytes of, at the price of the contract with each host.

Owns those queries, read apart from the connection that writes. Must not know paths above the directory that is asked
for. Like `du`: bytes that several files share count for the first place that has them, so that parts add up.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import apsw
import msgspec

from layrfs.errors import LocalError
from layrfs.ids import InodeNumber
from layrfs.model.contracts import Terms
from layrfs.model.costs import Cost
from layrfs.model.redundancy import Redundancy
from layrfs.policy.dividing import Place, Shard, costs
from layrfs.storage import soundness
from layrfs.storage.bookkeeping import reader
from layrfs.storage.contracts import undamaged

_DIRECTORIES = (
    "SELECT e.name, e.inode FROM entry e CROSS JOIN inode i ON i.number = e.inode"
    " WHERE e.parent = ? AND i.mode & 61440 = 16384 ORDER BY e.name"
)
_OWN = (
    "WITH found(inode) AS (SELECT ?1 UNION SELECT e.inode FROM entry e CROSS JOIN inode i ON i.number = e.inode"
    " WHERE e.parent = ?1 AND i.mode & 61440 <> 16384)"
)
_BELOW = (
    "WITH RECURSIVE found(inode) AS"
    " (SELECT ?1 UNION SELECT e.inode FROM found f CROSS JOIN entry e ON e.parent = f.inode)"
)
_TAKE = (
    " INSERT OR IGNORE INTO temp.taken SELECT c.number, ?2, c.shard, c.length"
    " FROM found f CROSS JOIN block b ON b.inode = f.inode CROSS JOIN content c ON c.number = b.content"
)
_TAKEN = "SELECT shard, place, sum(length) FROM temp.taken GROUP BY shard, place"
_SHARD = (
    "SELECT s.sealed_bytes, s.needed, s.total, count(p.host), count(r.stroops), coalesce(sum(r.stroops), 0),"
    " (SELECT coalesce(sum(c.length), 0) FROM content c INDEXED BY content_shard WHERE c.shard = s.number"
    " AND EXISTS (SELECT 1 FROM block b INDEXED BY block_content WHERE b.content = c.number))"
    " FROM shard s LEFT JOIN piece p ON p.shard = s.number LEFT JOIN temp.price r ON r.host = p.host WHERE s.number = ?"
)
_CONTRACTS = (
    "SELECT h.number, c.terms FROM contract c JOIN host h ON h.node_id = c.node"
    " WHERE c.state = 'open' ORDER BY c.number"
)
_TABLES = """
CREATE TEMP TABLE taken(
    content INTEGER PRIMARY KEY, place INTEGER NOT NULL, shard INTEGER NOT NULL, length INTEGER NOT NULL
);
CREATE TEMP TABLE price(host INTEGER PRIMARY KEY, stroops INTEGER NOT NULL);
"""


def read_costs(path: str, inode: InodeNumber, below: bytes, depth: int) -> tuple[Cost, ...]:
    """Of a file or directory and of directories so many steps below it, parts before what they are part of.

    ``below``: its path, with which theirs begin. Blocks: for a thread. Raises ``CorruptFile``, ``LocalError``.
    """
    try:
        with contextlib.closing(reader(path)) as connection:
            connection.execute("PRAGMA temp_store = memory; BEGIN")
            connection.execute(_TABLES)
            _note_prices(connection)
            places = _places(connection, inode, below, depth)
            for at, place in enumerate(places):
                connection.execute((_BELOW if place.is_whole else _OWN) + _TAKE, (place.inode, at))
            return costs([place.shown for place in places], _shards(connection))
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise soundness.damaged(path, str(error)) from error
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


class _Found(NamedTuple):
    """A place. ``is_whole``: with all that is below it; otherwise what is in it but its directories."""

    shown: Place
    inode: InodeNumber
    is_whole: bool


def _places(connection: apsw.Connection, inode: InodeNumber, path: bytes, depth: int) -> list[_Found]:
    """In the order of their names, what is in a directory before it."""
    found: list[_Found] = []
    waiting: list[tuple[InodeNumber, bytes, int, int | None]] = [(inode, path, depth, None)]
    while waiting:
        directory, path, left, within = waiting.pop()
        at = len(found)
        found.append(_Found(Place(path, within), directory, is_whole=left <= 0))
        if left > 0:
            rows = connection.execute(_DIRECTORIES, (directory,))
            waiting += [(InodeNumber(child), path.rstrip(b"/") + b"/" + name, left - 1, at) for name, child in rows]
    last = len(found) - 1
    return [
        one._replace(shown=Place(one.shown.path, None if one.shown.within is None else last - one.shown.within))
        for one in reversed(found)
    ]


def _note_prices(connection: apsw.Connection) -> None:
    """Of hosts that are paid, by the newest contract with each."""
    rows = connection.execute(_CONTRACTS)
    with undamaged():
        prices = {host: msgspec.msgpack.decode(terms, type=Terms).price for host, terms in rows}
    connection.executemany("INSERT INTO temp.price VALUES(?, ?)", [row for row in prices.items() if row[1]])


def _shards(connection: apsw.Connection) -> Iterator[tuple[Shard, Mapping[int, int]]]:
    """Those that were met, with what places have of them."""
    for number, rows in itertools.groupby(connection.execute(_TAKEN), key=lambda row: row[0]):
        for sealed_bytes, needed, total, *of_pieces in connection.execute(_SHARD, (number,)):
            piece_bytes = Redundancy.of_row(needed, total).piece_bytes(sealed_bytes)
            yield Shard(piece_bytes, *of_pieces), {place: live_bytes for _shard, place, live_bytes in rows}
