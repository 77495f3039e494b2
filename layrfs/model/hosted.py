"""What a host has on record of a contract: the contract's state, what was covered, what each instalment needs.

Owns the shapes alone; `layrfs.storage.host_contracts` keeps them, `layrfs.policy.earning` decides on them. Amounts are
in stroops, times in Unix seconds by the ledger's clock.
"""

from __future__ import annotations

from msgspec import Struct

from layrfs.model.contracts import Terms
from layrfs.wire.contracts import ContractState, InstalmentState


class Ending(Struct, frozen=True):
    """An end by consent that the host has signed: what it gets, the transaction's number, its last second."""

    stroops: int
    sequence: int
    latest: int


class Hosted(Struct, frozen=True):
    """One contract. ``number`` is the record's own; ``since`` is when the state began.

    ``late``: it was taken up again in the middle, because the record was lost. ``ending``: signed, and not known to be
    impossible; of a contract that has ended, how it did.
    """

    number: int
    terms: Terms
    state: ContractState
    since: int
    released: bool = False
    late: bool = False
    ending: Ending | None = None


class Batch(Struct, frozen=True):
    """One cover: the first instalment it has to do with, since when it is paid for, and how much it is."""

    first: int
    at: int
    bytes: int
    pieces: int


class Owed(Struct, frozen=True):
    """One instalment. ``amount_stroops`` 0: nothing is covered yet, and there is no lock.

    ``salt`` is the last one disclosed and ``salts`` how many there were; ``problem`` says why that one came to nothing.
    """

    instalment: int
    amount_stroops: int
    hash: bytes = b""
    signature: bytes = b""
    salt: bytes | None = None
    salts: int = 0
    problem: str | None = None
    state: InstalmentState = "waiting"


class Uncovered(Struct, frozen=True):
    """What an owner has stored on credit; ``byte_seconds``: for how long, up to a moment that was asked for.

    ``since``: when the first of it came, in Unix seconds.
    """

    bytes: int = 0
    byte_seconds: int = 0
    since: int = 0


class Earnings(Struct, frozen=True):
    """Of one contract or of several: what was paid, what is being claimed, what was kept and is neither."""

    earned_stroops: int = 0
    pending_stroops: int = 0
    at_risk_stroops: int = 0

    def plus(self, other: Earnings) -> Earnings:
        """Both together."""
        return Earnings(
            self.earned_stroops + other.earned_stroops,
            self.pending_stroops + other.pending_stroops,
            self.at_risk_stroops + other.at_risk_stroops,
        )
