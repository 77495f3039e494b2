"""How often tenants and strangers may have a host ask the ledger's servers, which count that too and turn it away.

Owns those counts, and the turns of covers. Must not know what is asked, or the ledger. Invariant: nobody uses up what
somebody else may ask for who has a contract; what an honest owner asks and is agreed to is never counted.
"""

from __future__ import annotations

from collections.abc import Callable

from layrfs.errors import LocalError
from layrfs.host.admission import Admission, Quota
from layrfs.network.piece_server import Limits
from layrfs.wire.contracts import ContractRequest, ContractResponse, Cover, Opened, Propose, Settle, Standing
from layrfs.wire.messages import Refused

TENANT_SECONDS = 600.0
COVERS_AT_ONCE = 4
"""Each reads the heads of thousands of pieces, and waits for the ledger."""

BUSY = Refused("busy")

Said = ContractResponse | Refused


class Questions:
    """One host's. Thread-safe. What is asked here is signed by the tenant it names, and all of it has come."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._strangers = Quota(total=limits.questions, per_address=limits.questions_per_address)
        self._tenants = Quota(total=None, per_address=limits.questions_per_tenant, seconds=TENANT_SECONDS)
        self._covering = Admission(total=COVERS_AT_ONCE, per_peer=1, patience_seconds=limits.queue_seconds)

    def answered(
        self, request: ContractRequest, address: str, answer: Callable[[], Said], *, has_contract: bool
    ) -> Said:
        """What `answer` says, or busy. Whoever has a contract has a quota of its own; strangers share one.

        Raises what `answer` does.
        """
        if not has_contract:
            asks = isinstance(request, Propose | Opened)
            return answer() if not asks or self._strangers.take(address) else BUSY
        if isinstance(request, Standing):
            return answer()
        return self._counted(request, answer) if self._tenants.take(request.tenant.hex()) else BUSY

    def _counted(self, request: ContractRequest, answer: Callable[[], Said]) -> Said:
        """An end is counted even if it is agreed to: it may never be used, and asked for again."""
        try:
            said = self._in_turn(request, answer)
        except LocalError:  # not its fault
            self._tenants.give_back(request.tenant.hex())
            raise
        if not isinstance(said, Refused) and not isinstance(request, Settle):
            self._tenants.give_back(request.tenant.hex())
        return said

    def _in_turn(self, request: ContractRequest, answer: Callable[[], Said]) -> Said:
        if not isinstance(request, Cover):
            return answer()
        with self._covering.place(request.tenant) as admitted:
            return answer() if admitted else BUSY
