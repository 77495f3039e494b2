"""Everything that parties of a contract could submit, signed in every way they can: only what is due passes, ever.

All stages, parties, and subsets of signatures and answers, against the rules of the development ledger. The quick form
takes one in so many of those that cannot look right; `--big` takes all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, combinations
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stellar_sdk import (
    AccountMerge,
    Asset,
    BumpSequence,
    LedgerBounds,
    Operation,
    Payment,
    Preconditions,
    SetOptions,
    StrKey,
    TimeBounds,
    Transaction,
)
from stellar_sdk import Signer as Extra
from stellar_sdk import SignerKey as ExtraKey

from layrfs.payments import envelopes
from layrfs.payments.devledger.rules import close, refusal
from layrfs.payments.devledger.state import Account, State, network_id
from layrfs.payments.devledger.transactions import FeeBump, Signature, Submission, submission_untrusted
from layrfs.payments.devledger.transactions import Transaction as Submitted
from layrfs.payments.envelopes import Envelope
from layrfs.policy.pricing import starting_stroops
from tests.contract_ledger import KEYS, PRIVATE, Scene, answer_to, claim_of
from tests.contract_terms import LEDGER_NAME

INSTALMENTS = 4
STROOPS = 1_000_000
ANSWERS = [answer_to(number, version) for number in range(INSTALMENTS) for version in (0, 1)]
ONE_IN = 16
XLM = Asset.native()
OWNER, HOST, ESCROW, MALLORY = (
    StrKey.encode_ed25519_public_key(KEYS[name]) for name in ("owner", "host", "escrow", "mallory")
)


class Attempt(NamedTuple):
    """Who submits what, signed by whom, with which answers, and whether in a fee bump."""

    party: str
    move: str
    signers: tuple[str, ...]
    answers: tuple[bytes, ...]
    is_bumped: bool = False


class Party(NamedTuple):
    """Who submits: the keys it has, whether it was given the escrow's signatures of the claims, and what it answers."""

    name: str
    keys: tuple[str, ...]
    has_claims: bool
    answers: tuple[bytes, ...]


class Stage(NamedTuple):
    """The ledger at one moment, what was disclosed and seen there before, and what is due."""

    name: str
    state: State
    disclosed: tuple[bytes, ...]
    published: frozenset[str]
    due: frozenset[Attempt]
    """By whom what has to pass."""

    is_ending: bool = False
    """Whether the host has given the owner its signature of an end."""


def test_of_all_that_can_be_submitted_only_what_is_due_passes(big: bool) -> None:
    tried = 0
    for stage in stages():
        moves = {name: decoded(envelope) for name, envelope in all_moves(stage.state).items()}
        for party in parties(stage):
            passed = set()
            for attempt in attempts(party, stage, moves, every=1 if big else ONE_IN):
                tried += 1
                if passes(attempt, moves[attempt.move], stage.state):
                    passed.add(attempt)
            assert passed == {each for each in stage.due if each.party == party.name}, (stage.name, party.name)
    assert tried > (50_000 if big else 4_000)


TERMS = Scene(instalments=INSTALMENTS, deposit_stroops=2 * INSTALMENTS * STROOPS).terms


