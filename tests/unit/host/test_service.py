"""What a host lets in before any body has come."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from layrfs.crypto.identity import NodeIdentity
from layrfs.host.service import HostService
from layrfs.network.piece_server import Counts, Limits, Visit
from layrfs.storage.piece_store import PieceStore
from layrfs.storage.root_store import RootStore
from tests.unit.host.test_contract_handlers import COVER, QUOTED, OneAnswer
from tests.unit.host.test_handlers import HOST, NETWORK, THIEF


def service_of(directory: Path, found: OneAnswer, limits: Limits | None = None) -> HostService:
    store, roots = PieceStore(str(directory), space_bytes=1 << 20), RootStore(str(directory))
    limits = limits or Limits(queue_seconds=0)
    return HostService(HOST, NETWORK, store, roots, limits=limits, dropped=Counts(), contracts=found)


def visit(number: int = 1) -> Visit:
    return Visit(NodeIdentity(bytes([number]) * 32).node_id, "192.0.2.1")


def test_covers_on_their_way_keep_no_other_from_coming(tmp_path: Path) -> None:
    service = service_of(tmp_path, OneAnswer(QUOTED))
    with contextlib.ExitStack() as coming:
        for number in range(1, 20):
            assert coming.enter_context(service.hold(visit(number), COVER, 1 << 18)) is None


def test_nothing_of_a_cover_is_taken_from_who_has_no_contract(tmp_path: Path) -> None:
    service = service_of(tmp_path, OneAnswer(QUOTED))
    strangers = msgspec.structs.replace(COVER, tenant=THIEF.public_key)
    with service.hold(visit(), strangers, 1 << 18) as refusal:
        assert refusal == "no contract"
