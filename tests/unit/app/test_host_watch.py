"""In which order hosts of earlier runs are asked for when the seeds are gone."""

from pathlib import Path

from layrfs.app.host_watch import remembered_hosts
from layrfs.ids import PieceId, Salt, ShardId
from layrfs.model.records import NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from tests.grid.network import identity_number


def test_who_has_pieces_comes_first_then_who_was_met_last(tmp_path: Path) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        catalog, met = Catalog(database), []
        for number in range(5):
            identity = identity_number(number)
            where = {"host": "192.0.2.1", "udp_port": 4000, "tcp_port": 4000}
            record = NodeRecord.sign(identity, **where, free_bytes=0, leaving=False, expires=1)
            catalog.pieces.put_host_record(identity.node_id, record.to_bytes())
            met.append(identity.node_id)
        piece = PieceRecord(0, 0, PieceId(bytes(32)), met[2])
        catalog.add_shard(ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 30, Redundancy(1, 1), (piece,)))
        assert list(remembered_hosts(catalog)) == [met[2], met[4], met[3], met[1], met[0]]
