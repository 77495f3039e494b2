"""``layrfs net show|join|leave``: which network the volumes of this machine live on."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json
from layrfs.cli.status import network_line
from layrfs.config import NetworkConfig, Paths, parse_address
from layrfs.control.commands import NET_JOIN, NET_LEAVE, NET_SHOW, JoinNetwork, Nothing
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
    status = _ask_drive(arguments) if Paths.from_environment().volumes() else _without_volume(arguments)
    if arguments.json:
        say_json(status)
    else:
        say(network_line(status), *(f"  seed {seed}" for seed in status.seeds))
    return 0


def _ask_drive(arguments: argparse.Namespace) -> NetworkStatus:
    with node_for(arguments.volume, arguments.passfile) as client, ProgressBar("moving") as bar:
        if arguments.action == "join":
            return client.call(NET_JOIN, JoinNetwork(tuple(arguments.seeds)), bar.show)
        return client.call(NET_LEAVE if arguments.action == "leave" else NET_SHOW, Nothing(), bar.show)


def _without_volume(arguments: argparse.Namespace) -> NetworkStatus:
    """There is nothing to move: the choice is written down for the first volume."""
    paths = Paths.from_environment()
    paths.check()
    network = NetworkConfig.load(paths.network_file) or NetworkConfig(None, (), embedded=True)
    if arguments.action != "show":
        paths.prepare()
        seeds = tuple(arguments.seeds)
        network = NetworkConfig(network_id=None, seeds=seeds, embedded=not seeds)
        network.save(paths.network_file)
    return NetworkStatus(network.network_id or "", network.embedded, network.seeds)
