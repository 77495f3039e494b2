"""One suite for every ledger: the one in this process, Horizon's client with a development ledger's process.

And, with `--live-ledger`, Horizon's client with Stellar's public test network, whose friendbot gives the lumens.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Protocol

import pytest
from stellar_sdk import Account, Asset, Keypair, TransactionBuilder, TransactionEnvelope

from layrfs.errors import Rejected
from layrfs.ledger_config import KNOWN
from layrfs.model.ledger import STROOPS_PER_XLM
from layrfs.payments.fees import with_higher_fee
from layrfs.payments.horizon import Horizon
from layrfs.payments.ledger import Ledger
from layrfs.payments.reading import movements_untrusted
from tests.fakes.ledger import InProcessLedger
from tests.hosts.local_ledger import LocalLedger, ledger_run


class Setting(Protocol):
    """A ledger, and somebody who gives accounts."""

    ledger: Ledger

    async def fund(self, key: bytes) -> None:
        """Begin an account."""


class InProcess:
    def __init__(self) -> None:
        self.ledger = InProcessLedger()

    async def fund(self, key: bytes) -> None:
        self.ledger.fund(key)


class Remote:
    def __init__(self, ledger: Horizon) -> None:
        self.ledger = ledger

    async def fund(self, key: bytes) -> None:
        await self.ledger.fund(key)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLedger]:
    with ledger_run(tmp_path_factory.mktemp("ledger") / "ledger", "--close-seconds", "0.2") as started:
        yield started


@pytest.fixture(params=["in process", "development", "live"])
async def setting(request: pytest.FixtureRequest, live_ledger: bool) -> Setting:
    if request.param == "in process":
        return InProcess()
    if request.param == "development":
        process = request.getfixturevalue("process")
        return Remote(Horizon([process.url], process.passphrase))
    if not live_ledger:
        pytest.skip("needs --live-ledger and the internet")
    return Remote(Horizon(KNOWN["test"].horizon, KNOWN["test"].passphrase))


class Person:
    """Somebody with a key, new for each test."""

    def __init__(self, setting: Setting) -> None:
        self.ledger = setting.ledger
        self.private = secrets.token_bytes(32)
        self.keypair = Keypair.from_raw_ed25519_seed(self.private)
        self.key = self.keypair.raw_public_key()

    async def pays(self, to: Person, amount: str, *, fee: int = 100, sequence: int | None = None) -> str:
        """A signed payment, with this person's next number."""
        if sequence is None:
            account = await self.ledger.account(self.key)
            assert account is not None
            sequence = account.sequence + 1
        builder = TransactionBuilder(
            Account(self.keypair.public_key, sequence - 1), self.ledger.passphrase, base_fee=fee
        )
        there = await self.ledger.account(to.key)
        if there is None:
            builder.append_create_account_op(to.keypair.public_key, amount)
        else:
            builder.append_payment_op(to.keypair.public_key, Asset.native(), amount)
        head = await self.ledger.head()
        envelope = builder.add_time_bounds(0, head.closed_at + 300).build()
        envelope.sign(self.keypair)
        return envelope.to_xdr()


@pytest.fixture
async def people(setting: Setting) -> tuple[Person, Person]:
    """One who has lumens, and one who does not exist yet."""
    rich, nobody = Person(setting), Person(setting)
    await setting.fund(rich.key)
    return rich, nobody


