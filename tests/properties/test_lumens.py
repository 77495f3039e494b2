"""Whatever people submit to the development ledger, no lumen comes or goes but by fees, and nothing happens twice."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import (
    AccountMerge,
    Asset,
    BumpSequence,
    CreateAccount,
    Operation,
    Payment,
    SetOptions,
    SignerKey,
)
from stellar_sdk import Signer as Extra

from layrfs.errors import BadMessage
from layrfs.payments.devledger.books import Entry
from layrfs.payments.devledger.ledger import DevelopmentLedger
from layrfs.payments.devledger.state import TOTAL_STROOPS, State, network_id
from layrfs.payments.devledger.transactions import submission_untrusted
from tests.ledgers import PASSPHRASE, Bank, bump, person, sign, signed

PEOPLE = [person(number) for number in range(1, 5)]
SECRETS = [b"one", b"two"]

who = st.integers(0, len(PEOPLE) - 1)
names = st.sampled_from([each.public_key for each in PEOPLE])
sources = st.none() | names
amounts = st.sampled_from(["0.0000001", "1", "3.5", "40", "98.99999", "2000"])
weights = st.sampled_from([None, None, 0, 1, 2])
LOCKS = [SignerKey.sha256_hash(hashlib.sha256(secret).digest()) for secret in SECRETS]
keys = st.sampled_from([SignerKey.ed25519_public_key(each.public_key) for each in PEOPLE] + LOCKS)
extras = st.builds(Extra, keys, st.sampled_from([0, 1, 2]))
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Payment, names, st.just(Asset.native()), amounts, sources),
    st.builds(Payment, names, st.just(Asset.native()), amounts, sources),
    st.builds(CreateAccount, names, amounts, sources),
    st.builds(AccountMerge, names, sources),
    st.builds(BumpSequence, st.sampled_from([0, 3 << 32, 1 << 62]), sources),
    st.builds(
        SetOptions,
        master_weight=weights,
        low_threshold=weights,
        med_threshold=weights,
        high_threshold=weights,
        signer=st.none() | extras,
        source=sources,
    ),
)


@dataclass
class Draft:
    """A transaction somebody makes up."""

    source: int
    operations: list[Operation]
    signers: list[int] | None
    """None: who has to."""
    secrets: list[bytes]
    lock: SignerKey | None
    skipped: int
    payer: int | None
    closes: bool


drafts = st.builds(
    Draft,
    source=who,
    operations=st.lists(operations, min_size=1, max_size=4),
    signers=st.sampled_from([None, None, None, [], [0, 1], [2], [1, 2, 3]]),
    secrets=st.sampled_from([[], [], [], SECRETS[:1], SECRETS]),
    lock=st.sampled_from([None, None, None, *LOCKS]),
    skipped=st.sampled_from([0, 0, 0, 1, 1 << 33]),
    payer=st.none() | who,
    closes=st.booleans(),
)


def envelope(bank: Bank, draft: Draft) -> str:
    """Signed by whom it says, and by who has to be, if all sign."""
    source = PEOPLE[draft.source]
    account = bank.ledger.account(source.raw_public_key())
    builder = bank.build(source, sequence=(account.sequence if account else 0) + 1 + draft.skipped)
    if draft.skipped:
        builder.set_min_sequence_number(0)
    if draft.lock is not None:
        builder.add_extra_signer(draft.lock)
    for operation in draft.operations:
        builder.append_operation(operation)
    if draft.signers is None:
        chosen = [each for at, each in enumerate(PEOPLE) if at == draft.source or _acts(draft, each.public_key)]
        secrets = [secret for secret, lock in zip(SECRETS, LOCKS, strict=True) if lock == draft.lock]
    else:
        chosen, secrets = [PEOPLE[at] for at in draft.signers], draft.secrets
    if draft.payer is None:
        return sign(builder, *chosen, *secrets)
    return bump(signed(builder, *chosen, *secrets), PEOPLE[draft.payer]).to_xdr()


def _acts(draft: Draft, name: str) -> bool:
    return any(each.source is not None and each.source.account_id == name for each in draft.operations)


def check(before: State, after: State) -> None:
    """What holds between any two ledgers."""
    assert after.total_stroops() == TOTAL_STROOPS
    assert after.header.fee_pool_stroops >= before.header.fee_pool_stroops
    for key, account in after.accounts.items():
        assert account.balance_stroops >= 0
        assert len({each.key for each in account.signers}) == len(account.signers) <= 20
        if key in before.accounts:
            assert (
                account.sequence >= before.accounts[key].sequence or account.sequence >= before.header.first_sequence()
            )


@settings(max_examples=60)
@given(st.lists(drafts, min_size=4, max_size=12))
def test_no_lumen_comes_or_goes_and_nothing_happens_twice(story: list[Draft]) -> None:
    bank = Bank()
    for number in range(1, 5):
        bank.person(number, lumens=100)
    before, taken = bank.ledger.state, list[str]()
    for draft in story:
        text = envelope(bank, draft)
        bank.ledger.submit(text)
        taken.append(text)
        if draft.closes:
            bank.close()
            check(before, bank.ledger.state)
            before = bank.ledger.state
    bank.close()
    check(before, bank.ledger.state)
    assert bank.ledger.books.state() == bank.ledger.state, "the books say the same"
    _nothing_twice(bank, taken)


def _nothing_twice(bank: Bank, taken: list[str]) -> None:
    """What is in the books is answered from there, also by a ledger that was started again, and moves nothing."""
    again = DevelopmentLedger(bank.ledger.state, bank.ledger.books)
    known = [text for text in taken if isinstance(again.submit(text), Entry)]
    fresh = DevelopmentLedger(bank.ledger.state, bank.ledger.books)
    for text in known:
        assert fresh.submit(text) == bank.ledger.submit(text)
    accounts = fresh.state.accounts
    assert fresh.close(bank.now + 5) == []
    assert fresh.state.accounts == accounts


@given(drafts, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), st.integers(-8, 0))
def test_broken_envelopes_are_bad_messages_or_other_transactions(
    draft: Draft, changes: list[tuple[int, int]], cut: int
) -> None:
    bank = Bank()
    data = bytearray(base64.b64decode(envelope(bank, draft)))
    for place, value in changes:
        data[place % len(data)] = value
    broken = base64.b64encode(data[: len(data) + cut]).decode()
    with contextlib.suppress(BadMessage):
        submission_untrusted(broken, network_id(PASSPHRASE))
        bank.ledger.submit(broken)
        bank.close()
    assert bank.ledger.state.total_stroops() == TOTAL_STROOPS


@settings(max_examples=50)
@given(st.text(max_size=200) | st.binary(max_size=300).map(lambda data: base64.b64encode(data).decode()))
def test_anything_at_all_is_a_bad_message(text: str) -> None:
    with contextlib.suppress(BadMessage):
        submission_untrusted(text, network_id(PASSPHRASE))
