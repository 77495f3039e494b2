"""What an owner says to its delegates, over the same connections as everything else. Blocking, thread-safe.

Owns the signing with the volume's root key, which is therefore in the main process only.
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.model.records import HostAddress
from layrfs.network.connections import Connection
from layrfs.network.links import HostLinks, expect
from layrfs.wire.delegation import DelegationRequest

ANSWER_SECONDS = 60.0
"""A delegate writes hundreds of rows and flushes its disk before it answers."""

AnswerT = TypeVar("AnswerT")


class DelegateLinks:
    """One volume's."""

    def __init__(self, links: HostLinks, root_private: bytes) -> None:
        self._links = links
        self._volume = NodeIdentity.from_private(root_private)

    def ask(self, host: HostAddress, request: DelegationRequest, kind: type[AnswerT], body: Buffer = b"") -> AnswerT:
        """The answer, of this kind. Raises MissingPiece (it knows no such volume), HostRefused, Unreachable."""
        talk = partial(_ask, request, kind, self._volume, body)
        return self._links.converse(host, talk, deadline_seconds=ANSWER_SECONDS)


def _ask(
    request: DelegationRequest,
    kind: type[AnswerT],
    volume: NodeIdentity,
    body: Buffer,
    connection: Connection,
    deadline: float,
) -> AnswerT:
    signed = connection.sign_delegation(request, body, volume, deadline)
    return expect(kind, *connection.ask(signed, body, deadline))
