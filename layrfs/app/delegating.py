"""The owner's side of delegated repair, put together, and what `layrfs delegate` asks of it.

Decides nothing but which node is meant. A drive that is mounted read-only delegates nothing: whoever writes does.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TypeVar

import trio

from layrfs.app.membership import Membership
from layrfs.config import parse_address
from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import NotFound, ReadOnly, Refused, UsageError
from layrfs.history.adopting import MetadataPieces
from layrfs.history.publishing import Publisher
from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.model.status import DelegateList, DelegateStatus, Revocation
from layrfs.network.addresses import Address, format_address, resolve
from layrfs.network.connections import HostRefused
from layrfs.network.delegate_links import DelegateLinks
from layrfs.network.links import HostLinks
from layrfs.storage.database import Database
from layrfs.storage.delegates import Delegation
from layrfs.upkeep.asking import address_of
from layrfs.upkeep.delegating import Delegator
from layrfs.upkeep.merging import Merger
from layrfs.wire.delegation import DelegationRequest

CALLS_AT_ONCE = 2
LEAVE_SECONDS = 15.0
"""At the end of a mount: for telling delegates what they do not know yet."""

_NO = {
    "not allowed": "does not look after others' volumes; it would have to be run with: layrfs host run --delegate",
    "full": "looks after as many volumes, or shards, as it takes",
    "not the owner": "does not take us for the owner of the volume",
}

AnswerT = TypeVar("AnswerT")


class NodeAsker:
    """The real ``DelegateAsker``."""

    def __init__(self, links: HostLinks, membership: Membership, root_private: bytes) -> None:
        self._links = DelegateLinks(links, root_private)
        self._membership = membership
        self._limiter = trio.CapacityLimiter(CALLS_AT_ONCE)

    async def ask(self, node: NodeId, request: DelegationRequest, kind: type[AnswerT], body: bytes = b"") -> AnswerT:
        """See ``DelegateAsker``."""
        address = await address_of(self._membership, node)
        call = partial(self._links.ask, address, request, kind, body)
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)
        except HostRefused as error:
            if error.reason in _NO:
                raise Refused(f"The node {node.hex()[:12]} {_NO[error.reason]}.") from error
            raise


class Delegating:
    """One drive's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        keys: VolumeKeys,
        network_id: bytes,
        links: HostLinks,
        membership: Membership,
        publisher: Publisher,
        metadata: MetadataPieces,
        merger: Merger,
        patch_after_seconds: float,
        read_only: bool,
    ) -> None:
        self._membership = membership
        self._read_only = read_only
        self._delegator = Delegator(
            database=database,
            volume=keys.volume_id,
            network_id=network_id,
            mask=keys.mask,
            asker=NodeAsker(links, membership, keys.root_private),
            merger=merger,
            metadata=metadata.all,
            may_write=lambda: publisher.may_write,
            patch_after_seconds=patch_after_seconds,
        )

    def table(self) -> list[commands.Bound]:
        """Its part of the table of commands."""
        return [
            commands.DELEGATE.bind(self.delegate),
            commands.DELEGATE_LIST.bind(self.list_all),
            commands.DELEGATE_REVOKE.bind(self.revoke),
        ]

    async def run(self) -> None:
        """Until cancelled."""
        if not self._read_only:
            await self._delegator.run()

    async def leave(self) -> None:
        """The mount ends: whoever looks after the volume from now on should know all of it."""
        if not self._read_only:
            with trio.move_on_after(LEAVE_SECONDS):
                await self._delegator.leave()

    @property
    def problem(self) -> str | None:
        """In a sentence."""
        return self._delegator.problem

    async def delegate(self, request: commands.DelegateTo, _progress: Progress) -> DelegateList:
        """Raises ``ReadOnly``, ``NotFound``, ``UsageError``, ``RemoteError``."""
        self._check_writable()
        await self._delegator.begin(await self._node(request.node), request.seconds)
        return self._list()

    async def list_all(self, _request: commands.Nothing, _progress: Progress) -> DelegateList:
        """At once."""
        return self._list()

    async def revoke(self, request: commands.DelegateOf, _progress: Progress) -> Revocation:
        """Raises ``ReadOnly``, ``NotFound``."""
        self._check_writable()
        node = await self._node(request.node)
        return Revocation(node.hex(), told=await self._delegator.revoke(node))

    def _list(self) -> DelegateList:
        return DelegateList(tuple(self._status(one) for one in self._delegator.delegates))

    def _status(self, one: Delegation) -> DelegateStatus:
        place, problem = self._place(one.node), one.problem or ""
        return DelegateStatus(one.node.hex(), place, one.seconds, one.heard, one.lies, problem)

    def _place(self, node: NodeId) -> str:
        known = (record for record in self._membership.known_hosts() if record.node_id == node)
        return next((format_address(record.host, record.tcp_port) for record in known), "")

    async def _node(self, text: str) -> NodeId:
        """A node id, or the beginning of one that we know, or where it is. Raises ``NotFound``, ``UsageError``."""
        if ":" in text:
            return await self._node_at(*parse_address(text))
        if not re.fullmatch("[0-9a-f]{6,40}", text.lower()):
            raise UsageError(f"{text!r} is neither a node's id nor its HOST:PORT")
        if len(text) == 2 * NODE_ID_BYTES:
            return NodeId(bytes.fromhex(text))
        known = {record.node_id for record in self._membership.known_hosts()}
        known |= {one.node for one in self._delegator.delegates}
        found = [node for node in known if node.hex().startswith(text.lower())]
        if len(found) != 1:
            raise NotFound(f"{len(found) or 'no'} nodes are known whose ids begin with {text}")
        return found[0]

    async def _node_at(self, host: str, port: int) -> NodeId:
        places = {(address.host, address.port) for address in await resolve(Address(host, port))}
        for record in self._membership.known_hosts():
            if (record.host, record.tcp_port) in places:
                return record.node_id
        raise NotFound(f"no host of this network is known at {format_address(host, port)}; give its id instead")

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnly("The volume is mounted read-only; delegate where it is written.")
