"""One running host: its pieces on disk, its TLS server in threads, its DHT node in the caller's trio runtime.

Owns the order in which these start and stop. `layrfs.app.host` runs one of them, `layrfs.app.embedded` five.
Invariant: when `run` has ended no thread serves, and whatever was acknowledged is on the disk.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import trio

from layrfs.app.delegations import Delegations
from layrfs.app.earning_plan import EarningPlan
from layrfs.app.looking_after import AlsoMyself, Neighbourhood
from layrfs.errors import StateInUse
from layrfs.host.directory import HostDirectory
from layrfs.host.lease_clock import LeaseClock
from layrfs.host.service import HostService
from layrfs.ids import NodeId
from layrfs.model.records import LIFETIME_SECONDS, NodeRecord
from layrfs.network.addresses import format_address, is_literal, scope
from layrfs.network.dht import DhtNode
from layrfs.network.discovery import Discovery
from layrfs.network.listening import open_listener, outward_address
from layrfs.network.piece_server import Counts, Limits, PieceServer
from layrfs.policy.leases import DEFAULT_GRACE_SECONDS, oldest_kept
from layrfs.storage.piece_store import PieceStore, StoreStatistics
from layrfs.storage.root_store import RootStore

if TYPE_CHECKING:  # loads the ledger's library
    from layrfs.app.paid_host import PaidHost

_log = logging.getLogger(__name__)

PEERS_SECONDS = 5.0
"""How often it is looked whether other nodes are known than were last written down."""
LEASES_SECONDS = 3600.0
"""How often the leases' clock is written down."""

EXPIRY_TICKS = 24
"""Every so many of those, what nobody has renewed goes; for the first time when owners had an hour to come back."""

_PEERS_KEPT = 32
_PORT_TRIES = 20
_STOP_SECONDS = 8.0


