"""Learning which network a seed belongs to, for somebody who knows only where it is.

Needs no node and no identity of ours. The answer is signed by the seed, and believed because the person named it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import Unreachable
from layrfs.network.addresses import Address, resolve
from layrfs.network.exchange import Exchange
from layrfs.network.udp import DatagramTransport, UdpTransport
from layrfs.wire.datagrams import NO_NETWORK, Hello, Pong


async def learn_network_id(seeds: Sequence[tuple[str, int]], *, transport: DatagramTransport | None = None) -> bytes:
    """The network id (32 bytes) of the first seed to answer; asks for as long as the caller lets it.

    Raises ``Unreachable`` when none of the seeds' names can be resolved.
    """
    endpoints = await _endpoints(seeds)
    counters: Counter[str] = Counter()
    if transport is None:
        any_ipv6 = any(":" in endpoint.host for endpoint in endpoints)
        transport = UdpTransport(("::" if any_ipv6 else "0.0.0.0", 0), counters)  # noqa: S104 - asks, never serves
    exchange = Exchange(
        NodeIdentity.generate(),
        NO_NETWORK,
        transport,
        now=time.time,
        respond=None,
        is_known=lambda _address: False,
        counters=counters,
    )
    try:
        await transport.open()
        return await _first_answer(exchange, endpoints)
    finally:
        transport.close()


async def _first_answer(exchange: Exchange, endpoints: Sequence[Address]) -> bytes:
    answers: list[bytes] = []

    async def ask(endpoint: Address) -> None:
        answer = await exchange.ask(endpoint, Hello(), Pong)
        answers.append(answer.network_id)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.receive_forever)
        for endpoint in endpoints:
            nursery.start_soon(ask, endpoint)
    return answers[0]


async def _endpoints(seeds: Sequence[tuple[str, int]]) -> list[Address]:
    """All endpoints of all seeds; unresolvable names count only when there is nothing else."""
    found: list[Address] = []
    failure = Unreachable("there is no seed to ask")
    for seed in seeds:
        try:
            found += await resolve(Address(*seed))
        except Unreachable as error:
            failure = error
    if not found:
        raise failure
    return found
