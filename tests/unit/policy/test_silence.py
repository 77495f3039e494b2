"""Who is not asked again."""

from layrfs.ids import NodeId
from layrfs.policy.silence import Silence

A, B, C = (NodeId(bytes([number]) * 20) for number in range(3))


def test_one_shard_says_nothing_two_do_unless_another_came_from_there() -> None:
    silence = Silence()
    silence.failed([A, A, B])
    assert silence.hosts == set()
    silence.failed([A, C])
    assert silence.hosts == {A}
    silence.failed([B, C])
    assert silence.hosts == {A, B, C}
    silence.answered([A, B])
    assert silence.hosts == {C}
