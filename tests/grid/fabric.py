"""A whole internet in one process: datagrams between addresses, on trio's clock, with faults as values.

Every endpoint passes ``tests/contracts/test_datagram_transport.py``. Latency, loss and cuts are set on the fabric; time
is whatever clock trio runs on, so on the autojump clock minutes pass in milliseconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Collection

import trio

from layrfs.errors import StateInUse
from layrfs.network.addresses import Address

QUEUE = 1000
LATENCY_SECONDS = (0.002, 0.02)


class Fabric:
    """Carries datagrams. ``run`` must be running for anything to arrive."""

    def __init__(self, seed: int = 1) -> None:
        self.dice = random.Random(seed)
        self.loss = 0.0
        self.latency = LATENCY_SECONDS
        self.carried: Counter[str] = Counter()
        self._endpoints: dict[Address, trio.MemorySendChannel[tuple[bytes, Address]]] = {}
        self._sides: dict[str, int] = {}
        self._flying: list[tuple[float, int, bytes, Address, Address]] = []
        self._order = itertools.count()
        self._launched = trio.Event()

    def endpoint(self, host: str, port: int = 4000) -> FabricTransport:
        """A transport that will live at this address."""
        return FabricTransport(self, Address(host, port))

    def part(self, hosts: Collection[str]) -> None:
        """Cut these hosts off from all others (not from each other)."""
        self._sides = dict.fromkeys(hosts, 1)

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        self._sides = {}

    def launch(self, data: bytes, source: Address, target: Address) -> None:
        """Send a datagram from any address, true or forged."""
        self.carried["datagrams"] += 1
        self.carried["bytes"] += len(data)
        if self.dice.random() < self.loss:
            return
        due = trio.current_time() + self.dice.uniform(*self.latency)
        heapq.heappush(self._flying, (due, next(self._order), data, source, target))
        self._launched.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver until cancelled."""
        task_status.started()
        while True:
            while self._flying and self._flying[0][0] <= trio.current_time():
                _, _, data, source, target = heapq.heappop(self._flying)
                self._deliver(data, source, target)
            self._launched = trio.Event()
            with trio.move_on_at(self._flying[0][0] if self._flying else float("inf")):
                await self._launched.wait()

    def attach(self, address: Address) -> trio.MemoryReceiveChannel[tuple[bytes, Address]]:
        """Take an address."""
        if address in self._endpoints:
            raise StateInUse(f"UDP port {address} is already in use")
        self._endpoints[address], receiver = trio.open_memory_channel[tuple[bytes, Address]](QUEUE)
        return receiver

    def detach(self, address: Address) -> None:
        """Give an address back."""
        self._endpoints.pop(address).close()

    def _deliver(self, data: bytes, source: Address, target: Address) -> None:
        endpoint = self._endpoints.get(target)
        if endpoint is None or self._sides.get(source.host) != self._sides.get(target.host):
            return
        try:
            endpoint.send_nowait((data, source))
        except trio.WouldBlock:
            self.carried["overflowed"] += 1


class FabricTransport:
    """One endpoint; see ``layrfs.network.udp.DatagramTransport``. Port 0 takes a free one."""

    def __init__(self, fabric: Fabric, address: Address) -> None:
        self._fabric = fabric
        self.address = address if address.port else Address(address.host, fabric.dice.randrange(1024, 65536))
        self._receiver: trio.MemoryReceiveChannel[tuple[bytes, Address]] | None = None

    async def open(self) -> int:
        await trio.lowlevel.checkpoint()
        self._receiver = self._fabric.attach(self.address)
        return self.address.port

    def close(self) -> None:
        if self._receiver is not None:
            self._fabric.detach(self.address)
            self._receiver.close()
            self._receiver = None

    def send(self, data: bytes, address: Address) -> None:
        if self._receiver is not None:
            self._fabric.launch(data, self.address, address)

    async def receive(self) -> tuple[bytes, Address]:
        if self._receiver is None:
            raise trio.ClosedResourceError
        return await self._receiver.receive()

    def receive_now(self) -> tuple[bytes, Address] | None:
        if self._receiver is None:
            return None
        try:
            return self._receiver.receive_nowait()
        except trio.WouldBlock:
            return None
