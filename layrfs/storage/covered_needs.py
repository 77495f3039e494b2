"""Whether a contract is needed: it covers pieces of files, or of lists of files, that no other contract covers.

Reads across the tables of contracts, of files and of what is to be dropped; writes nothing. Must not know what becomes
of the contract. Invariant: a piece counts as covered by another when the host has agreed to that batch, not before.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable

import apsw

from layrfs.errors import LocalError
from layrfs.ids import NodeId, PieceId
from layrfs.storage.contracts import listed

_ONLY_HERE = """
SELECT 1 FROM (
    SELECT p.id AS piece FROM host h JOIN piece p ON p.host = h.number WHERE h.node_id = ?3
    UNION ALL SELECT piece FROM local_retired WHERE host = ?3 AND (since IS NULL OR since > ?4)
    UNION ALL SELECT unhex(value) FROM json_each(?5)
) needed
WHERE EXISTS (SELECT 1 FROM contract_piece c WHERE c.piece = needed.piece AND c.contract = ?1)
AND NOT EXISTS (
    SELECT 1 FROM contract_piece c JOIN contract_batch b ON b.contract = c.contract AND b.number = c.batch
    WHERE c.piece = needed.piece AND c.contract IN (SELECT value FROM json_each(?2)) AND b.covered = 1
)
AND NOT EXISTS (
    SELECT 1 FROM local_payable l WHERE l.piece = needed.piece AND l.contract IN (SELECT value FROM json_each(?6))
)
LIMIT 1
"""


def is_only_in(
    path: str,
    contract: int,
    others: Collection[int],
    digesting: Collection[int],
    host: NodeId,
    metadata: Iterable[PieceId],
    until: int,
) -> bool:
    """Whether something that is needed at the host is covered by this contract and by none of the others.

    What waits for a cover in one of ``digesting`` counts as covered, what nothing has needed since ``until`` is not
    needed. As of the last commit. ``path``: of the database. ``metadata``: the host's pieces of lists of files. For a
    thread; raises ``LocalError``.
    """
    pieces = json.dumps([piece.hex() for piece in metadata])
    bindings = contract, listed(others), host, until, pieces, listed(digesting)
    try:
        with contextlib.closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            rows = connection.execute(_ONLY_HERE, bindings)
            return rows.fetchone() is not None
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error
