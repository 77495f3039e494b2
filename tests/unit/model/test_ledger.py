"""What of an account may be spent."""

from __future__ import annotations

from layrfs.errors import Rejected, named
from layrfs.model.ledger import STROOPS_PER_XLM, LedgerAccount

ACCOUNT = LedgerAccount(
    key=bytes(32), sequence=1, balance_stroops=5 * STROOPS_PER_XLM, thresholds=(0, 0, 0), signers=()
)
HALF = STROOPS_PER_XLM // 2


def test_the_reserve_counts_what_the_account_pays_for() -> None:
    assert ACCOUNT.reserve_stroops(HALF) == STROOPS_PER_XLM
    busy = LedgerAccount(bytes(32), 1, 5 * STROOPS_PER_XLM, (0, 0, 0), (), subentries=2, sponsoring=3, sponsors=1)
    assert busy.reserve_stroops(HALF) == 3 * STROOPS_PER_XLM
    assert busy.spendable_stroops(HALF) == 2 * STROOPS_PER_XLM


def test_what_its_offers_may_take_is_not_for_spending() -> None:
    trader = LedgerAccount(bytes(32), 1, 5 * STROOPS_PER_XLM, (0, 0, 0), (), liabilities_stroops=STROOPS_PER_XLM)
    assert trader.spendable_stroops(HALF) == 3 * STROOPS_PER_XLM


def test_an_account_below_its_reserve_can_spend_nothing() -> None:
    assert ACCOUNT.spendable_stroops(4 * STROOPS_PER_XLM) == 0


def test_reasons_of_a_rejection_are_kept_and_survive_another_process() -> None:
    assert Rejected("no", ("tx_bad_seq",)).codes == ("tx_bad_seq",)
    again = named("Rejected", "no")
    assert isinstance(again, Rejected)
    assert again.codes == ()
