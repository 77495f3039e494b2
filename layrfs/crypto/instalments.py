"""The answer that opens an instalment: 32 bytes that nobody can make who does not have the pieces of a contract.

Pieces are grouped into batches, one for each cover, both in order. Pure arithmetic that owner and host share. Must not
know which pieces are where, or what an instalment pays.
Invariant: everything is bound to the salt, which the owner discloses when the instalment falls due, and the whole to
one instalment of one contract: nothing can be begun before, and no answer opens two locks.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from layrfs.crypto import labels
from layrfs.crypto.challenges import AnswerKind, answer_digest
from layrfs.crypto.digests import Buffer, labelled
from layrfs.ids import PieceId

ANSWER_BYTES = 32
"""What the ledger calls a preimage, of which it takes 64 bytes at most."""


def kind_of(instalment: int) -> AnswerKind:
    """Of a piece: the first instalment, for the upload, is about all its bytes, the others about leaves."""
    return "leaves" if instalment else "whole"


def piece_digest(salt: bytes, instalment: int, piece: PieceId, data: Buffer) -> bytes:
    """32 bytes: a piece's part of the answer. ``salt`` is the instalment's, 32 bytes."""
    return answer_digest(salt, piece, data, kind_of(instalment))


def batch_digest(salt: bytes, digests: Sequence[bytes]) -> bytes:
    """32 bytes of the digests of a batch's pieces, in the batch's order."""
    return labelled(labels.INSTALMENT_BATCH, salt + struct.pack("<Q", len(digests)) + b"".join(digests))


def answer(salt: bytes, contract_id: bytes, instalment: int, batches: Sequence[bytes]) -> bytes:
    """The 32 bytes that open the instalment, from the digests of the batches it is for, in order."""
    head = salt + contract_id + struct.pack("<HI", instalment, len(batches))
    return labelled(labels.INSTALMENT_ANSWER, head + b"".join(batches))


def lock_hash(answered: bytes) -> bytes:
    """What the ledger compares an answer with."""
    return hashlib.sha256(answered).digest()
