"""What an owner says to hosts that want money, over the same connections as everything else. Blocking, thread-safe.

Owns the signing with the owner's tenant keys. Must not know what terms say, nor the ledger.
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import tenant_private
from layrfs.model.records import HostAddress
from layrfs.network.connections import Connection
from layrfs.network.links import HostLinks, expect
from layrfs.wire.contracts import ContractRequest, Quote, Quoted

ANSWER_SECONDS = 60.0
"""A host looks at the ledger, or at thousands of pieces, before it answers."""

AnswerT = TypeVar("AnswerT")


class ContractLinks:
    """One volume's."""

    def __init__(self, links: HostLinks, mask: bytes) -> None:
        self._links = links
        self._mask = mask

    def quote(self, host: HostAddress) -> Quoted:
        """What the host takes. Raises HostRefused (`not allowed`: it is free), Unreachable, BadMessage."""
        return self._links.converse(host, _quote, deadline_seconds=ANSWER_SECONDS)

    def ask(self, host: HostAddress, request: ContractRequest, kind: type[AnswerT], body: Buffer = b"") -> AnswerT:
        """The answer, of this kind; `request` needs no signature yet.

        Raises MissingPiece (it has not the pieces), HostRefused, Unreachable, BadMessage.
        """
        tenant = NodeIdentity.from_private(tenant_private(self._mask, host.node_id))
        talk = partial(_ask, request, kind, tenant, body)
        return self._links.converse(host, talk, deadline_seconds=ANSWER_SECONDS)


def _quote(connection: Connection, deadline: float) -> Quoted:
    return expect(Quoted, *connection.ask(Quote(), b"", deadline))


def _ask(
    request: ContractRequest,
    kind: type[AnswerT],
    tenant: NodeIdentity,
    body: Buffer,
    connection: Connection,
    deadline: float,
) -> AnswerT:
    signed = connection.sign_contract(request, body, tenant, deadline)
    return expect(kind, *connection.ask(signed, body, deadline))
