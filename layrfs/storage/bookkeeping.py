"""What a volume has on record about money, read at once from its database, by whoever may read the file.

Owns those queries; changes nothing, also of a volume that nobody has open. Must not know a ledger. As of the last
commit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw
import msgspec

from layrfs.errors import LocalError
from layrfs.model.contracts import Terms
from layrfs.model.intents import Intent
from layrfs.model.redundancy import Redundancy
from layrfs.policy.bookkeeping import Receipts, Recorded, Records
from layrfs.policy.budgeting import Holding, holding, running
from layrfs.policy.contracts import InstalmentState, OwnerState
from layrfs.policy.paymaster import Batch, Contract, Instalment
from layrfs.storage import soundness
from layrfs.storage.contracts import UNCOVERED, cut, listed, undamaged

if TYPE_CHECKING:
    from apsw import SQLiteValue

_RECEIPTS = (
    "SELECT c.batch, count(*), count(s.number), coalesce(sum(piece_bytes(s.sealed_bytes, s.needed, s.total)), 0)"
    " FROM contract_piece c LEFT JOIN piece p ON p.id = c.piece LEFT JOIN shard s ON s.number = p.shard"
    " WHERE c.contract = ? GROUP BY c.batch ORDER BY c.batch"
)


def read_records(path: str) -> Records:
    """Blocks: for a thread. Nothing of a volume that was never mounted. Raises ``CorruptFile``, ``LocalError``."""
    if not os.path.exists(path):
        return Records()
    with undamaged(), _reading(path) as connection:
        connection.create_scalar_function("piece_bytes", _piece_bytes, 3, deterministic=True)
        return Records(tuple(_contracts(connection)), tuple(_intents(connection)))


def read_holdings(path: str, contracts: Sequence[Contract], now: float) -> list[Holding]:
    """What hosts are paid for by contracts, read a moment ago, and what waits to be covered: of a million pieces, when
    contracts are renewed. Blocks: for a thread. Raises ``CorruptFile``, ``LocalError``."""
    with _reading(path) as connection:
        found = running(contracts, now)
        return [
            holding(each, int(connection.execute(UNCOVERED, (each.number, listed(others))).get[1]))
            for each, others in found
        ]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[apsw.Connection]:
    try:
        with contextlib.closing(reader(path)) as connection:
            connection.execute("BEGIN")
            yield connection
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise soundness.damaged(path, str(error)) from error
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


def reader(path: str) -> apsw.Connection:
    """One that leaves no file behind: what has no log beside it is in nobody's use."""
    how = "mode=ro" if os.path.exists(path + "-wal") else "mode=ro&immutable=1"
    return apsw.Connection(f"file:{quote(path)}?{how}", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def _contracts(connection: apsw.Connection) -> Iterator[Recorded]:
    rows = list(connection.execute("SELECT number, terms, state, whole FROM contract ORDER BY number"))
    for number, terms, state, whole in rows:
        instalments = list(
            connection.execute(
                "SELECT state, paid_stroops, payment FROM contract_instalment WHERE contract = ? ORDER BY number",
                (number,),
            )
        )
        contract = Contract(
            number=number,
            terms=msgspec.msgpack.decode(terms, type=Terms),
            state=msgspec.convert(state, OwnerState),
            batches=tuple(_batches(connection, number)),
            instalments=tuple(
                Instalment(msgspec.convert(word, InstalmentState), paid) for word, paid, _ in instalments
            ),
            whole=bool(whole),
        )
        receipts = tuple(Receipts(*row) for row in connection.execute(_RECEIPTS, (number,)))
        yield Recorded(contract, tuple(payment for _, _, payment in instalments), receipts)


def _batches(connection: apsw.Connection, number: int) -> Iterator[Batch]:
    query = "SELECT number, first, at, bytes, digests, covered FROM contract_batch WHERE contract = ? ORDER BY number"
    for batch, first, at, stored_bytes, digests, covered in connection.execute(query, (number,)):
        yield Batch(batch, first, at, stored_bytes, cut(digests), bool(covered))


def _intents(connection: apsw.Connection) -> Iterator[Intent]:
    query = "SELECT hash, xdr, made_at, latest, purpose, abandoned FROM local_intent ORDER BY made_at, hash"
    for hash_, xdr, made_at, latest, purpose, abandoned in connection.execute(query):
        yield Intent(hash_, xdr, made_at, latest, purpose, bool(abandoned))


def _piece_bytes(*shard: SQLiteValue) -> int | None:
    """Of a shard's sealed bytes and redundancy; NULL of a shard that is not there."""
    if None in shard:
        return None
    sealed_bytes, needed, total = (int(str(number)) for number in shard)
    return Redundancy(needed, total).piece_bytes(sealed_bytes)
