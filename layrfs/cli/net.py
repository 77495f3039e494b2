"""``layrfs net show|join|leave``: which network the volumes of this machine live on."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json
from layrfs.cli.status import network_line
from layrfs.config import NetworkConfig, Paths, parse_address
from layrfs.control.commands import NET_JOIN, NET_LEAVE, NET_SHOW, STATUS, JoinNetwork, Nothing
from layrfs.errors import UsageError
from layrfs.model.status import NetworkStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("action", choices=["show", "join", "leave"])
    parser.add_argument("seeds", metavar="HOST:PORT", nargs="*", help="of nodes to join")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Joining and leaving upload everything to the new network's hosts."""
    if bool(arguments.seeds) != (arguments.action == "join"):
        raise UsageError("`layrfs net join` needs the HOST:PORT of at least one node, and only join takes any")
    for seed in arguments.seeds:
        parse_address(seed)
    status, unmounted = (
        _ask_drive(arguments) if Paths.from_environment().volumes() else (_without_volume(arguments), "")
    )
    if arguments.json:
        say_json(status)
        return 0
    say(network_line(status), *(f"  seed {seed}" for seed in status.seeds))
    if unmounted:
        say(f"{unmounted} has been unmounted for this; mount it again")
    return 0


def _ask_drive(arguments: argparse.Namespace) -> tuple[NetworkStatus, str]:
    """The answer, and what the drive unmounts to carry it out."""
    with node_for(arguments.volume, arguments.passfile) as client, ProgressBar("moving") as bar:
        if arguments.action == "show":
            return client.call(NET_SHOW, Nothing()), ""
        mountpoint = client.call(STATUS, Nothing()).mountpoint
        if arguments.action == "join":
            return client.call(NET_JOIN, JoinNetwork(tuple(arguments.seeds)), bar.show), mountpoint
        return client.call(NET_LEAVE, Nothing(), bar.show), mountpoint


def _without_volume(arguments: argparse.Namespace) -> NetworkStatus:
    """There is nothing to move: the choice is written down for the first volume."""
    paths = Paths.from_environment()
    paths.check()
    network = NetworkConfig.load(paths.network_file) or NetworkConfig(None, (), embedded=True)
    if arguments.action != "show":
        network = join_network(paths, tuple(arguments.seeds))
    return NetworkStatus(network.network_id or "", network.embedded, network.seeds)


def join_network(paths: Paths, seeds: tuple[str, ...]) -> NetworkConfig:
    """Write down the network of these seeds, none meaning the embedded one. Raises Unreachable when none answers."""
    import trio

    from layrfs.app.membership import choose_network

    paths.prepare()
    return trio.run(choose_network, paths.network_file, seeds)
