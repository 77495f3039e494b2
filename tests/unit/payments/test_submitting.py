"""A transaction gets in once: through lost answers, days without a ledger, fees that rise, and crashes in between."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import Asset, Keypair
from trio.testing import MockClock

from layrfs.errors import LedgerUnavailable, LocalError, Rejected
from layrfs.model.intents import Intent
from layrfs.model.ledger import STROOPS_PER_XLM
from layrfs.payments.submitting import Submitter
from tests.fakes.intents import MemoryIntents
from tests.fakes.ledger import InProcessLedger
from tests.ledgers import Bank, sign

DAY = 86_400.0


class Scene:
    """A ledger, somebody who pays somebody 5 XLM within 100 seconds of the ledger's time, and a submitter."""

    def __init__(self, *, has_payer: bool = True) -> None:
        self.bank = Bank()
        self.payer = self.bank.person(1)
        self.payee = self.bank.person(2)
        self.ledger = InProcessLedger(self.bank)
        self.intents = MemoryIntents()
        self.private = self.payer.raw_secret_key()
        self.submitter = Submitter(self.ledger, self.intents, self.private if has_payer else None)
        self.xdr = self.payment("5", self.payer)

    def payment(self, amount: str, *signers: Keypair) -> str:
        builder = self.bank.build(self.payer).append_payment_op(self.payee.public_key, Asset.native(), amount)
        return sign(builder.add_time_bounds(0, self.bank.now + 100), *signers)

    def received(self) -> int:
        """What has arrived, in XLM."""
        return (self.bank.account(self.payee).balance_stroops - 1000 * STROOPS_PER_XLM) // STROOPS_PER_XLM


