"""A host's durable record of its contracts: terms, covers, locks, salts, and what was stored on credit.

Owns the tables ``local_hosted…`` and ``local_uncovered`` of the host's own database. Must not know the ledger, or what
becomes of a contract: states are decided by `layrfs.policy.contracts`. Plain code on the trio thread, in the open
transaction. Invariant: what is here takes no owner's word to claim with; only salts that are not disclosed are lacking.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from layrfs.ids import PieceId
from layrfs.model.contracts import Terms, terms_untrusted
from layrfs.model.hosted import Batch, Ending, Hosted, Owed, Uncovered
from layrfs.policy.contracts import HostState, InstalmentState
from layrfs.storage.database import Database, Row, Value

_HOSTED = "SELECT number, terms, state, since, released, late, end_stroops, end_sequence, end_latest FROM local_hosted"
_NAMED = (
    "SELECT 1 FROM local_hosted_piece p JOIN local_hosted c ON c.number = p.contract"
    " WHERE p.piece = ? AND c.released = 0"
)
_LEFT_ALONE = (
    "SELECT 1 FROM local_hosted_piece p WHERE p.contract = ?1 AND NOT EXISTS"
    " (SELECT 1 FROM local_hosted_piece q JOIN local_hosted c ON c.number = q.contract"
    " JOIN local_hosted_batch b ON b.contract = q.contract AND b.batch = q.batch"
    " JOIN local_hosted_instalment i ON i.contract = q.contract AND i.instalment >= b.first AND i.state = 'claimed'"
    " WHERE q.piece = p.piece AND c.state = 'open' AND c.end_latest IS NULL) LIMIT 1"
)
_UNCOVERED = (
    "SELECT coalesce(sum(bytes), 0), total(bytes * max(0, ? - max(stored, ?))), coalesce(min(stored), 0)"
    " FROM local_uncovered WHERE tenant = ?"
)
_DEADLINES = (
    "SELECT 1 FROM local_hosted WHERE released = 0 AND state IN ('notice', 'ended')"
    " UNION ALL SELECT 1 FROM local_uncovered WHERE until IS NOT NULL LIMIT 1"
)
_INSTALMENTS = (
    "SELECT instalment, amount, hash, signature, salt, salts, problem, state FROM local_hosted_instalment"
    " WHERE contract = ? ORDER BY instalment"
)


class HostContracts:
    """One host's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, terms: Terms, now: int, *, late: bool = False) -> Hosted:
        """Agreed. Terms that are here already stay as they are; others' escrow is an error."""
        row = (terms.contract_id, terms.tenant, terms.escrow, terms.to_bytes(), now, int(late))
        self._database.write(
            "INSERT INTO local_hosted(id, tenant, escrow, terms, state, since, late) VALUES(?, ?, ?, ?, 'agreed', ?, ?)"
            " ON CONFLICT(id) DO NOTHING",
            row,
        )
        found = self.find(terms.contract_id)
        if found is None:
            raise AssertionError("a row that was just written is there")
        empty = ((found.number, instalment, 0, b"", b"") for instalment in range(terms.instalments))
        self._database.write_many(
            "INSERT OR IGNORE INTO local_hosted_instalment(contract, instalment, amount, hash, signature)"
            " VALUES(?, ?, ?, ?, ?)",
            empty,
        )
        return found

    def find(self, contract_id: bytes) -> Hosted | None:
        """By the id of its terms."""
        row = self._database.row(f"{_HOSTED} WHERE id = ?", (contract_id,))
        return None if row is None else _hosted(row)

    def of_escrow(self, escrow: bytes) -> Hosted | None:
        """The one that has this escrow account, or had."""
        row = self._database.row(f"{_HOSTED} WHERE escrow = ?", (escrow,))
        return None if row is None else _hosted(row)

    def fresh(self, hosted: Hosted) -> Hosted | None:
        """As it is now; None when it was forgotten."""
        row = self._database.row(f"{_HOSTED} WHERE number = ?", (hosted.number,))
        return None if row is None else _hosted(row)

    def of_tenant(self, tenant: bytes) -> list[Hosted]:
        """All of an owner's, oldest first."""
        return [_hosted(row) for row in self._database.rows(f"{_HOSTED} WHERE tenant = ? ORDER BY number", (tenant,))]

    def all(self) -> list[Hosted]:
        """Oldest first, those that ended long ago included."""
        return [_hosted(row) for row in self._database.rows(f"{_HOSTED} ORDER BY number")]

    def kept(self) -> list[Hosted]:
        """Those that have something to do: not released yet."""
        return [_hosted(row) for row in self._database.rows(f"{_HOSTED} WHERE released = 0 ORDER BY number")]

    def set_state(self, number: int, state: HostState, since: int) -> None:
        """Since when, in Unix seconds."""
        self._database.write("UPDATE local_hosted SET state = ?, since = ? WHERE number = ?", (state, since, number))

    def set_ending(self, number: int, ending: Ending | None) -> None:
        """An end by consent that may come from now on; None: the one there was never will."""
        values = (None, None, None) if ending is None else (ending.stroops, ending.sequence, ending.latest)
        self._database.write(
            "UPDATE local_hosted SET end_stroops = ?, end_sequence = ?, end_latest = ? WHERE number = ?",
            (*values, number),
        )

    def forget(self, number: int) -> None:
        """A contract that never began."""
        self._database.write("DELETE FROM local_hosted_instalment WHERE contract = ?", (number,))
        self._database.write("DELETE FROM local_hosted WHERE number = ?", (number,))

    def batches(self, number: int) -> list[Batch]:
        """Of a contract, in order."""
        rows = self._database.rows(
            "SELECT first, at, bytes, (SELECT count(*) FROM local_hosted_piece p WHERE p.contract = b.contract"
            " AND p.batch = b.batch) FROM local_hosted_batch b WHERE contract = ? ORDER BY batch",
            (number,),
        )
        return [Batch(*row) for row in rows]

    def pieces(self, number: int, batch: int) -> tuple[PieceId, ...]:
        """Of one cover, in the order in which they are hashed."""
        query = "SELECT piece FROM local_hosted_piece WHERE contract = ? AND batch = ? ORDER BY position"
        return tuple(PieceId(piece) for (piece,) in self._database.rows(query, (number, batch)))

    def instalments(self, number: int) -> list[Owed]:
        """All of a contract's."""
        return [Owed(*row) for row in self._database.rows(_INSTALMENTS, (number,))]

    def cover(
        self, number: int, first: int, at: int, stored_bytes: int, pieces: Sequence[PieceId], locks: Iterable[Row]
    ) -> None:
        """One more batch; ``locks`` are (amount, hash, signature) of the instalments from ``first`` on."""
        batch = self._database.value("SELECT count(*) FROM local_hosted_batch WHERE contract = ?", (number,))
        self._database.write(
            "INSERT INTO local_hosted_batch VALUES(?, ?, ?, ?, ?)", (number, batch, first, at, stored_bytes)
        )
        rows = ((number, batch, position, piece) for position, piece in enumerate(pieces))
        self._database.write_many("INSERT INTO local_hosted_piece VALUES(?, ?, ?, ?)", rows)
        self._database.write_many(
            "UPDATE local_hosted_instalment SET amount = ?, hash = ?, signature = ?, salt = NULL, problem = NULL,"
            " state = 'waiting' WHERE contract = ? AND instalment = ?",
            ((*lock, number, instalment) for instalment, lock in enumerate(locks, first)),
        )
        self._database.write_many("DELETE FROM local_uncovered WHERE piece = ?", ((piece,) for piece in pieces))

    def disclose(self, number: int, instalment: int, salt: bytes) -> None:
        """The owner has said a salt, instead of one that came to nothing."""
        self._database.write(
            "UPDATE local_hosted_instalment SET salt = ?, salts = salts + 1, problem = NULL, state = 'disclosed'"
            " WHERE contract = ? AND instalment = ?",
            (salt, number, instalment),
        )

    def set_problem(self, number: int, instalment: int, problem: str) -> None:
        """The salt that was disclosed comes to nothing: it counts as none."""
        self._database.write(
            "UPDATE local_hosted_instalment SET problem = ?, state = 'waiting' WHERE contract = ? AND instalment = ?",
            (problem, number, instalment),
        )

    def set_instalment(self, number: int, instalment: int, state: InstalmentState) -> None:
        """What became of it."""
        self._database.write(
            "UPDATE local_hosted_instalment SET state = ? WHERE contract = ? AND instalment = ?",
            (state, number, instalment),
        )

    def stored(self, piece: PieceId, tenant: bytes, piece_bytes: int, now: int) -> None:
        """A piece has come. One that is covered already has come back, and costs no credit; one that was about to be
        let go of is stored anew."""
        if not self.is_owed(piece):
            self._database.write(
                "INSERT INTO local_uncovered VALUES(?, ?, ?, ?, NULL) ON CONFLICT(piece) DO UPDATE"
                " SET stored = excluded.stored, until = NULL WHERE until IS NOT NULL",
                (piece, tenant, piece_bytes, now),
            )

    def hand_over(self, tenant: bytes, pieces: Iterable[tuple[PieceId, int]], now: int, until: int) -> None:
        """Pieces and their bytes, which a contract that is released had covered, wait so long for the owner's next."""
        rows = ((piece, tenant, piece_bytes, now, until) for piece, piece_bytes in pieces)
        self._database.write_many("INSERT OR IGNORE INTO local_uncovered VALUES(?, ?, ?, ?, ?)", rows)

    def overdue(self, now: int) -> dict[bytes, list[PieceId]]:
        """Those that have waited long enough, by tenant."""
        found: dict[bytes, list[PieceId]] = {}
        for tenant, piece in self._database.rows("SELECT tenant, piece FROM local_uncovered WHERE until <= ?", (now,)):
            found.setdefault(tenant, []).append(PieceId(piece))
        return found

    def is_overdue(self, piece: PieceId, now: int) -> bool:
        """Whether it is one of those still: it may have been stored anew, or covered."""
        query = "SELECT 1 FROM local_uncovered WHERE piece = ? AND until <= ?"
        return self._database.value(query, (piece, now)) is not None

    def forget_uncovered(self, pieces: Collection[PieceId]) -> None:
        """They are gone."""
        self._database.write_many("DELETE FROM local_uncovered WHERE piece = ?", ((piece,) for piece in pieces))

    def uncovered(self, tenant: bytes, now: int) -> Uncovered:
        """All of a tenant that no contract covers, up to now."""
        return self._sum(_UNCOVERED, (now, 0, tenant))

    def on_credit(self, tenant: bytes, now: int, since: int = 0) -> Uncovered:
        """What of it none ever did. ``since``: what was before then is not counted any more."""
        return self._sum(f"{_UNCOVERED} AND until IS NULL", (now, since, tenant))

    def _sum(self, query: str, values: tuple[Value, ...]) -> Uncovered:
        """Byte-seconds to 53 bits: no whole number of SQL's holds what a large host's may come to."""
        row = self._database.row(query, values)
        return Uncovered() if row is None else Uncovered(row[0], int(row[1]), row[2])

    def stored_before(self, tenant: bytes, before: int) -> int:
        """How many bytes a tenant has on credit since before then."""
        query = "SELECT coalesce(sum(bytes), 0) FROM local_uncovered WHERE tenant = ? AND stored < ? AND until IS NULL"
        found: int = self._database.value(query, (tenant, before))
        return found

    def uncovered_pieces(self, tenant: bytes | None = None) -> list[PieceId]:
        """Which those are; of all tenants when none is named."""
        query = "SELECT piece FROM local_uncovered WHERE ?1 IS NULL OR tenant = ?1"
        return [PieceId(piece) for (piece,) in self._database.rows(query, (tenant,))]

    def is_owed(self, piece: PieceId) -> bool:
        """Whether a contract that has not ended needs it: without it the host cannot answer."""
        return self._database.value(f"{_NAMED} AND c.state <> 'ended' LIMIT 1", (piece,)) is not None

    def is_kept(self, piece: PieceId, *, besides: int) -> bool:
        """Whether another contract that is not released names it, or none covers it yet."""
        uncovered = self._database.value("SELECT 1 FROM local_uncovered WHERE piece = ?", (piece,))
        named = f"{_NAMED} AND c.number <> ? LIMIT 1"
        return uncovered is not None or self._database.value(named, (piece, besides)) is not None

    def names_all(self, number: int, pieces: Iterable[PieceId], instalment: int) -> bool:
        """Whether an instalment of the contract is about all of these pieces."""
        query = (
            "SELECT 1 FROM local_hosted_piece p JOIN local_hosted_batch b ON b.contract = p.contract"
            " AND b.batch = p.batch WHERE p.piece = ? AND p.contract = ? AND b.first <= ? LIMIT 1"
        )
        return all(self._database.value(query, (piece, number, instalment)) is not None for piece in pieces)

    def is_followed(self, number: int) -> bool:
        """Whether an open contract goes on with each piece that this one names, and was paid for it already."""
        return self._database.value(_LEFT_ALONE, (number,)) is None

    def forget_ended(self, pieces: Collection[PieceId]) -> None:
        """They are gone: contracts that have ended name them no more."""
        self._database.write_many(
            "DELETE FROM local_hosted_piece WHERE piece = ?"
            " AND contract IN (SELECT number FROM local_hosted WHERE state = 'ended')",
            ((piece,) for piece in pieces),
        )

    def named_by(self, number: int) -> list[PieceId]:
        """What a contract covers, or did, and what has not been let go of since."""
        query = "SELECT DISTINCT piece FROM local_hosted_piece WHERE contract = ?"
        return [PieceId(piece) for (piece,) in self._database.rows(query, (number,))]

    def release(self, number: int) -> None:
        """The contract keeps nothing any more."""
        self._database.write("UPDATE local_hosted SET released = 1 WHERE number = ?", (number,))
        self._database.write("DELETE FROM local_hosted_piece WHERE contract = ?", (number,))

    @property
    def last_round(self) -> int | None:
        """The ledger's time in one of the last rounds, while there are deadlines."""
        seen: int | None = self._database.value("SELECT value FROM local_mark WHERE name = 'last round'")
        return seen

    def set_last_round(self, now: int | None) -> None:
        """None: nothing waits."""
        self._database.write("DELETE FROM local_mark WHERE name = 'last round'")
        if now is not None:
            self._database.write("INSERT INTO local_mark VALUES('last round', ?)", (now,))

    def has_deadlines(self) -> bool:
        """Whether something will be let go of when time alone goes by."""
        return self._database.value(_DEADLINES) is not None

    def postpone(self, seconds: int) -> None:
        """All of them."""
        self._database.write(
            "UPDATE local_hosted SET since = since + ? WHERE released = 0 AND state IN ('notice', 'ended')", (seconds,)
        )
        self._database.write("UPDATE local_uncovered SET until = until + ? WHERE until IS NOT NULL", (seconds,))

    @property
    def leaving(self) -> bool:
        """Whether the host takes nothing new."""
        return bool(self._database.value("SELECT value FROM local_mark WHERE name = 'leaving'"))

    def set_leaving(self, *, leaving: bool) -> None:
        """From now on."""
        self._database.write("INSERT OR REPLACE INTO local_mark VALUES('leaving', ?)", (int(leaving),))


def _hosted(row: Row) -> Hosted:
    number, terms, state, since, released, late, *end = row
    ending = None if end[0] is None else Ending(*end)
    return Hosted(number, terms_untrusted(terms), state, since, bool(released), bool(late), ending)
