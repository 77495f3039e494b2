"""What `layrfs audit` prints of a report, and which code it ends with."""

from __future__ import annotations

import pytest

from layrfs.cli import exit_codes
from layrfs.cli.audit import MOST_ROWS, exit_code, page
from layrfs.model.audits import WORST_FIRST, AuditedHost, AuditedPiece, AuditReport, counted, worst


def report(*outcomes: str, **more: int) -> AuditReport:
    pieces = tuple(
        AuditedPiece(b"/file", f"{number // 3:064x}", number % 3, "01" * 32, "aa" * 20, "prove", outcome, 0.01)
        for number, outcome in enumerate(outcomes)
    )
    sums = {outcome: outcomes.count(outcome) for outcome in outcomes}
    hosts = (AuditedHost("aa" * 20, "good", sums),) if sums else ()
    return AuditReport("prove", files=1, shards=len(outcomes), outcomes=sums, hosts=hosts, pieces=pieces, **more)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (exit_codes.DONE, report("passed", "passed")),
        (exit_codes.DONE, report()),
        (exit_codes.DONE, report("passed", root_keepers=1)),
        (exit_codes.NETWORK, report("passed", root_keepers=0)),
        (exit_codes.FAILED, report("passed", "offline", "missing")),
        (exit_codes.FAILED, report("failed", "unknown")),
        (exit_codes.NETWORK, report("passed", "offline")),
        (exit_codes.NETWORK, report("timed out", "refused")),
        (exit_codes.NETWORK, report("unknown", "passed")),
    ],
)
def test_the_exit_code_is_that_of_the_worst_answer(code: int, found: AuditReport) -> None:
    assert exit_code(found) == code


def test_every_outcome_has_its_place_among_bad_and_good() -> None:
    assert worst([]) == "passed"
    for place, word in enumerate(WORST_FIRST):
        assert worst(WORST_FIRST[place:]) == word
    assert counted({"passed": 2000, "missing": 1, "failed": 0}) == "1 missing, 2,000 passed"


def test_few_pieces_are_all_listed_and_of_many_only_what_did_not_pass() -> None:
    few = page(report("passed", "missing", "passed"), only_hosts=False)
    assert [line.split("  ")[5].strip() for line in few[:3]] == ["passed", "missing", "passed"]
    many = page(report(*["passed"] * MOST_ROWS, "offline"), only_hosts=False)
    assert [line for line in many if line.startswith("/file")] == [many[0]]
    assert "offline" in many[0]
    hosts = page(report("passed", "missing"), only_hosts=True)
    assert hosts[0].startswith("host aaaaaaaaaaaa  good  1 missing, 1 passed")


def test_what_a_person_has_to_know_is_said() -> None:
    def said(found: AuditReport) -> str:
        return "\n".join(page(found, only_hosts=False))

    assert said(report()) == "nothing to audit"
    assert "`layrfs sync` sends it" in said(report(unsent_files=1))
    assert "2 files not (wholly) on hosts yet" in said(report("passed", unsent_files=2))
    assert "could not be read now" in said(report("offline", "passed", short_shards=1))
    assert "no host answered at all" in said(report("offline", "timed out"))
    assert "no host answered" not in said(report("offline", "passed"))
    assert "no host answered" not in said(report("unknown"))
    assert "made anew" in said(report("failed"))
    assert "made anew" not in said(report("offline"))
    assert "says nothing about the host" in said(report("unknown"))
