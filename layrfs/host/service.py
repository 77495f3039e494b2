"""A host as the piece server sees it: room for a request first, then its answer.

Owns the order in which a request is let in and its counts. Must not know sockets.
Invariant: for a stranger's request nothing is raised; what fails on our side is counted, logged and refused.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import msgspec

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import LocalError, NoSpace
from layrfs.host.admission import Admission
from layrfs.host.handlers import HANDLERS, Call, Contracts, Delegations, Host
from layrfs.host.questions import Questions
from layrfs.network.piece_server import Answer, Counts, Limits, Visit
from layrfs.storage.piece_store import PieceStore
from layrfs.storage.root_store import RootStore
from layrfs.wire import messages
from layrfs.wire.contracts import Cover
from layrfs.wire.delegation import Delegate, Entrust
from layrfs.wire.messages import Reason, Request

_log = logging.getLogger(__name__)

_BRINGS = messages.Store | Delegate | Entrust
_READS = messages.Retrieve | messages.Prove | messages.Answer
"""Requests for which a whole piece, or as much as one, may have to be in memory. They wait among their own kind: no
number of those who send slowly keeps anybody from reading."""


class HostService:
    """One host's side of every conversation; thread-safe."""

    def __init__(
        self,
        identity: NodeIdentity,
        network_id: bytes,
        store: PieceStore,
        roots: RootStore,
        *,
        limits: Limits,
        dropped: Counts,
        delegations: Delegations | None = None,
        contracts: Contracts | None = None,
    ) -> None:
        """`delegations` None: this host repairs nothing for others. `contracts` None: it is free."""
        self._store = store
        self._contracts = contracts
        self._dropped = dropped
        self._requests = Counts()
        self._audits = Counts()
        self._started = time.time()
        self._host = Host(
            identity.node_id, network_id, store, roots, self.report, delegations, contracts, Questions(limits)
        )
        self._bringing, self._reading = (
            Admission(
                total=limits.bodies,
                per_peer=limits.bodies_per_peer,
                per_address=limits.bodies_per_address,
                patience_seconds=limits.queue_seconds,
            )
            for _ in range(2)
        )
        self._listing = Admission(total=limits.listings, per_peer=1, patience_seconds=limits.queue_seconds)

    @contextlib.contextmanager
    def hold(self, visit: Visit, request: Request, body_bytes: int) -> Iterator[Reason | None]:
        """A place in memory for a request that carries a piece, room on the disk for one to store, a turn to list."""
        place = self._place(visit, request)
        with place as admitted, contextlib.ExitStack() as room:
            yield self._refusal(request, body_bytes, room) if admitted else "busy"

    def _place(self, visit: Visit, request: Request) -> AbstractContextManager[bool]:
        if isinstance(request, _BRINGS):
            return self._bringing.place(visit.node_id, visit.address)
        if isinstance(request, _READS):
            return self._reading.place(visit.node_id, visit.address)
        if isinstance(request, messages.Inventory):
            return self._listing.place(visit.node_id, visit.address)
        return contextlib.nullcontext(enter_result=True)

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        """Counted; our own failures become a refusal."""
        self._requests.add(str(request.__struct_config__.tag))
        try:
            answer = HANDLERS[type(request)](Call(self._host, visit, request, body))
        except LocalError as error:
            self._dropped.add("failed here")
            _log.warning("A request failed here: %s", error)
            return Answer(messages.Refused("failed"))
        if isinstance(answer.header, messages.Refused):
            self._dropped.add(answer.header.reason)
        elif isinstance(request, messages.Prove | messages.Answer):
            self._audits.add("answered")
        return answer

    def report(self) -> messages.StatusReport:
        """For `layrfs host status`."""
        return messages.StatusReport(
            **msgspec.structs.asdict(self._store.statistics()),
            requests=self._requests.snapshot(),
            dropped=self._dropped.snapshot(),
            started=self._started,
            audits_answered=self._audits.snapshot().get("answered", 0),
            earning=None if self._contracts is None else self._contracts.report(),
        )

    def _refusal(self, request: Request, body_bytes: int, room: contextlib.ExitStack) -> Reason | None:
        """Before any of the body comes."""
        try:
            reason = self._refusal_here(request, body_bytes, room)
        except NoSpace:
            reason = "full"
        except LocalError as error:
            _log.warning("A request failed here: %s", error)
            reason = "failed"
        if reason is not None:
            self._dropped.add(reason)
        return reason

    def _refusal_here(self, request: Request, body_bytes: int, room: contextlib.ExitStack) -> Reason | None:
        """Credit first, where there is a price: whoever has none need not know how full the disk is.

        Raises NoSpace, LocalError.
        """
        if isinstance(request, Cover) and self._contracts is not None:
            return None if self._contracts.has_contract(request.tenant) else "no contract"
        if not isinstance(request, messages.Store):
            return None
        if self._contracts is not None:
            reason = room.enter_context(self._contracts.room(request.tenant, body_bytes))
            if reason is not None:
                return reason
        room.enter_context(self._store.room(body_bytes))
        return None