def stages() -> Iterator[Stage]:
    scene = Scene(instalments=INSTALMENTS, deposit_stroops=2 * INSTALMENTS * STROOPS)
    assert scene.terms == TERMS
    setup = Attempt("owner", "setup", ("escrow", "owner"), ())
    yield stage("terms were agreed", scene, 0, set(), {setup})
    assert scene.run(envelopes.setup(TERMS), "owner", "escrow")
    published = {"setup"}
    yield stage("the escrow is there", scene, 0, published)
    yield stage("the first salt was disclosed", scene, 1, published, claims_due(0))
    assert scene.run(claim_of(TERMS, 0, 2 * STROOPS, 1), "escrow", "host", answer=answer_to(0, 1))
    published = published | {"claim 0 again"}
    yield stage("the first instalment was claimed", scene, 1, published)
    scene.until(TERMS.window(0)[1] - 5)
    yield stage("the first window is as good as over", scene, 1, published)
    while scene.ledger.state.header.sequence < TERMS.last_setup_ledger:
        scene.close()
    scene.until(TERMS.window(1)[0])
    yield stage("the owner is silent", scene, 1, published)
    end = {Attempt("owner", "end", ("escrow", "host"), ())}
    yield stage("the host has signed an end", scene, 1, published, end)._replace(is_ending=True)
    yield stage("the second salt was disclosed", scene, 2, published, claims_due(1))
    scene.until(TERMS.window(2)[0])
    yield stage("the second instalment was missed", scene, 3, published, claims_due(2))
    assert scene.run(claim_of(TERMS, 2, STROOPS), "escrow", "host", answer=answer_to(2))
    published = published | {"claim 2"}
    scene.until(TERMS.window(3)[0])
    yield stage("the last window is open", scene, 4, published, claims_due(3))
    scene.until(TERMS.end)
    refunds = {Attempt(name, "refund", (), ()) for name in ("owner", "host", "observer")}
    yield stage("it is over", scene, 4, published, refunds)
    assert scene.run(envelopes.refund(TERMS))
    yield stage("all was paid back", scene, 4, published | {"refund"})
    slow = Scene(instalments=INSTALMENTS, deposit_stroops=2 * INSTALMENTS * STROOPS)
    assert slow.run(envelopes.setup(TERMS), "owner", "escrow")
    slow.until(TERMS.end)
    yield stage("it is over before the last ledger of the setup", slow, 4, {"setup"})
    short = Scene(instalments=INSTALMENTS, deposit_stroops=2 * INSTALMENTS * STROOPS)
    assert short.run(envelopes.setup(TERMS), "owner", "escrow")
    ending = Attempt("owner", "end", ("escrow", "host"), ())
    yield stage("an end is signed before the last ledger of the setup", short, 1, {"setup"}, claims_due(0))._replace(
        is_ending=True
    )
    while short.ledger.state.header.sequence < TERMS.last_setup_ledger:
        short.close()
    yield stage("an end is signed", short, 0, {"setup"}, {ending})._replace(is_ending=True)
    assert short.run(end_now(short.ledger.state), "escrow", "host")
    yield stage("it ended by consent", short, 1, {"setup"})._replace(is_ending=True)


def end_now(state: State, last_second: int | None = None) -> Envelope:
    """What the host would sign now, or until then."""
    account = state.accounts.get(KEYS["escrow"])
    return envelopes.settle(
        TERMS,
        host_stroops=STROOPS // 2,
        sequence_number=account.sequence + 1 if account else 1,
        last_second=state.header.closed_at + 300 if last_second is None else last_second,
    )


def stage(name: str, scene: Scene, disclosed: int, published: set[str], due: Iterable[Attempt] = ()) -> Stage:
    """With fee bumps of what is due, which change nothing."""
    bumped = [each._replace(is_bumped=True) for each in due]
    answers = tuple(ANSWERS[: 2 * disclosed])
    return Stage(name, scene.ledger.state, answers, frozenset(published), frozenset([*due, *bumped]))


def claims_due(instalment: int) -> set[Attempt]:
    """The host may claim what was signed first, or what was signed later."""
    versions = {0: f"claim {instalment}", 1: f"claim {instalment} again"}
    return {
        Attempt("host", name, ("escrow", "host"), (answer_to(instalment, version),))
        for version, name in versions.items()
    }


def parties(stage: Stage) -> list[Party]:
    seen = [answer for name, answer in ANSWER_OF.items() if name in stage.published]
    return [
        Party("owner", ("escrow", "mallory", "owner"), has_claims=True, answers=tuple(ANSWERS)),
        Party("host", ("host", "mallory"), has_claims=True, answers=stage.disclosed),
        Party("observer", ("mallory",), has_claims=False, answers=tuple(seen)),
    ]


ANSWER_OF = {
    f"claim {number}{again}": answer_to(number, version)
    for number in range(INSTALMENTS)
    for version, again in enumerate(("", " again"))
}
SIGNED_BY = {
    "setup": ("escrow", "owner"),
    "refund": (),
    "end": ("escrow", "host"),
    **dict.fromkeys(ANSWER_OF, ("escrow", "host")),
}


