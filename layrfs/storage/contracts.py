"""Contracts with hosts that are paid: what was agreed, which pieces are covered, what was paid, and what is not yet.

Owns the tables whose names begin with ``contract``, and ``local_payable``. Must not know when anything is due, or how
hosts and the ledger are reached. Batches are of pieces in the order of their ids.
Invariants: a piece's digests stay here until its host has agreed to the batch it is in; a contract's number between
owner and host is never used again, whatever became of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from layrfs.crypto.instalments import batch_digest
from layrfs.errors import CorruptFile
from layrfs.ids import NodeId, PieceId
from layrfs.model.contracts import Terms
from layrfs.model.payables import PieceDigests
from layrfs.policy.contracts import InstalmentState, OwnerState
from layrfs.policy.paymaster import Batch, Contract, Instalment
from layrfs.storage.database import Database, Value

DIGEST_BYTES = 32

LOOKED_FOR = "contracts looked for"
"""With this begin the names of marks that say up to where an account's history was read, each for one ledger."""

_WAITING = (
    "FROM local_payable l WHERE contract = ?1 AND NOT EXISTS (SELECT 1 FROM contract_piece p WHERE p.piece = l.piece"
    " AND (p.contract = ?1 OR p.contract IN (SELECT value FROM json_each(?2))))"
)
UNCOVERED = f"SELECT count(*), coalesce(sum(bytes), 0) {_WAITING}"
_LIVE = "SELECT number FROM contract WHERE state NOT IN ('merged', 'void') ORDER BY number"
_LIVE_WITH = "SELECT number FROM contract WHERE node = ? AND state NOT IN ('merged', 'void') ORDER BY number"