async def test_head_and_accounts(setting: Setting, people: tuple[Person, Person]) -> None:
    rich, nobody = people
    head = await setting.ledger.head()
    assert head.sequence > 1
    assert (head.base_fee_stroops, head.base_reserve_stroops) == (100, STROOPS_PER_XLM // 2)
    account = await setting.ledger.account(rich.key)
    assert account is not None
    assert account.balance_stroops == 10_000 * STROOPS_PER_XLM
    assert account.sequence >> 32 <= head.sequence
    assert [(each.kind, each.key, each.weight) for each in account.signers] == [("key", rich.key, 1)]
    assert (account.thresholds, account.subentries, account.sponsors, account.flags) == ((0, 0, 0), 0, 0, 0)
    assert await setting.ledger.account(nobody.key) is None


async def test_a_payment_gets_in_once_however_often_it_is_handed_in(
    setting: Setting, people: tuple[Person, Person]
) -> None:
    rich, other = people
    xdr = await rich.pays(other, "12.3456789")
    before = await setting.ledger.head()
    done = await setting.ledger.submit(xdr)
    assert await setting.ledger.submit(xdr) == done
    assert (done.successful, done.codes, done.fee_charged_stroops, done.fee_account) == (True, (), 100, rich.key)
    assert before.sequence < done.ledger
    assert before.closed_at <= done.closed_at
    assert await setting.ledger.transaction(done.hash) == done
    (moved,) = movements_untrusted(done.envelope, done.result_xdr, setting.ledger.passphrase)
    assert (moved.kind, moved.source, moved.destination, moved.stroops) == ("create", rich.key, other.key, 123_456_789)
    account = await setting.ledger.account(other.key)
    assert account is not None
    assert account.balance_stroops == 123_456_789


async def test_what_is_not_there_has_no_fate_yet(setting: Setting, people: tuple[Person, Person]) -> None:
    rich, other = people
    fate = await setting.ledger.fate(bytes(32), rich.key)
    assert fate.transaction is None
    assert fate.source == await setting.ledger.account(rich.key)
    assert fate.head.sequence <= (await setting.ledger.head()).sequence
    assert (await setting.ledger.fate(bytes(32), other.key)).source is None
    assert await setting.ledger.transaction(bytes(32)) is None


async def test_rejections_have_codes(setting: Setting, people: tuple[Person, Person]) -> None:
    rich, other = people
    account = await setting.ledger.account(rich.key)
    assert account is not None
    wrong_number = await rich.pays(other, "5", sequence=account.sequence + 7)
    with pytest.raises(Rejected) as raised:
        await setting.ledger.submit(wrong_number)
    assert raised.value.codes[0] == "tx_bad_seq"
    unsigned = TransactionEnvelope.from_xdr(await rich.pays(other, "5"), setting.ledger.passphrase)
    unsigned.signatures.clear()
    with pytest.raises(Rejected) as raised:
        await setting.ledger.submit(unsigned.to_xdr())
    assert raised.value.codes[0] == "tx_bad_auth"


async def test_a_failure_is_in_the_ledger_and_says_why(setting: Setting, people: tuple[Person, Person]) -> None:
    rich, other = people
    xdr = await rich.pays(other, "20000")
    with pytest.raises(Rejected) as first:
        await setting.ledger.submit(xdr)
    assert first.value.codes == ("tx_failed", "op_underfunded")
    page = await setting.ledger.history(rich.key, newest_first=True)
    failed = page.transactions[0]
    assert (failed.successful, failed.codes, failed.fee_charged_stroops) == (False, first.value.codes, 100)


async def test_a_higher_fee_is_paid_by_another_and_the_hash_stays(
    setting: Setting, people: tuple[Person, Person]
) -> None:
    rich, payer = people
    await setting.ledger.submit(await rich.pays(payer, "50"))
    xdr = await rich.pays(payer, "1")
    done = await setting.ledger.submit(with_higher_fee(xdr, payer.private, 1_000, setting.ledger.passphrase))
    assert done.fee_account == payer.key
    assert done.fee_charged_stroops == 200
    assert await setting.ledger.transaction(done.hash) == done
    assert await setting.ledger.submit(xdr) == done


async def test_history_has_all_in_order_and_goes_on_from_a_cursor(
    setting: Setting, people: tuple[Person, Person]
) -> None:
    rich, other = people
    made = [await setting.ledger.submit(await rich.pays(other, amount)) for amount in ("5", "6", "7")]
    page = await setting.ledger.history(other.key)
    assert list(page.transactions) == made
    rest = await setting.ledger.history(other.key, page.cursor)
    assert (rest.transactions, rest.cursor) == ((), page.cursor)
    newest = await setting.ledger.history(other.key, newest_first=True)
    assert list(newest.transactions) == made[::-1]
    assert (await setting.ledger.history(secrets.token_bytes(32))).transactions == ()
