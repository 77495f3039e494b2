"""What files cost: pieces of the shards that directories need, at the price of the contract with each host.

Owns those queries, read apart from the connection that writes. Must not know paths above the directory that is asked
for. Like `du`: a shard that several files need counts for the first of them that is met, so that parts add up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import apsw
import msgspec

from layrfs.errors import LocalError
from layrfs.ids import InodeNumber
from layrfs.model.contracts import Terms
from layrfs.model.costs import Cost
from layrfs.model.redundancy import Redundancy
from layrfs.storage import soundness
from layrfs.storage.bookkeeping import reader

_CHILDREN = (
    "SELECT e.name, e.inode, i.mode & 61440 = 16384 FROM entry e JOIN inode i ON i.number = e.inode"
    " WHERE e.parent = ? ORDER BY e.name"
)
_SHARDS = "SELECT DISTINCT c.shard FROM block b JOIN content c ON c.number = b.content WHERE b.inode = ?"
_PIECES = (
    "SELECT p.host, s.sealed_bytes, s.needed, s.total FROM piece p JOIN shard s ON s.number = p.shard WHERE p.shard = ?"
)
_CONTRACTS = (
    "SELECT h.number, c.terms FROM contract c JOIN host h ON h.node_id = c.node"
    " WHERE c.state = 'open' ORDER BY c.number"
)


def read_costs(path: str, inode: InodeNumber, below: bytes, depth: int) -> tuple[Cost, ...]:
    """Of a file or directory and of directories so many steps below it, parts before what they are part of.

    ``below``: its path, with which theirs begin. Blocks: for a thread. Raises ``CorruptFile``, ``LocalError``.
    """
    try:
        with contextlib.closing(reader(path)) as connection:
            connection.execute("BEGIN")
            return tuple(_Counting(connection).below(inode, below, depth))
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise soundness.damaged(path, str(error)) from error
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


class _Counting:
    """One pass over a part of a volume."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._prices: Mapping[int, int] = {
            host: msgspec.msgpack.decode(terms, type=Terms).price for host, terms in connection.execute(_CONTRACTS)
        }
        self._counted: set[int] = set()
        self._seen: set[int] = set()

    def below(self, inode: InodeNumber, path: bytes, depth: int) -> Iterator[Cost]:
        """The last one is of the inode itself."""
        if depth <= 0:
            yield self._whole(inode, path)
            return
        total = self._of_file(inode, path)
        for name, child, is_directory in list(self._connection.execute(_CHILDREN, (inode,))):
            if is_directory:
                for cost in self.below(InodeNumber(child), path.rstrip(b"/") + b"/" + name, depth - 1):
                    yield cost
                total += cost
            else:
                total += self._of_file(InodeNumber(child), path)
        yield total

    def _whole(self, inode: InodeNumber, path: bytes) -> Cost:
        """However deep it is."""
        total, waiting = Cost(path), [inode]
        while waiting:
            each = waiting.pop()
            total += self._of_file(each, path)
            waiting += [InodeNumber(child) for _name, child, _ in self._connection.execute(_CHILDREN, (each,))]
        return total

    def _of_file(self, inode: InodeNumber, path: bytes) -> Cost:
        """Nothing of one that was met before, by another name, and of what has no blocks."""
        if inode in self._seen:
            return Cost(path)
        self._seen.add(inode)
        found = Cost(path)
        for (shard,) in list(self._connection.execute(_SHARDS, (inode,))):
            if shard not in self._counted:
                self._counted.add(shard)
                found += self._of_shard(shard, path)
        return found

    def _of_shard(self, shard: int, path: bytes) -> Cost:
        stored = paid = priced = 0
        for host, sealed_bytes, needed, total in self._connection.execute(_PIECES, (shard,)):
            piece_bytes = Redundancy(needed, total).piece_bytes(sealed_bytes)
            stored += piece_bytes
            if price := self._prices.get(host):
                paid += piece_bytes
                priced += price * piece_bytes
        return Cost(path, stored, paid, priced)