class HostPlan(msgspec.Struct, frozen=True):
    """What to run. `listen` is an IP literal; port 0 takes a free one. `announce` (another): what others are told."""

    network_id: bytes
    listen: str
    port: int
    space_bytes: int
    seeds: tuple[tuple[str, int], ...] = ()
    announce: str = ""
    limits: Limits = Limits()
    free_share: float = 1.0
    """How much of the free space to offer: hosts that share a disk must not promise it several times."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """How long a piece is kept after its lease has run out."""
    delegate: bool = False
    """Whether volumes are looked after for owners who ask for it."""
    earning: EarningPlan | None = None
    """How it is paid; None: it is free."""


class HostStarted(msgspec.Struct, frozen=True):
    """What is known once it runs."""

    node_id: NodeId
    port: int
    announced: str
    statistics: StoreStatistics
    delegations: int = 0
    """How many volumes are looked after."""
    wallet: str = ""
    """The address that owners pay into; empty: they pay nothing."""


class ServingHost:
    """See the module. The directory is locked by the caller."""

    def __init__(self, directory: HostDirectory, plan: HostPlan) -> None:
        """Opens the pieces. Raises LocalError, NewerFormat, CorruptFile. Blocking."""
        self._directory = directory
        self._plan = plan
        self._identity = directory.identity()
        self._leases = LeaseClock(directory.path)
        self._store = PieceStore(directory.path, space_bytes=plan.space_bytes, lease_now=self._leases.now)
        self._roots = RootStore(directory.path)
        self._dropped = Counts()
        self._stopping = threading.Event()
        self._paid = self._paid_host(plan.earning) if plan.earning is not None else None

    async def run(self, *, task_status: trio.TaskStatus[HostStarted] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises StateInUse or UsageError when the port cannot be had."""
        async with trio.open_nursery() as nursery:
            listener, node = await self._take_port(nursery)
            port = int(listener.getsockname()[1])
            delegations = self._delegations(node, port) if self._plan.delegate else None
            if delegations is not None:
                await nursery.start(delegations.run)
            if self._paid is not None:
                await nursery.start(self._paid.run)
            server = self._server(listener, delegations)
            verifier = threading.Thread(target=self._store.verify_all, args=(self._stopping,), daemon=True)
            server.start()
            verifier.start()
            nursery.start_soon(self._keep_leases)
            try:
                announced = self._announced(node.seen_as())
                watched = 0 if delegations is None else delegations.volumes
                wallet = "" if self._paid is None else self._paid.address
                task_status.started(
                    HostStarted(self._identity.node_id, port, announced, self._store.statistics(), watched, wallet)
                )
                await self._remember_peers(node)
            finally:
                self._stopping.set()
                self._leases.save()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(server.close, _STOP_SECONDS)
                self._save_peers(node)
        verifier.join(_STOP_SECONDS)

    async def left(self) -> None:
        """Returns when the host is leaving and nothing is due any more: never, when it is free."""
        if self._paid is None:
            await trio.sleep_forever()
        else:
            await self._paid.earning.left.wait()

    @property
    def _is_leaving(self) -> bool:
        return self._paid is not None and self._paid.earning.is_leaving

    def _paid_host(self, plan: EarningPlan) -> PaidHost:
        """The ledger's library is loaded only where there is a price."""
        from layrfs.app.paid_host import PaidHost

        return PaidHost(self._directory, self._identity.node_id, self._store, plan)

    async def _take_port(self, nursery: trio.Nursery) -> tuple[socket.socket, DhtNode]:
        """The same number for TCP and UDP. When any port will do, another one is tried until both are free."""
        tries = 1 if self._plan.port else _PORT_TRIES
        for left in reversed(range(tries)):
            listener = open_listener(self._plan.listen, self._plan.port)
            try:
                node = self._node(int(listener.getsockname()[1]))
                await nursery.start(node.run)
            except StateInUse:
                listener.close()
                if left == 0:
                    raise
            except BaseException:
                listener.close()
                raise
            else:
                return listener, node
        raise AssertionError  # the loop returns or raises

    def _delegations(self, node: DhtNode, port: int) -> Delegations:
        finder = AlsoMyself(Discovery(node), self._identity.node_id, lambda: self._record(port, node.seen_as))
        around = Neighbourhood(self._identity, self._plan.network_id, finder)
        return Delegations(self._directory.path, self._identity, self._plan.network_id, around.look_after)

    def _server(self, listener: socket.socket, delegations: Delegations | None) -> PieceServer:
        plan, identity = self._plan, self._identity
        service = HostService(
            identity,
            plan.network_id,
            self._store,
            self._roots,
            limits=plan.limits,
            dropped=self._dropped,
            delegations=delegations,
            contracts=None if self._paid is None else self._paid.earning,
        )
        return PieceServer(identity, plan.network_id, listener, service, limits=plan.limits, dropped=self._dropped)

    def _node(self, port: int) -> DhtNode:
        def seen_as() -> str | None:
            return node.seen_as()

        node = DhtNode(
            self._identity,
            self._plan.network_id,
            bind=(self._plan.listen, port),
            make_record=lambda udp_port: self._record(udp_port, seen_as),
            seeds=self._plan.seeds,
            serving=True,
        )
        return node

    def _record(self, port: int, seen_as: Callable[[], str | None]) -> NodeRecord:
        """Who we are, where, and how much room there is now; the DHT node asks again every few seconds."""
        return NodeRecord.sign(
            self._identity,
            host=self._announced(seen_as()),
            udp_port=port,
            tcp_port=port,
            free_bytes=0 if self._is_leaving else int(self._store.free_bytes() * self._plan.free_share),
            price=0 if self._plan.earning is None else self._plan.earning.price,
            leaving=self._is_leaving,
            expires=int(time.time()) + LIFETIME_SECONDS,
        )

    def _announced(self, seen_as: str | None) -> str:
        """The address others are told: as asked, as listened on, as others see us, or by this machine's routes."""
        if self._plan.announce:
            return self._plan.announce
        if not ipaddress.ip_address(self._plan.listen).is_unspecified:
            return self._plan.listen
        outward = outward_address(next((host for host, _ in self._plan.seeds if is_literal(host)), "192.0.2.1"))
        return max(seen_as or outward, outward, key=scope)

    async def _keep_leases(self) -> None:
        for tick in itertools.count():
            self._leases.save()
            if tick % EXPIRY_TICKS == 1:
                await self._drop_expired()
            await trio.sleep(LEASES_SECONDS)

    async def _drop_expired(self) -> None:
        before = oldest_kept(self._leases.now(), self._plan.grace_seconds)
        dropped = await trio.to_thread.run_sync(self._store.drop_expired, before, self._stopping)
        if dropped:
            _log.info("%d pieces that nobody has renewed for a year are gone", dropped)

    async def _remember_peers(self, node: DhtNode) -> None:
        while True:
            await trio.sleep(PEERS_SECONDS)
            self._save_peers(node)

    def _save_peers(self, node: DhtNode) -> None:
        peers = sorted(format_address(record.host, record.udp_port) for record in node.contacts()[:_PEERS_KEPT])
        if peers and peers != self._directory.peers():
            self._directory.save_peers(peers)