class Contracts:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[int, Contract] = {}
        self._of_host: dict[NodeId, list[int]] = {}
        self._damaged: dict[int, str] = {}

    # --------------------------------------------------------------- contracts

    def add(self, terms: Terms, state: OwnerState, *, whole: bool = True) -> int:
        """A new record; its number."""
        number = self._database.insert(
            "INSERT INTO contract(node, terms, state, whole) VALUES(?, ?, ?, ?)",
            (terms.node, terms.to_bytes(), state, int(whole)),
        )
        self._of_host.clear()
        rows = [(number, instalment) for instalment in range(terms.instalments)]
        self._database.write_many("INSERT INTO contract_instalment VALUES(?, ?, 'waiting', 0, NULL)", rows)
        return number

    def live(self) -> list[Contract]:
        """All that money may be in, in the order in which they were made."""
        return self._sound(_LIVE)

    def of_host(self, node: NodeId) -> list[Contract]:
        """Those with one host, likewise; quick, as every piece asks."""
        numbers = self._of_host.get(node)
        if numbers is None:
            numbers = self._of_host[node] = [each.number for each in self._sound(_LIVE_WITH, node)]
        return [self.get(number) for number in numbers]

    def terms_with(self, node: NodeId) -> list[Terms]:
        """Of all that there ever were between owner and host. Raises ``CorruptFile``."""
        rows = self._database.rows("SELECT terms FROM contract WHERE node = ? ORDER BY number", (node,))
        with undamaged():
            return [msgspec.msgpack.decode(row[0], type=Terms) for row in rows]

    def came_to_be(self, node: NodeId) -> list[Terms]:
        """Of those with a host that were on the ledger, or may be."""
        found = self._sound("SELECT number FROM contract WHERE node = ? AND state <> 'void'", node)
        return [each.terms for each in found]

    def newest(self) -> list[Contract]:
        """The last one with each host that there was ever one with; not those that never came to be."""
        return self._sound("SELECT max(number) FROM contract WHERE state <> 'void' GROUP BY node")

    def _sound(self, query: str, *values: Value) -> list[Contract]:
        """The contracts of these numbers; without those that are damaged, which keep no other host from being paid."""
        found = []
        for (number,) in list(self._database.rows(query, values)):
            try:
                found.append(self.get(number))
            except CorruptFile as error:
                self._damaged[number] = str(error)
            else:
                self._damaged.pop(number, None)
        return found

    @property
    def problem(self) -> str | None:
        """What cannot be read of contracts, in a sentence."""
        return next(iter(self._damaged.values()), None)

    def get(self, number: int) -> Contract:
        """Raises ``KeyError``, ``CorruptFile``."""
        if (known := self._known.get(number)) is not None:
            return known
        found = self._known[number] = self._read(number)
        return found

    def _read(self, number: int) -> Contract:
        row = self._database.row("SELECT terms, state, whole FROM contract WHERE number = ?", (number,))
        if row is None:
            raise KeyError(number)
        with undamaged():
            return Contract(
                number=number,
                terms=msgspec.msgpack.decode(row[0], type=Terms),
                state=msgspec.convert(row[1], OwnerState),
                batches=tuple(self._batches(number)),
                instalments=tuple(self._instalments(number)),
                whole=bool(row[2]),
            )

    def set_state(self, number: int, state: OwnerState) -> None:
        """What the contract is in from now on. One that is over lets go of its pieces."""
        self._change(number, "UPDATE contract SET state = ? WHERE number = ?", (state, number))
        self._of_host.clear()
        if state in {"merged", "void"}:
            self._database.write("DELETE FROM contract_piece WHERE contract = ?", (number,))
            self._database.write("DELETE FROM local_payable WHERE contract = ?", (number,))

    def set_terms(self, number: int, terms: Terms) -> None:
        """They were not known in full."""
        self._change(number, "UPDATE contract SET terms = ? WHERE number = ?", (terms.to_bytes(), number))

    def set_not_whole(self, number: int) -> None:
        """The host has covers that are not here."""
        self._change(number, "UPDATE contract SET whole = 0 WHERE number = ?", (number,))

    def set_instalment(
        self, number: int, instalment: int, state: InstalmentState, paid_stroops: int = 0, payment: bytes | None = None
    ) -> None:
        """How far it is; ``payment`` is the hash of the transaction that paid it."""
        self._change(
            number,
            "INSERT OR REPLACE INTO contract_instalment VALUES(?, ?, ?, ?, ?)",
            (number, instalment, state, paid_stroops, payment),
        )

    def _batches(self, number: int) -> Iterable[Batch]:
        rows = self._database.rows(
            "SELECT number, first, at, bytes, digests, covered FROM contract_batch WHERE contract = ? ORDER BY number",
            (number,),
        )
        for batch, first, at, stored_bytes, digests, covered in rows:
            yield Batch(batch, first, at, stored_bytes, cut(digests), bool(covered))

    def _instalments(self, number: int) -> Iterable[Instalment]:
        query = "SELECT state, paid_stroops FROM contract_instalment WHERE contract = ? ORDER BY number"
        for state, paid_stroops in self._database.rows(query, (number,)):
            yield Instalment(msgspec.convert(state, InstalmentState), paid_stroops)

    # ----------------------------------------------------------- what is not covered

    def keep(self, digests: Iterable[PieceDigests]) -> None:
        """Pieces that a host has; those that are covered by that contract already are left as they are."""
        rows = [(one.contract, one.piece, one.piece_bytes, one.first, b"".join(one.digests)) for one in digests]
        self._database.write_many(
            "INSERT OR REPLACE INTO local_payable SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS"
            " (SELECT 1 FROM contract_piece WHERE piece = ?2 AND contract = ?1)",
            rows,
        )

    def knows(self, number: int, piece: PieceId) -> bool:
        """Whether the piece is covered by the contract, or its digests wait for that."""
        return (
            self._database.value(
                "SELECT 1 FROM contract_piece WHERE piece = ?1 AND contract = ?2 UNION ALL"
                " SELECT 1 FROM local_payable WHERE contract = ?2 AND piece = ?1",
                (piece, number),
            )
            is not None
        )

    def uncovered(self, number: int, later: Collection[int] = ()) -> tuple[int, int]:
        """How many pieces wait for a cover, and their bytes; not those that contracts of ``later`` pay for so far."""
        row = self._database.row(UNCOVERED, (number, listed(later)))
        return (0, 0) if row is None else (row[0], row[1])

    def payables(self, number: int, limit: int, later: Collection[int] = ()) -> list[PieceDigests]:
        """Some of them, in the order of their ids."""
        query = f"SELECT piece, bytes, first, digests {_WAITING} ORDER BY piece LIMIT ?3"
        return [
            PieceDigests(PieceId(piece), piece_bytes, number, first, cut(digests))
            for piece, piece_bytes, first, digests in self._database.rows(query, (number, listed(later), limit))
        ]

    def forget_payable(self, number: int, pieces: Iterable[PieceId]) -> None:
        """The host does not have them."""
        rows = ((number, piece) for piece in pieces)
        self._database.write_many("DELETE FROM local_payable WHERE contract = ? AND piece = ?", rows)

    # ----------------------------------------------------------------- batches

    def offer(self, number: int, pieces: Sequence[PieceDigests], first: int, at: int, salts: Iterable[bytes]) -> Batch:
        """Make the next batch, of pieces by their ids, with digests from ``first`` on; ``salts`` are of those.

        No piece may have digests from a later instalment on only.
        """
        if any(one.first > first for one in pieces):
            raise AssertionError("another instalment's digest would be taken")
        digests = tuple(
            batch_digest(salt, [one.digests[instalment - one.first] for one in pieces])
            for instalment, salt in enumerate(salts, first)
        )
        count: int = self._database.value("SELECT count(*) FROM contract_batch WHERE contract = ?", (number,))
        stored_bytes = sum(one.piece_bytes for one in pieces)
        batch = Batch(count, first, at, stored_bytes, digests, covered=False)
        self._change(
            number,
            "INSERT INTO contract_batch VALUES(?, ?, ?, ?, ?, ?, 0)",
            (number, batch.number, first, at, stored_bytes, b"".join(digests)),
        )
        rows = [(one.piece, number, batch.number) for one in pieces]
        self._database.write_many("INSERT INTO contract_piece VALUES(?, ?, ?)", rows)
        return batch

    def pieces_of(self, number: int, batch: int) -> tuple[PieceId, ...]:
        """The pieces of a batch, in its order."""
        query = "SELECT piece FROM contract_piece WHERE contract = ? AND batch = ? ORDER BY piece"
        return tuple(PieceId(row[0]) for row in self._database.rows(query, (number, batch)))

    def set_covered(self, number: int, batch: int) -> None:
        """The host has agreed to it."""
        self._change(number, "UPDATE contract_batch SET covered = 1 WHERE contract = ? AND number = ?", (number, batch))
        self._database.write(
            "DELETE FROM local_payable WHERE contract = ?1 AND piece IN"
            " (SELECT piece FROM contract_piece WHERE contract = ?1 AND batch = ?2)",
            (number, batch),
        )

    def withdraw(self, number: int, batch: int) -> None:
        """The host has not agreed to the last batch and is not going to: its pieces wait again."""
        self._database.write("DELETE FROM contract_piece WHERE contract = ? AND batch = ?", (number, batch))
        self._change(number, "DELETE FROM contract_batch WHERE contract = ? AND number = ?", (number, batch))

    def _change(self, number: int, statement: str, values: tuple[Value, ...]) -> None:
        self._known.pop(number, None)
        self._database.write(statement, values)


@contextlib.contextmanager
def undamaged() -> Iterator[None]:
    """What is read of contracts inside is as it was written. Raises ``CorruptFile``."""
    try:
        yield
    except msgspec.MsgspecError as error:
        raise CorruptFile(f"The record of a contract is damaged ({error}): nothing more is paid under it.") from error


def listed(numbers: Collection[int]) -> str:
    """As ``UNCOVERED`` takes them."""
    return json.dumps(list(numbers))


def cut(digests: bytes) -> tuple[bytes, ...]:
    """Digests that are kept one after the other."""
    return tuple(digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
