"""Recognizing an end by consent on the ledger: it is built anew from what it did, and has to have the same hash. Pure.

Must not know what it should have paid. Invariant: what has that hash was signed by escrow and host, and did just this.
"""

from __future__ import annotations

from collections.abc import Sequence

from layrfs.model.contracts import Terms
from layrfs.payments.envelopes import settle
from layrfs.payments.reading import Movement, Submission


def is_end(terms: Terms, submission: Submission, moved: Sequence[Movement]) -> bool:
    """Whether a transaction that was carried out is one of this contract."""
    to_host = sum(each.stroops for each in moved if each.destination == terms.host)
    rebuilt = settle(terms, host_stroops=to_host, sequence_number=submission.sequence, last_second=submission.latest)
    return rebuilt.hash == submission.hash
