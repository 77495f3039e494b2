"""The drive's place in a network: which one, the embedded hosts if it is theirs, and the node that speaks for us.

Owns the DHT node and the embedded process. Must not know shards or files. To the pipeline it is a ``HostFinder``:
before the first host is found, and while nobody answers, it simply knows no hosts.
Invariant: the network a drive is in never changes while it runs; ``network.json`` says which one the next run is in.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Container, Mapping
from collections.abc import Set as AbstractSet

import trio

from layrfs.app.embedded_money import told
from layrfs.app.supervisor import embedded_network
from layrfs.config import MountOptions, NetworkConfig, Paths, parse_address
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LayrError, StateInUse, Unreachable, UsageError, innermost
from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.model.records import NodeRecord
from layrfs.model.status import NetworkStatus
from layrfs.network.addresses import format_address
from layrfs.network.dht import DhtNode
from layrfs.network.discovery import Discovery
from layrfs.network.hello import learn_network_id

_log = logging.getLogger(__name__)

EMBEDDED = NetworkConfig(network_id=None, seeds=(), embedded=True)
PORT_SECONDS = 10.0
"""How often we try for our port while another program has it; the mount goes on meanwhile."""

NETWORK_SECONDS = 40.0
"""For the embedded network's first start, or a seed's first answer."""

LEARN_SECONDS = 10.0
"""A seed that has not told its network's id by then is not reachable."""


class Membership:
    """See the module; ``run`` must be running."""

    def __init__(
        self,
        paths: Paths,
        identity: NodeIdentity,
        options: MountOptions,
        keys: VolumeKeys,
        remembered: Mapping[NodeId, NodeRecord],
    ) -> None:
        """``remembered``: hosts met in earlier runs; where they were is a hint, and a way in when our seeds are dead.

        Raises ``UsageError`` for options that only the embedded network has.
        """
        self._network_file = paths.network_file
        self._identity = identity
        self._listen = options.listen
        self._config = NetworkConfig.load(paths.network_file) or EMBEDDED
        if options.host_price is not None and not self._config.embedded:
            raise UsageError("host_price is for the embedded network: the hosts of another one ask what they like")
        words = told(options, keys).words()
        self._supervisor = embedded_network(paths.embedded_dir, words) if self._config.embedded else None
        self._remembered = remembered
        self._node: DhtNode | None = None
        self._discovery: Discovery | None = None
        self._network_id = b""
        self._identified = trio.Event()
        self._port = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node until cancelled; started at once, with or without a network."""
        task_status.started()
        if self._supervisor is None:
            await self._be_node(await self._learn_id(), self._config.addresses())
            return
        async with trio.open_nursery() as nursery:
            found = await nursery.start(self._supervisor.run)
            await self._be_node(found.network_id, [parse_address(seed) for seed in found.seeds])

    async def network_id(self) -> bytes:
        """32 bytes, as soon as they are known."""
        await self._identified.wait()
        return self._network_id

    async def network_id_in_time(self) -> bytes:
        """Known from the last run, or as soon as a seed answers. Raises ``Unreachable`` when that is too long."""
        with trio.move_on_after(NETWORK_SECONDS):
            return await self.network_id()
        raise Unreachable("the network cannot be reached, and this volume was never on it before; check the seeds")

    async def closest_hosts(self, key: bytes, count: int) -> list[NodeRecord]:
        """See ``HostFinder``."""
        return [] if self._discovery is None else await self._discovery.closest_hosts(key, count)

    async def find_node(self, node: NodeId) -> NodeRecord | None:
        """See ``HostFinder``; where a host was last, when nobody knows where it is now."""
        found = None if self._discovery is None else await self._discovery.find_node(node)
        return found or self._remembered.get(node)

    def known_hosts(self) -> list[NodeRecord]:
        """See ``HostFinder``."""
        return [] if self._discovery is None else self._discovery.known_hosts()

    def answering(self, doubted: AbstractSet[NodeId]) -> Container[NodeId]:
        """Hosts that can be counted on now, but for those doubted; nobody while there is no network."""
        return frozenset() if self._discovery is None else self._discovery.answering(doubted)

    def is_leaving(self, node: NodeId) -> bool:
        """See ``HostFinder``."""
        return self._discovery is not None and self._discovery.is_leaving(node)

    def suspect(self, node: NodeId) -> None:
        """See ``HostFinder``."""
        if self._discovery is not None:
            self._discovery.suspect(node)

    async def explore(self) -> None:
        """Look around for hosts that are not known yet; takes seconds at most."""
        if self._node is not None:
            await self._node.look_up(secrets.token_bytes(NODE_ID_BYTES))

    @property
    def is_embedded(self) -> bool:
        """Whether the hosts are those that this drive runs itself."""
        return self._config.embedded

    @property
    def problem(self) -> str | None:
        """Why no host is reached, in a sentence."""
        return None if self._node is None else self._node.problem

    def status(self) -> NetworkStatus:
        """What ``layrfs net show`` shows."""
        hosts = self.known_hosts()
        return NetworkStatus(
            network_id=self._network_id.hex(),
            embedded=self._config.embedded,
            seeds=self._config.seeds,
            listen=format_address(self._listen[0], self._port) if self._port else "",
            known_hosts=len(hosts),
            reachable_hosts=len(hosts),
            embedded_pid=None if self._supervisor is None else self._supervisor.process_id,
        )

    async def _learn_id(self) -> bytes:
        """From ``network.json``, or from the seeds as soon as one of them answers."""
        known = self._config.network_id
        while known is None:
            try:
                known = (await _ask_seeds(self._config.addresses())).hex()
                NetworkConfig(known, self._config.seeds, embedded=False).save(self._network_file)
            except LayrError as error:
                _log.warning("no network yet: %s", error)
                await trio.sleep(LEARN_SECONDS)
        return bytes.fromhex(known)

    async def _be_node(self, network_id: bytes, seeds: list[tuple[str, int]]) -> None:
        node = self._node = DhtNode(
            self._identity,
            network_id,
            bind=self._listen,
            make_record=_no_record,
            seeds=seeds,
            met=[] if self._config.embedded else [(one.host, one.udp_port) for one in self._remembered.values()],
            serving=False,
        )
        self._network_id = network_id
        self._identified.set()
        while True:
            try:
                await self._run_node(node)
            except* StateInUse as group:
                _log.warning("no network: %s", innermost(group))
            await trio.sleep(PORT_SECONDS)

    async def _run_node(self, node: DhtNode) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._port = await nursery.start(node.run)
                self._discovery = Discovery(node)
        finally:
            self._discovery = None
            self._port = 0


async def choose_network(network_file: str, seeds: tuple[str, ...]) -> NetworkConfig:
    """Have the next run be in the network of these seeds; none means the embedded one. Raises ``Unreachable``."""
    config = EMBEDDED
    if seeds:
        known = await _ask_seeds([parse_address(seed) for seed in seeds])
        config = NetworkConfig(known.hex(), seeds, embedded=False)
    config.save(network_file)
    return config


async def _ask_seeds(seeds: list[tuple[str, int]]) -> bytes:
    """The id of the network that one of the seeds belongs to. Raises ``Unreachable``."""
    with trio.move_on_after(LEARN_SECONDS):
        return await learn_network_id(seeds)
    raise Unreachable(f"no seed answers: {', '.join(format_address(*seed) for seed in seeds)}")


def _no_record(_port: int) -> NodeRecord:
    raise AssertionError("an owner's node serves nobody, so nobody asks for its record")
