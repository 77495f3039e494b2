"""What strangers may cost."""

from __future__ import annotations

from layrfs.network.strangers import Allowances, ReplayMemory, TokenBucket, source_of


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(per_second=10, burst=5, now=100.0)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(100.2) for _ in range(3)] == [True, True, False]
    assert sum(bucket.take(1000.0) for _ in range(20)) == 5


def test_a_clock_set_back_takes_nothing_away() -> None:
    bucket = TokenBucket(per_second=1, burst=5, now=100.0)
    assert all(bucket.take(0.0) for _ in range(5))
    assert not bucket.take(0.0)
    assert bucket.take(2.0)


def test_each_source_has_its_own_allowance() -> None:
    allowances = Allowances(per_second=1, burst=2, most_sources=10)
    assert [allowances.take("10.0.0.1", 0.0) for _ in range(3)] == [True, True, False]
    assert allowances.take("10.0.0.2", 0.0)


def test_sources_are_forgotten_oldest_first() -> None:
    allowances = Allowances(per_second=0, burst=1, most_sources=3)
    for number in range(3):
        assert allowances.take(f"10.0.0.{number}", 0.0)
    assert not allowances.take("10.0.0.0", 0.0)
    assert allowances.take("10.0.0.9", 0.0)
    assert len(allowances) == 3
    assert not allowances.take("10.0.0.0", 0.0)
    assert allowances.take("10.0.0.1", 0.0)


def test_one_ipv6_network_is_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::2") != source_of("2001:db8:1:3::1")
    assert source_of("10.0.0.1") != source_of("10.0.0.2")


def test_replays_are_recognised_within_the_window_and_the_memory_is_bounded() -> None:
    memory = ReplayMemory(window_seconds=10, most=3)
    for number in range(5):
        memory.add(bytes([number]), now=float(number))
    assert len(memory) == 3
    assert b"\x04" in memory
    assert b"\x01" not in memory
    memory.add(b"new", now=13.5)
    assert b"\x03" not in memory
    assert b"\x04" in memory
