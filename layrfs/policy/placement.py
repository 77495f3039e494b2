"""Which hosts get the pieces of a shard: the rules of docs/design.md, section 5.

Pure: candidates in, a plan out. Each piece has its own candidates, nearest to its key first; the first eligible one
wins, cheaper ones before dearer ones: prices within the same eighth of the owner's limit are alike, so that nearness
spreads pieces among them, and nobody is chosen for being a thousandth cheaper. Not eligible is who is excluded (owner's
own node, bad record, just failed), leaving, full, dearer than the limit, and who would put two pieces of the shard on
one host or into one network.

Invariant: as many pieces are placed as the rules allow at all. Where taking the first eligible host each time would
leave a piece without one, an earlier piece of the same plan moves to its next candidate (Kuhn's augmenting paths).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from layrfs.ids import NodeId
from layrfs.model.records import HostAddress, NodeRecord

_IPV4_NETWORK_BITS = 24
_IPV6_NETWORK_BITS = 64

PRICE_STEPS = 8
"""Prices up to the limit are told apart so far and no further; what is free is a step of its own."""


class Wanted(msgspec.Struct, frozen=True):
    """A piece that needs a host."""

    position: int
    piece_bytes: int
    candidates: Sequence[NodeRecord]
    """Nearest to the piece's key first."""


class Limits(msgspec.Struct, frozen=True):
    """What the owner accepts. ``highest_price`` is in the unit of node records, None for any; ``excluded`` by id."""

    highest_price: int | None = None
    excluded: Collection[NodeId] = frozenset()
    spare_bytes: int = 0
    """What a host must have free beyond the piece: its record is some seconds old and others store there too."""


class Placement(msgspec.Struct, frozen=True):
    """Which host each position goes to, and the positions no host is eligible for (the shard is degraded)."""

    chosen: Mapping[int, NodeRecord]
    unplaced: tuple[int, ...]


def choose_hosts(
    pieces: Sequence[Wanted], *, already: Sequence[HostAddress] = (), limits: Limits | None = None
) -> Placement:
    """A host for as many of the pieces as possible. ``already``: who holds other pieces of the shard, or is about to.

    When a chosen host fails, ask again for its piece alone: that host excluded, the others in ``already``.
    """
    limits = limits or Limits()
    taken = {place for held in already for place in _places(held.node_id, held.ip)}
    options = [_eligible(piece, taken, limits) for piece in pieces]
    holder: dict[str, int] = {}
    choice: dict[int, NodeRecord] = {}
    for index in range(len(pieces)):
        _assign(index, options, holder, choice, set())
    return Placement(
        chosen={pieces[index].position: record for index, record in sorted(choice.items())},
        unplaced=tuple(piece.position for index, piece in enumerate(pieces) if index not in choice),
    )


@functools.lru_cache(maxsize=4096)
def network_of(ip: str) -> str | None:
    """The /24 or /64 of a globally routable address; None for others (one LAN may well hold many good hosts)."""
    address = ipaddress.ip_address(ip)
    if not address.is_global:
        return None
    bits = _IPV4_NETWORK_BITS if isinstance(address, ipaddress.IPv4Address) else _IPV6_NETWORK_BITS
    return str(ipaddress.ip_network((ip, bits), strict=False))


def _places(node_id: NodeId, ip: str) -> tuple[str, ...]:
    """What may hold only one piece of a shard: the host itself, and its network if it has one."""
    network = network_of(ip)
    return (node_id.hex(),) if network is None else (node_id.hex(), network)


def _slot(record: NodeRecord) -> str:
    """The place that stands for all the places of this host: the network, or else the host itself."""
    return _places(record.node_id, record.host)[-1]


def _eligible(piece: Wanted, taken: Collection[str], limits: Limits) -> list[NodeRecord]:
    eligible = [record for record in piece.candidates if _is_eligible(record, piece, taken, limits)]
    return sorted(eligible, key=lambda record: price_step(record.price, limits.highest_price))


def room(records: Iterable[NodeRecord]) -> dict[NodeId, int]:
    """Bytes that hosts have for new pieces, as their records say: none where they are leaving."""
    return {record.node_id: 0 if record.leaving else record.free_bytes for record in records}


def price_step(price: int, highest: int | None) -> int:
    """How dear a price is to an owner who pays up to ``highest``: 0 is free, ``PRICE_STEPS`` the limit."""
    return -(-price * PRICE_STEPS // highest) if highest else 0


def _is_eligible(record: NodeRecord, piece: Wanted, taken: Collection[str], limits: Limits) -> bool:
    return (
        record.tcp_port != 0
        and not record.leaving
        and record.free_bytes >= piece.piece_bytes + limits.spare_bytes
        and (limits.highest_price is None or record.price <= limits.highest_price)
        and record.node_id not in limits.excluded
        and not any(place in taken for place in _places(record.node_id, record.host))
    )


def _assign(
    index: int,
    options: list[list[NodeRecord]],
    holder: dict[str, int],
    choice: dict[int, NodeRecord],
    tried: set[str],
) -> bool:
    """Give piece ``index`` its first candidate that is free or can be freed; ``tried``: slots seen on the way."""
    slots = [_slot(record) for record in options[index]]
    for record, slot in zip(options[index], slots, strict=True):
        if slot not in holder and slot not in tried:
            holder[slot] = index
            choice[index] = record
            return True
    for record, slot in zip(options[index], slots, strict=True):
        if slot in tried:
            continue
        tried.add(slot)
        if _assign(holder[slot], options, holder, choice, tried):
            holder[slot] = index
            choice[index] = record
            return True
    return False
