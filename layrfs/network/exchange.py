"""Questions and answers over datagrams: seals and opens, matches replies to requests, turns strangers' noise away.

Owns the nonces in flight and the counters. Must not know tables, lookups or records: what to answer is asked of a
function. Everything is checked cheapest first, the signature (0.1 ms) last, and only for what is expected or within
its sender's allowance.
Invariant: no datagram, however made, ends ``receive_forever``; each one is answered, believed or counted.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.network.addresses import Address
from layrfs.network.strangers import Allowances, ReplayMemory, TokenBucket
from layrfs.network.udp import DatagramTransport
from layrfs.wire.datagrams import (
    DATAGRAM_LIMIT,
    NO_NETWORK,
    NONCE_BYTES,
    REPLY_FACTOR,
    Datagram,
    Hello,
    Reply,
    Request,
    open_untrusted,
    seal,
)

CLOCK_WINDOW_SECONDS = 600.0
"""How far a request's time may be off. Within it repeated requests are recognised."""
RESEND_SECONDS = 0.4
"""A lost datagram is sent again after this, then after twice this, and so on."""
REQUESTS_PER_SOURCE = 100.0
BURST_PER_SOURCE = 200.0
REQUESTS_OF_STRANGERS = 500.0
BURST_OF_STRANGERS = 1000.0
"""All strangers together: half a second of signatures at once, then 5 % of a core."""
MOST_SOURCES = 1024
MOST_REMEMBERED = 8192
BATCH = 8
"""Datagrams handled without a checkpoint: at most about 2 ms."""
BREATH_SECONDS = 0.001
"""Pause after a full batch: a flood is left to the kernel to drop."""

R = TypeVar("R", bound=Reply)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sent a request, proven; the address is only claimed."""

    node_id: NodeId
    address: Address
    serving: bool
    request_bytes: int


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """A reply to our own request: its sender is proven, and so is its address."""

    node_id: NodeId
    network_id: bytes
    time_ms: int
    message: R


Responder = Callable[[Request, Asker], Reply | None]


class _Pending:
    """A request in flight."""

    __slots__ = ("address", "any_network", "arrived", "expect", "kind", "reply")

    def __init__(self, address: Address, request: Request, kind: type[object], expect: NodeId | None) -> None:
        self.address = address
        self.any_network = isinstance(request, Hello)
        self.kind = kind
        self.expect = expect
        self.arrived = trio.Event()
        self.reply: Datagram | None = None


class Exchange:
    """One node's conversation with all others. ``respond`` None: requests are ignored (an owner-only node)."""

    def __init__(
        self,
        identity: NodeIdentity,
        network_id: bytes,
        transport: DatagramTransport,
        *,
        now: Callable[[], float],
        respond: Responder | None,
        is_known: Callable[[Address], bool],
        counters: Counter[str],
    ) -> None:
        self._identity = identity
        self._network_id = network_id
        self._transport = transport
        self._now = now
        self._respond = respond
        self._is_known = is_known
        self._counters = counters
        self._pending: dict[bytes, _Pending] = {}
        self._sources = Allowances(REQUESTS_PER_SOURCE, BURST_PER_SOURCE, MOST_SOURCES)
        self._strangers = TokenBucket(REQUESTS_OF_STRANGERS, BURST_OF_STRANGERS, now())
        self._replays = ReplayMemory(2 * CLOCK_WINDOW_SECONDS, MOST_REMEMBERED)

    async def ask(
        self, address: Address, request: Request, kind: type[R], *, expect: NodeId | None = None
    ) -> Answer[R]:
        """The reply of this kind from this address, by this node if one is expected. Waits as long as the caller."""
        pending = _Pending(address, request, kind, expect)
        nonces: list[bytes] = []
        pause = RESEND_SECONDS
        try:
            while not pending.arrived.is_set():
                nonces.append(self._send(pending, request))
                with trio.move_on_after(pause):
                    await pending.arrived.wait()
                pause *= 2
        finally:
            for nonce in nonces:
                del self._pending[nonce]
        reply = pending.reply
        if reply is None or not isinstance(reply.message, kind):
            raise AssertionError("a request ended without the reply it waited for")
        return Answer(reply.sender, reply.network_id, reply.time_ms, reply.message)

    def is_ours(self, answer: Answer[R]) -> bool:
        """Whether an answer to a Hello, which any network may give, comes from our own."""
        return answer.network_id == self._network_id

    async def receive_forever(self) -> None:
        """Handle whatever arrives, in small batches, without a task per datagram."""
        while True:
            self._handle(*await self._transport.receive())
            for _ in range(BATCH - 1):
                more = self._transport.receive_now()
                if more is None:
                    break
                self._handle(*more)
            else:
                await trio.sleep(BREATH_SECONDS)

    def _send(self, pending: _Pending, request: Request) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._pending[nonce] = pending
        network_id = NO_NETWORK if pending.any_network else self._network_id
        self._transport.send(self._sealed(network_id, request, nonce), pending.address)
        self._counters["requests sent"] += 1
        return nonce

    def _sealed(self, network_id: bytes, message: Request | Reply, nonce: bytes) -> bytes:
        serving = self._respond is not None
        time_ms = int(self._now() * 1000)
        return seal(self._identity, network_id, message, nonce=nonce, time_ms=time_ms, serving=serving)

    def _handle(self, data: bytes, address: Address) -> None:
        self._counters["received"] += 1
        try:
            datagram = open_untrusted(data)
        except BadMessage:
            self._counters["malformed"] += 1
            return
        if datagram.is_reply:
            problem = self._take_reply(datagram, address)
        else:
            problem = self._take_request(datagram, address, len(data))
        if problem:
            self._counters[problem] += 1

    def _take_reply(self, datagram: Datagram, address: Address) -> str | None:
        """Hand a reply to whoever waits for it; otherwise say what is wrong with it."""
        pending = self._pending.get(datagram.nonce)
        if pending is None or pending.address != address or not isinstance(datagram.message, pending.kind):
            return "unasked"
        if datagram.network_id != self._network_id and not pending.any_network:
            return "foreign"
        if pending.expect is not None and datagram.sender != pending.expect:
            return "impostor"
        if not datagram.authentic():
            return "forged"
        pending.reply = datagram
        pending.arrived.set()
        return None

    def _take_request(self, datagram: Datagram, address: Address, size: int) -> str | None:
        """Answer a request; otherwise say why not."""
        if self._respond is None:
            return "ignored"
        problem = self._refusal(datagram, address)
        if problem or isinstance(datagram.message, Reply):
            return problem
        asker = Asker(datagram.sender, address, datagram.serving, size)
        reply = self._respond(datagram.message, asker)
        if reply is None:
            return "ignored"
        data = self._sealed(self._network_id, reply, datagram.nonce)
        if len(data) > min(REPLY_FACTOR * size, DATAGRAM_LIMIT):
            return "reply too large"
        self._transport.send(data, address)
        self._counters["answered"] += 1
        return None

    def _refusal(self, datagram: Datagram, address: Address) -> str | None:
        """What is wrong with a request, cheapest question first; None when it deserves an answer."""
        now = self._now()
        if not isinstance(datagram.message, Hello):
            if datagram.network_id != self._network_id:
                return "foreign"
            if abs(now - datagram.time_ms / 1000) > CLOCK_WINDOW_SECONDS:
                return "stale"
        if datagram.signature in self._replays:
            return "replayed"
        if not self._sources.take(address.host, now):
            return "throttled"
        if not self._is_known(address) and not self._strangers.take(now):
            return "throttled"
        if not datagram.authentic():
            return "forged"
        self._replays.add(datagram.signature, now)
        return None
