"""What `layrfs patch` prints of a report, and which code it ends with."""

from __future__ import annotations

from layrfs.cli import exit_codes
from layrfs.cli.patch import exit_code, page
from layrfs.model.patches import LostPart, PatchedPiece, PatchedShard, PatchReport

MADE = PatchedShard("5a" * 32, "now", (1, 2), (PatchedPiece(1, 2, "bb" * 20),), "not enough hosts take pieces")
GONE = PatchedShard("5b" * 32, "lost", ())


def test_nothing_to_do_is_said() -> None:
    report = PatchReport(dry_run=False, shards=0, mended=0, lost=0)
    assert page(report) == ["every shard has all its pieces"]
    assert exit_code(report) == exit_codes.DONE


def test_hosts_that_are_away_are_no_reason_to_say_that_all_is_well() -> None:
    report = PatchReport(dry_run=True, shards=0, mended=0, lost=0, silent_hosts=2)
    assert page(report) == [
        "nothing has to be made anew yet; 2 hosts that have pieces are not seen now, and waited for"
    ]


def test_what_could_not_be_made_is_said_with_the_reason() -> None:
    report = PatchReport(dry_run=False, shards=1, mended=0, lost=0, listed=(MADE,))
    assert page(report) == [
        "  shard 5a5a5a5a5a5a  now  made 1 at bbbbbbbbbbbb; not enough hosts take pieces",
        "0 of 1 shard patched, 0 lost",
    ]
    assert exit_code(report) == exit_codes.NETWORK


def test_what_is_lost_is_named_with_its_bytes_and_nothing_in_a_name_reaches_the_terminal() -> None:
    part = LostPart(b"/docs/a\x1b[31m.txt", 4096, 100)
    report = PatchReport(dry_run=False, shards=9, mended=8, lost=1, listed=(GONE,), lost_parts=(part,))
    assert page(report) == [
        "  shard 5b5b5b5b5b5b  lost  wanted none",
        "  and 8 more",
        "lost, unless a host returns:",
        "  /docs/a\\x1b[31m.txt  bytes 4,096 to 4,196 (100 B)",
        "8 of 9 shards patched, 1 lost",
    ]
    assert exit_code(report) == exit_codes.FAILED