async def test_the_intent_is_kept_before_anything_is_sent(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.is_away = True
    with trio.move_on_after(60):
        await scene.submitter.submit(scene.xdr, "rent")
    assert [(each.purpose, each.xdr, each.latest) for each in scene.intents.all()] == [
        ("rent", scene.xdr, scene.bank.now + 100)
    ]
    assert scene.ledger.submitted == []


async def test_what_is_in_is_forgotten_and_told(autojump_clock: MockClock) -> None:
    scene = Scene()
    done = await scene.submitter.submit(scene.xdr, "rent")
    assert done.successful
    assert scene.received() == 5
    assert scene.intents.log == ["keep", "forget"]
    assert await scene.submitter.submit(scene.xdr, "rent") == done
    assert scene.received() == 5


async def test_a_lost_answer_is_found_by_its_hash(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.loses_answers = True
    assert (await scene.submitter.submit(scene.xdr, "rent")).successful
    assert len(scene.ledger.submitted) == 1


async def test_a_ledger_that_is_away_for_days_is_waited_for(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.is_away = True
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def pay() -> None:
            assert (await scene.submitter.submit(scene.xdr, "rent")).successful

        await trio.sleep(3 * DAY)
        assert scene.intents.all()
        scene.ledger.is_away = False
    assert scene.received() == 5


async def test_what_comes_too_late_by_the_ledgers_time_never_comes(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.loses_submissions = True
    with pytest.raises(Rejected, match="too late"):
        await scene.submitter.submit(scene.xdr, "rent")
    assert scene.intents.all() == []
    assert scene.received() == 0


async def test_our_own_clock_proves_nothing(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.is_away = True
    with trio.move_on_after(2 * DAY):
        await scene.submitter.submit(scene.xdr, "rent")
    assert scene.intents.all()


async def test_the_fee_rises_when_the_ledger_asks_for_more(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.bank.ledger.close(scene.bank.now, base_fee_stroops=3_000)
    done = await scene.submitter.submit(scene.xdr, "rent")
    assert done.successful
    assert done.fee_charged_stroops == 2 * 3_000
    assert scene.received() == 5


async def test_the_fee_rises_when_others_are_preferred(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.passes_by_below_stroops = 500
    assert (await scene.submitter.submit(scene.xdr, "rent")).successful
    assert scene.received() == 5


async def test_without_a_payer_no_fee_rises(autojump_clock: MockClock) -> None:
    scene = Scene(has_payer=False)
    scene.ledger.passes_by_below_stroops = 500
    with pytest.raises(Rejected, match="too late"):
        await scene.submitter.submit(scene.xdr, "rent")
    assert set(scene.ledger.submitted) == {scene.xdr}


async def test_a_failure_is_final_and_has_its_reason(autojump_clock: MockClock) -> None:
    scene = Scene()
    with pytest.raises(Rejected, match="too little") as raised:
        await scene.submitter.submit(scene.payment("5000", scene.payer), "rent")
    assert raised.value.codes == ("tx_failed", "op_underfunded")
    assert scene.intents.all() == []


async def test_what_is_refused_is_not_sent_again_but_watched(autojump_clock: MockClock) -> None:
    scene = Scene()
    unsigned = scene.payment("5", scene.payee)
    with pytest.raises(Rejected, match="signature"):
        await scene.submitter.submit(unsigned, "rent")
    assert await scene.submitter.settle() == []
    assert scene.ledger.submitted == [unsigned]
    for _ledger in range(30):
        scene.bank.close()
    (settled,) = await scene.submitter.settle()
    assert (settled.intent.purpose, settled.transaction) == ("rent", None)
    assert scene.intents.all() == []


async def test_what_was_left_behind_is_settled(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.is_away = True
    with trio.move_on_after(1):
        await scene.submitter.submit(scene.xdr, "rent")
    with pytest.raises(LedgerUnavailable):
        await scene.submitter.settle()
    scene.ledger.is_away = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.submitter.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert scene.received() == 5
    assert scene.intents.all() == []


async def test_what_is_not_due_yet_waits_and_costs_no_more(autojump_clock: MockClock) -> None:
    scene = Scene()
    builder = scene.bank.build(scene.payer).append_payment_op(scene.payee.public_key, Asset.native(), "5")
    early = sign(builder.add_time_bounds(scene.bank.now + 60, 0), scene.payer)
    done = await scene.submitter.submit(early, "rent")
    assert done.fee_charged_stroops == 100
    assert set(scene.ledger.submitted) == {early}


async def test_what_was_signed_for_another_ledger_waits_for_that(autojump_clock: MockClock) -> None:
    scene = Scene()
    foreign = Intent(bytes(32), scene.xdr, 1, 0, "rent elsewhere")
    await scene.intents.keep(foreign)
    assert scene.submitter.open() == []
    assert await scene.submitter.settle() == []
    assert scene.intents.all() == [foreign]
    assert scene.ledger.submitted == []


async def test_a_wrong_ledger_ends_no_drive(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.is_away = True
    with trio.move_on_after(1):
        await scene.submitter.submit(scene.xdr, "rent")
    scene.ledger.is_away, scene.ledger.is_another = False, True
    with trio.move_on_after(600) as scope:
        await scene.submitter.run()
    assert scope.cancelled_caught
    assert scene.intents.all()


async def test_a_disk_that_fails_ends_no_drive(autojump_clock: MockClock) -> None:
    class Failing(MemoryIntents):
        async def forget(self, hash_: bytes) -> None:
            raise LocalError(f"the disk is full: {hash_.hex()} stays")

    scene = Scene()
    intents = Failing()
    await intents.keep(Intent(scene.ledger.hash_of(scene.xdr), scene.xdr, 1, scene.bank.now + 100, "rent"))
    with trio.move_on_after(600) as scope:
        await Submitter(scene.ledger, intents).run()
    assert scope.cancelled_caught
    assert scene.received() == 5


async def test_a_server_that_lags_is_not_believed_too_soon(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.ledger.lag_seconds, scene.ledger.hides_transactions, scene.ledger.loses_answers = 120, True, True
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def pay() -> None:
            assert (await scene.submitter.submit(scene.xdr, "rent")).successful

        for _ledger in range(20):
            await trio.sleep(5)
            scene.bank.close()
        assert scene.intents.all()
        scene.ledger.hides_transactions = False
    assert scene.received() == 5


async def test_another_payment_that_took_the_number_is_told(autojump_clock: MockClock) -> None:
    scene = Scene()
    other = scene.payment("7", scene.payer)
    await scene.submitter.submit(scene.xdr, "rent")
    with pytest.raises(Rejected, match="number") as raised:
        await scene.submitter.submit(other, "more rent")
    assert raised.value.codes == ("tx_bad_seq",)
    assert scene.received() == 5
    assert scene.intents.all() == []


faults = st.lists(
    st.tuples(
        st.sampled_from(["good", "away", "loses answers", "loses submissions", "preferred", "busy days"]),
        st.floats(0.1, 90.0),
    ),
    max_size=8,
)


@given(faults, st.integers(1, 4))
@settings(max_examples=40)
def test_whatever_happens_money_moves_once_or_never_and_we_know_which(
    story: list[tuple[str, float]], payments: int
) -> None:
    async def play() -> None:
        scene = Scene()
        told: dict[str, bool] = {}
        amounts: dict[bytes, int] = {}

        async def pay(xdr: str) -> None:
            try:
                told[xdr] = (await scene.submitter.submit(xdr, "rent")).successful
            except Rejected:
                told[xdr] = False

        for mood, seconds in story:
            scene.ledger.is_away = mood == "away"
            scene.ledger.loses_answers = mood == "loses answers"
            scene.ledger.loses_submissions = mood == "loses submissions"
            scene.ledger.passes_by_below_stroops = 500 if mood == "preferred" else 0
            if mood == "busy days":
                scene.bank.close(60)
            with trio.move_on_after(seconds):  # and then the process is killed
                async with trio.open_nursery() as nursery:
                    for amount in range(1, payments + 1):
                        xdr = scene.payment(str(amount), scene.payer)
                        amounts[scene.ledger.hash_of(xdr)] = amount
                        nursery.start_soon(pay, xdr)
        scene.ledger.is_away = scene.ledger.loses_answers = scene.ledger.loses_submissions = False
        scene.ledger.passes_by_below_stroops = 0
        for _ledger in range(60):
            await scene.submitter.settle()
            scene.bank.close()
        assert scene.intents.all() == []
        entries = (await scene.ledger.history(scene.payer.raw_public_key())).transactions[1:]
        assert len({each.hash for each in entries}) == len(entries)
        successful = {each.hash for each in entries if each.successful}
        for xdr, success in told.items():
            assert success == (scene.ledger.hash_of(xdr) in successful)
        assert scene.received() == sum(amounts[hash_] for hash_ in successful)

    trio.run(play, clock=MockClock(autojump_threshold=0))
