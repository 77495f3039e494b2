"""What is on record about money, in one value: contracts, what they paid, the pieces they name, what is on its way.

And what such records say that cannot be so, whatever a ledger says. Pure. Must not know where they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from layrfs.model.intents import Intent
from layrfs.policy.paymaster import Contract


class Receipts(Struct, frozen=True):
    """The pieces of one batch of a contract that is not over.

    ``pieces``: so many it has; ``found`` of them are in the volume's files now, and have ``found_bytes``. The others
    are of the list of files, or are not needed any more.
    """

    batch: int
    pieces: int
    found: int
    found_bytes: int


class Recorded(Struct, frozen=True):
    """One contract. ``payments``: of each instalment the hash of the transaction that paid it."""

    contract: Contract
    payments: tuple[bytes | None, ...]
    receipts: tuple[Receipts, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return f"contract {self.contract.terms.number} with host {self.contract.terms.node.hex()[:12]}"


class Records(Struct, frozen=True):
    """All there is. ``intents``: transactions whose fate is not known."""

    contracts: tuple[Recorded, ...] = ()
    intents: tuple[Intent, ...] = ()


def record_faults(recorded: Recorded) -> Iterator[str]:
    """A sentence for each thing that contradicts itself."""
    bytes_of = {batch.number: batch.stored_bytes for batch in recorded.contract.batches}
    for receipts in recorded.receipts:
        covered = bytes_of.get(receipts.batch)
        if covered is None:
            yield f"{recorded.name}: there are pieces of cover {receipts.batch}, and no such cover"
        elif receipts.found_bytes > covered or (receipts.found == receipts.pieces and receipts.found_bytes != covered):
            yield (
                f"{recorded.name}: cover {receipts.batch} is for {covered} bytes, and its pieces have"
                f" {receipts.found_bytes}"
            )
    for batch in recorded.contract.batches:
        is_over = recorded.contract.state in {"merged", "void"}
        if not is_over and batch.number not in {each.batch for each in recorded.receipts}:
            yield f"{recorded.name}: cover {batch.number} has no pieces"
    for at, (one, payment) in enumerate(zip(recorded.contract.instalments, recorded.payments, strict=True)):
        if (one.state == "claimed") != (payment is not None):
            yield f"{recorded.name}: instalment {at} is {one.state}, with{'' if payment else 'out'} a transaction"