def attempts(party: Party, stage: Stage, moves: Iterable[str], *, every: int) -> Iterator[Attempt]:
    """All that look right, also with the fee bumped, and of the others one of `every`."""
    for move in moves:
        signers = set(party.keys)
        if party.has_claims and move in ANSWER_OF:
            signers.add("escrow")
        if party.name == "owner" and move == "end" and stage.is_ending:
            signers.add("host")
        if move in stage.published:
            signers.update(SIGNED_BY[move])
        for at, (some, answers) in enumerate(product_of(subsets(sorted(signers)), answer_sets(party.answers))):
            attempt = Attempt(party.name, move, some, answers)
            right = (ANSWER_OF[move],) if move in ANSWER_OF else ()
            if some == SIGNED_BY.get(move) and answers == right:
                yield attempt
                yield attempt._replace(is_bumped=True)
            elif at % every == hash_of(move) % every:
                yield attempt


def subsets(names: list[str]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, count) for count in range(len(names) + 1)))


def answer_sets(answers: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """None, each, and all that are known."""
    return list(dict.fromkeys([(), *((each,) for each in answers), answers]))


def product_of(
    signers: list[tuple[str, ...]], answers: list[tuple[bytes, ...]]
) -> list[tuple[tuple[str, ...], tuple[bytes, ...]]]:
    return [(some, answered) for some in signers for answered in answers]


def hash_of(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0]


def passes(attempt: Attempt, move: Submitted, state: State) -> bool:
    """Whether it does anything to the escrow. Who gains by it is looked at here as well."""
    submission = submitted(attempt, move)
    closing = state.header.closed_at + 5
    if refusal(submission, state.header, state.accounts, latest=closing) is not None:
        return False
    _, draft, _ = close([submission], state.header, state.accounts, closing)
    before, after = state.accounts.get(KEYS["escrow"]), draft.get(KEYS["escrow"])
    if before == after:
        return False
    gains = {name: draft_balance(draft.get(key)) - draft_balance(state.accounts.get(key)) for name, key in KEYS.items()}
    fee = 0 if attempt.is_bumped else 100
    if attempt.move == "refund":
        assert gains["owner"] == draft_balance(before) - fee
    elif attempt.move == "end":
        assert gains["host"] == STROOPS // 2
        assert gains["owner"] == draft_balance(before) - STROOPS // 2 - 2 * fee
    elif attempt.move in ANSWER_OF:
        assert gains["host"] == AMOUNTS[attempt.move] == -gains["escrow"] - fee
    else:
        assert gains["escrow"] == starting_stroops(TERMS)
    assert gains["mallory"] <= 0
    return True


def draft_balance(account: Account | None) -> int:
    return account.balance_stroops if account else 0


AMOUNTS = {name: 2 * STROOPS if "again" in name else STROOPS for name in ANSWER_OF}


def submitted(attempt: Attempt, move: Submitted) -> Submission:
    found = [Signature(KEYS[name][-4:], signature(move.hash, name)) for name in attempt.signers]
    found += [Signature(hashlib.sha256(answer).digest()[-4:], answer) for answer in attempt.answers]
    inner = msgspec.structs.replace(move, signatures=tuple(found))
    if not attempt.is_bumped:
        return inner
    bumped = hashlib.sha256(b"bump" + move.hash).digest()
    by_mallory = (Signature(KEYS["mallory"][-4:], signature(bumped, "mallory")),)
    return FeeBump(hash=bumped, fee_source=KEYS["mallory"], fee_stroops=10_000, inner=inner, signatures=by_mallory)


@cache
def signature(signed: bytes, name: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(PRIVATE[name]).sign(signed)


@cache
def decoded(envelope: Envelope) -> Submitted:
    found = submission_untrusted(envelope.xdr({}), network_id(LEDGER_NAME))
    assert isinstance(found, Submitted)
    return found


def all_moves(state: State) -> dict[str, Envelope]:
    """Everything agreed, and everything else that somebody might like to have happen to the escrow now."""
    now = state.header.closed_at
    claims = {
        name: claim_of(TERMS, number, AMOUNTS[name], version)
        for number in range(INSTALMENTS)
        for version, name in enumerate((f"claim {number}", f"claim {number} again"))
    }
    agreed = {"setup": envelopes.setup(TERMS), **claims, "refund": envelopes.refund(TERMS), "end": end_now(state)}
    forged = {"end for ever": end_now(state, 0), **forged_claims(now), **forged_refunds(now)}
    return {**agreed, **forged, **greedy(state)}


def forged_claims(now: int) -> dict[str, Envelope]:
    """Claims that pay more, at another time, to somebody else, or without an answer."""
    found = {}
    for number in range(INSTALMENTS):
        lock = ExtraKey.sha256_hash(hashlib.sha256(answer_to(number)).digest())
        place, window = envelopes.sequence(TERMS, number + 1), TimeBounds(*TERMS.window(number))
        pay = Payment(HOST, XLM, "0.1")
        locked = Preconditions(window, min_sequence_number=0, extra_signers=[lock])
        anytime = Preconditions(TimeBounds(now - 60, now + 600), min_sequence_number=0, extra_signers=[lock])
        open_ = Preconditions(window, min_sequence_number=0)
        found[f"claim {number} of more"] = made(ESCROW, place, [Payment(HOST, XLM, "0.4")], locked)
        found[f"claim {number} for mallory"] = made(ESCROW, place, [Payment(MALLORY, XLM, "0.1")], locked)
        found[f"claim {number} now"] = made(ESCROW, place, [pay], anytime)
        found[f"claim {number} without an answer"] = made(ESCROW, place, [pay], open_)
    return found


def forged_refunds(now: int) -> dict[str, Envelope]:
    """The refund now, or where it would fail, or to somebody else."""
    place, merge = envelopes.sequence(TERMS, INSTALMENTS + 1), [AccountMerge(OWNER)]
    guard = LedgerBounds(TERMS.last_setup_ledger + 1, 0)
    late = TimeBounds(TERMS.end, 0)
    return {
        "refund now": made(ESCROW, place, merge, Preconditions(TimeBounds(now - 60, 0), guard, 0)),
        "refund without a guard": made(ESCROW, place, merge, Preconditions(late, None, 0)),
        "refund to mallory": made(ESCROW, place, [AccountMerge(MALLORY)], Preconditions(late, guard, 0)),
        "refund in turn": made(ESCROW, place, merge, Preconditions(late, guard)),
    }


def greedy(state: State) -> dict[str, Envelope]:
    """Whatever else an account can be told to do, by a transaction of its own, or in somebody else's."""
    account = state.accounts.get(KEYS["escrow"])
    following = account.sequence + 1 if account else 1
    beyond = envelopes.sequence(TERMS, INSTALMENTS + 2)
    found = {}
    for name, operation in operations(None).items():
        found[f"{name}, in turn"] = made(ESCROW, following, [operation], Preconditions())
        found[f"{name}, in the end"] = made(ESCROW, beyond, [operation], Preconditions(min_sequence_number=0))
    for name, operation in operations(ESCROW).items():
        for source in ("owner", "host", "mallory"):
            number = state.accounts[KEYS[source]].sequence + 1
            address = StrKey.encode_ed25519_public_key(KEYS[source])
            found[f"{name}, within one of {source}"] = made(address, number, [operation], Preconditions())
    return found


def operations(source: str | None) -> dict[str, Operation]:
    return {
        "pay the owner": Payment(OWNER, XLM, "0.01", source),
        "pay the host": Payment(HOST, XLM, "0.01", source),
        "pay mallory": Payment(MALLORY, XLM, "0.01", source),
        "merge into the owner": AccountMerge(OWNER, source),
        "merge into the host": AccountMerge(HOST, source),
        "merge into mallory": AccountMerge(MALLORY, source),
        "lower the thresholds": SetOptions(low_threshold=0, med_threshold=0, high_threshold=0, source=source),
        "weigh more": SetOptions(master_weight=2, source=source),
        "let mallory sign": SetOptions(signer=Extra.ed25519_public_key(MALLORY, 2), source=source),
        "drop the host": SetOptions(signer=Extra.ed25519_public_key(HOST, 0), source=source),
        "drop the refund": SetOptions(signer=Extra.pre_auth_tx(envelopes.refund(TERMS).hash, 0), source=source),
        "take a name": SetOptions(home_domain="mallory.example", source=source),
        "use up the numbers": BumpSequence(envelopes.sequence(TERMS, INSTALMENTS + 1), source),
    }


def made(source: str, number: int, some: list[Operation], bounds: Preconditions) -> Envelope:
    transaction = Transaction(source, number, 100, some, None, bounds)
    return Envelope(network_id(LEDGER_NAME), transaction.to_xdr_object().to_xdr_bytes())
