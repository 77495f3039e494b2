"""An owner and a host of one contract, in this process: real decisions and transactions, hands as short as can be.

Each does what it can in a tick, from what it has on record; the weather says who is down, what gets lost, and what is
late. Both can be told to deviate. What one is worth to the other is metered at the contract's price.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Final, NamedTuple, TypeVar

import msgspec
from stellar_sdk import AccountMerge, Preconditions, StrKey, Transaction

from layrfs.crypto import instalments
from layrfs.ids import PieceId
from layrfs.model.contracts import Lock, Offer, Terms
from layrfs.model.hosted import Batch as HostBatch
from layrfs.model.hosted import Ending, Hosted, Owed, Uncovered
from layrfs.model.ledger import LedgerHead
from layrfs.payments import envelopes
from layrfs.payments.envelopes import Envelope
from layrfs.payments.escrow import escrow_faults
from layrfs.policy import earning, ending, paymaster
from layrfs.policy.agreeing import terms_faults
from layrfs.policy.contracts import OwnerEvent, host_after, instalment_after, owner_after
from layrfs.policy.pricing import PRICED_BYTES, PRICED_SECONDS, escrow_needs, starting_stroops
from tests.contract_ledger import KEYS, PRIVATE, Scene, as_read, signed

PIECE_BYTES: Final = 64 << 30
"""What is paid for each; the bytes that are hashed are few."""

Answer = TypeVar("Answer")


class Weather(NamedTuple):
    """Of one tick."""

    owner_is_down: bool = False
    host_is_down: bool = False
    request_is_lost: bool = False
    reply_is_lost: bool = False
    delay_ticks: int = 0
    order: int = 0
    stores: bool = False


class Vices(NamedTuple):
    """How they deviate. Windows and ticks are numbers; None: never."""

    silent: frozenset[int] = frozenset()
    rubbish: frozenset[int] = frozenset()
    never_covers: bool = False
    sweeps: bool = False
    sets_up: str = "as agreed"
    does_not_top_up: bool = False
    drops_all_at: int | None = None
    loses_one_at: int | None = None
    is_greedy: bool = False
    ends_at: frozenset[int] = frozenset()
    """When the owner asks for an end by consent, and goes on as if it had not."""
    offers_less: int = 0
    """So many stroops less than what is due."""
    uses_ends_late: bool = False
    """Whether it submits what the host has signed again and again."""


class Post:
    """Submissions on their way to the ledger: late, and in any order."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._under_way: list[tuple[int, bytes, str]] = []

    def send(self, envelope: str, tick: int, weather: Weather) -> None:
        order = hashlib.sha256(envelope.encode() + bytes([weather.order])).digest()
        self._under_way.append((tick + weather.delay_ticks, order, envelope))

    def deliver(self, tick: int) -> None:
        for due in sorted(each for each in self._under_way if each[0] <= tick):
            self._scene.ledger.submit(due[2])
        self._under_way = [each for each in self._under_way if each[0] > tick]


class Cover(NamedTuple):
    """What the owner asks the host to agree to."""

    number: int
    batch: HostBatch
    pieces: tuple[PieceId, ...]
    locks: tuple[tuple[Lock, bytes], ...]


class Host:
    """Has pieces, locks and salts on record, and claims what it can answer for."""

    def __init__(self, scene: Scene, post: Post, vices: Vices, earlier: Host | None = None) -> None:
        """``earlier``: what it is by the contract before this one, on the same disk."""
        self.scene, self.post, self.vices = scene, post, vices
        self.hosted: Hosted | None = None
        self.pieces: dict[PieceId, bytes] = {} if earlier is None else earlier.pieces
        self.stored_at: dict[PieceId, int] = {} if earlier is None else earlier.stored_at
        self.contracts: list[Host] = [] if earlier is None else earlier.contracts
        self.contracts.append(self)
        self.batches: list[HostBatch] = []
        self.batch_pieces: list[tuple[PieceId, ...]] = []
        self.owed: list[Owed] = []
        self.old_claims: list[str] = []
        self.heard: set[int] = set()
        """Instalments for which it was told a salt that is good for a claim."""
        self.cost = Fraction()

    @property
    def terms(self) -> Terms:
        assert self.hosted is not None
        return self.hosted.terms

    def propose(self, terms: Terms) -> bool:
        offer = Offer(terms.price, KEYS["host"], terms.network, shortest_window_seconds=60)
        header = self.scene.ledger.state.header
        head = LedgerHead(header.sequence, header.closed_at, header.base_reserve_stroops, header.base_fee_stroops)
        if terms_faults(terms, offer, terms.node, terms.tenant, head):
            return False
        if self.hosted is None:
            self.hosted = Hosted(0, terms, "agreed", terms.start)
            self.owed = [Owed(at, 0) for at in range(terms.instalments)]
        return True

    def opened(self) -> bool:
        if self.hosted is None:
            return False
        account = as_read(self.scene.ledger.account(self.terms.escrow))
        if self.hosted.state == "agreed" and not escrow_faults(self.terms, account, starting_stroops(self.terms)):
            self._set_state("set up")
        return self.hosted.state == "open"

    def store(self, piece: PieceId, data: bytes, now: int) -> bool:
        if self.hosted is None or self.hosted.state != "open" or self._is_ending:
            return False
        if piece not in self.pieces:
            if not earning.has_credit(self.terms, self._on_credit(now).bytes, PIECE_BYTES):
                return False
            self.pieces[piece] = data
            self.stored_at[piece] = now
        return True

    def cover(self, cover: Cover, now: int) -> bool:
        assert self.hosted is not None
        if cover.number < len(self.batches):
            return self.batches[cover.number] == cover.batch
        if self._is_ending:
            return False
        if not all(piece in self.pieces for piece in cover.pieces) or cover.number > len(self.batches):
            return False
        amounts = [lock.amount_stroops for lock, _ in cover.locks]
        until = max(one.paid_until(cover.pieces, now) for one in self.contracts)
        if earning.cover_fault(self.hosted, self.batches, self.owed, cover.batch, amounts, now, until) is not None:
            return False
        owed = list(self.owed)
        for at, (lock, signature) in enumerate(cover.locks, cover.batch.first):
            if not envelopes.signed_by(envelopes.claim(self.terms, at, lock), self.terms.escrow, signature):
                return False
            owed[at] = Owed(at, lock.amount_stroops, lock.hash, signature)
        still = earning.unclaimed(self.terms, owed, now)
        needed = escrow_needs([one.amount_stroops for one in owed if one.instalment in still and one.amount_stroops])
        account = as_read(self.scene.ledger.account(self.terms.escrow))
        if escrow_faults(self.terms, account, needed, passed=earning.last_claimed(owed)):
            return False
        self.owed = owed
        self.batches.append(cover.batch)
        self.batch_pieces.append(cover.pieces)
        return True

    def paid_until(self, pieces: Collection[PieceId], now: int) -> int:
        paid = earning.paid_now(self.scene.terms, self.owed, now) if self.serves else None
        if paid is None:
            return 0
        known = {piece for number in earning.batches_of(self.batches, paid) for piece in self.batch_pieces[number]}
        return self.terms.window(paid)[1] + 1 if known.issuperset(pieces) else 0

    def disclose(self, at: int, salt: bytes, now: int) -> bool:
        """Whether it is good for a claim."""
        one = self.owed[at]
        if self._is_ending:
            return False
        if not earning.is_window_open(self.terms, at, now) or one.state not in {"waiting", "disclosed"}:
            return False
        problem = None if self._answer(at, salt) else "lock does not fit"
        state = instalment_after(one.state, "disclosed") if problem is None else one.state
        self.owed[at] = msgspec.structs.replace(one, salt=salt, problem=problem, state=state)
        if problem is None:
            self.heard.add(at)
        return problem is None

    def end(self, asked: Ending, now: int) -> bytes | None:
        """Its signature."""
        account = as_read(self.scene.ledger.account(self.terms.escrow))
        if self.hosted is None or self.hosted.state not in {"open", "notice"} or account is None:
            return None
        if self.hosted.ending != asked:
            covers, on_credit = ending.covers_of(self.batches), self._on_credit(now).bytes
            if ending.end_fault(
                self.hosted, covers, self.owed, asked, account=account, on_credit_bytes=on_credit, now=now
            ):
                return None
            self.hosted = msgspec.structs.replace(self.hosted, ending=asked)
        return end_of(self.terms, asked).sign(PRIVATE["host"])

    def _see_end(self, now: int) -> None:
        """Whether what was signed came."""
        if self.hosted is None or self.hosted.ending is None or self.hosted.state == "ended":
            return
        entry = self.scene.ledger.books.entry(end_of(self.terms, self.hosted.ending).hash)
        if entry is not None and entry.outcome.is_success:
            self._set_state("merged")
        elif entry is not None or now > self.hosted.ending.latest:
            self.hosted = msgspec.structs.replace(self.hosted, ending=None)

    @property
    def _is_ending(self) -> bool:
        return self.hosted is None or self.hosted.ending is not None or self.hosted.state == "ended"

    def tick(self, tick: int, now: int, weather: Weather) -> None:
        if self.hosted is None:
            return
        self._see_end(now)
        self._lose(tick)
        for one in [one for one in self.owed if one.state == "disclosed" and one.salt is not None]:
            self._claim(one, tick, now, weather)
        for one in earning.missed(self.terms, self.owed, now):
            self.owed[one.instalment] = msgspec.structs.replace(one, state=instalment_after(one.state, "window over"))
        header = self.scene.ledger.state.header
        event = earning.event(
            self.hosted,
            self.owed,
            first=earning.first_in_use(self.terms, self.batches if self.pieces else [], self._on_credit(now)),
            ledger=header.sequence,
            now=now,
            on_credit=self._on_credit(now),
        )
        if (
            self.hosted.ending is None
            and event is not None
            and not (event == "too late" and self.scene.ledger.account(self.terms.escrow))
        ):
            self._set_state(event)
        if self.vices.is_greedy:
            for envelope in [*self.old_claims, signed(envelopes.refund(self.terms))]:
                self.post.send(envelope, tick, weather)

    def keep(self, seconds: int) -> None:
        self.cost += worth(self.scene.terms, len(self.pieces), seconds)

    @property
    def serves(self) -> bool:
        """By this contract."""
        return self.hosted is not None and self.hosted.state == "open"

    def _on_credit(self, now: int) -> Uncovered:
        covered = {each for one in self.contracts for pieces in one.batch_pieces for each in pieces}
        since = [now - self.stored_at[piece] for piece in self.pieces.keys() - covered]
        return Uncovered(len(since) * PIECE_BYTES, sum(since) * PIECE_BYTES, now - max(since, default=0))

    def _lose(self, tick: int) -> None:
        if self.vices.drops_all_at is not None and tick >= self.vices.drops_all_at:
            self.pieces.clear()
        if self.vices.loses_one_at == tick and self.pieces:
            del self.pieces[next(iter(self.pieces))]

    def _answer(self, at: int, salt: bytes) -> bytes | None:
        """None unless it opens the lock: pieces are missing, or the lock was rubbish."""
        digests = []
        for number in earning.batches_of(self.batches, at):
            if not all(piece in self.pieces for piece in self.batch_pieces[number]):
                return None
            found = [instalments.piece_digest(salt, at, each, self.pieces[each]) for each in self.batch_pieces[number]]
            digests.append(instalments.batch_digest(salt, found))
        answered = instalments.answer(salt, self.terms.contract_id, at, digests)
        return answered if instalments.lock_hash(answered) == self.owed[at].hash else None

    def _claim(self, one: Owed, tick: int, now: int, weather: Weather) -> None:
        envelope = envelopes.claim(self.terms, one.instalment, Lock(one.amount_stroops, one.hash))
        if is_in(self.scene, envelope):
            self.owed[one.instalment] = msgspec.structs.replace(one, state=instalment_after(one.state, "claimed"))
            return
        answered = self._answer(one.instalment, one.salt) if one.salt else None
        if answered is not None and earning.is_window_open(self.terms, one.instalment, now):
            signatures = {self.terms.escrow: one.signature, self.terms.host: envelope.sign(PRIVATE["host"])}
            self.old_claims.append(envelope.xdr(signatures, [answered]))
            self.post.send(self.old_claims[-1], tick, weather)

    def _set_state(self, event: str) -> None:
        assert self.hosted is not None
        state = host_after(self.hosted.state, event)
        if state != self.hosted.state:
            since = self.scene.ledger.state.header.closed_at
            self.hosted = msgspec.structs.replace(self.hosted, state=state, since=since)


class Owner:
    """Stores, covers, discloses and takes back what is left, as its plan says."""

    def __init__(self, scene: Scene, post: Post, host: Host, vices: Vices, earlier: Owner | None = None) -> None:
        """``earlier``: what it is by the contract before this one, whose pieces this one is to go on with."""
        self.scene, self.post, self.host, self.vices = scene, post, host, vices
        self.earlier = earlier
        self.later: Owner | None = None
        if earlier is not None:
            earlier.later = self
        blank = (paymaster.Instalment(),) * scene.terms.instalments
        self.contract = paymaster.Contract(0, scene.terms, "agreed", instalments=blank)
        self.uncovered: list[tuple[PieceId, bytes, int]] = []
        self.in_batch: list[tuple[PieceId, ...]] = []
        self.signed: list[list[Envelope]] = [[] for _ in blank]
        self.data: dict[PieceId, bytes] = {}
        self.is_agreed = self.is_ready = False
        self.ends: list[str] = []
        self.ended_with: dict[bytes, int] = {}
        self.stored = 0
        self.storing: tuple[PieceId, bytes, int] | None = None
        self.overpaid = Fraction()
        """For pieces that were asked to be stored, or were in one batch with those that were, before they were."""
        self.served = Fraction()

    @property
    def set_up_terms(self) -> Terms:
        """What the escrow is really set up for."""
        terms = self.scene.terms
        return {
            "as agreed": terms,
            "with less": msgspec.structs.replace(terms, deposit_stroops=terms.deposit_stroops - 1),
            "to end early": msgspec.structs.replace(terms, window_seconds=1),
            "for another host": msgspec.structs.replace(terms, host=KEYS["mallory"]),
        }[self.vices.sets_up]

    def tick(self, tick: int, now: int, weather: Weather) -> None:
        def ask(request: Callable[[], Answer]) -> Answer | None:
            if weather.request_is_lost or weather.host_is_down:
                return None
            reply = request()
            return None if weather.reply_is_lost else reply

        terms = self.contract.terms
        if not self.is_agreed:
            self.is_agreed = bool(ask(lambda: self.host.propose(terms)))
        if self.vices.sweeps:
            self.post.send(self._sweep(), tick, weather)
        if self.is_agreed and self.contract.state in {"agreed", "submitted"}:
            self._set_up(tick, weather)
        if self.contract.state == "open" and not self.is_ready:
            self.is_ready = bool(ask(self.host.opened))
        if self.is_ready and self.earlier is not None:
            self._take_over(self.earlier, now)
        if self.is_ready and self.earlier is None and now < terms.window(terms.instalments - 1)[0]:
            self._store(ask, now, weather)
        if tick in self.vices.ends_at:
            self._end(ask, tick, now, weather)
        for envelope in self.ends if self.vices.uses_ends_late else []:
            self.post.send(envelope, tick, weather)
        is_well = True
        for step in self._steps(now):
            if is_well or not paymaster.waits(step, terms, now):
                is_well = self._do(step, tick, now, weather, ask) and is_well

    def keep(self, seconds: int) -> None:
        if self.host.serves:
            self.served += worth(self.scene.terms, len(self.host.pieces), seconds)

    def _steps(self, now: int) -> tuple[paymaster.Step, ...]:
        is_quiet = self.earlier is not None or not self.uncovered
        quiet = 1e9 if is_quiet else float(now - self.uncovered[-1][2])
        uncovered = paymaster.Uncovered(len(self.uncovered), len(self.uncovered) * PIECE_BYTES, quiet)
        is_on = (
            self.later is not None
            and self.later.contract.state == "open"
            and self.later.covered.issuperset(self.covered)
            and not self.storing
        )
        return paymaster.steps(self.contract, uncovered, now, is_renewed=True, is_wanted=False, is_handed_on=is_on)

    @property
    def covered(self) -> set[PieceId]:
        """What the host has agreed to."""
        agreed = [batch.number for batch in self.contract.batches if batch.covered]
        return {piece for number in agreed for piece in self.in_batch[number]}

    def _take_over(self, earlier: Owner, now: int) -> None:
        """Of pieces that it has paid for, up to when it has."""
        terms, until = earlier.contract.terms, paymaster.paid_until(earlier.contract, now)
        since = terms.end if now >= terms.end else until
        mine = {piece for pieces in self.in_batch for piece in pieces} | {piece for piece, _, _ in self.uncovered}
        if since is not None:
            self.uncovered += [(piece, earlier.data[piece], since) for piece in earlier.covered - mine]

    def _do(
        self,
        step: paymaster.Step,
        tick: int,
        now: int,
        weather: Weather,
        ask: Callable[[Callable[[], bool]], bool | None],
    ) -> bool:
        """Whether it went well."""
        match step.kind:
            case "watch":
                self._watch(step.instalment, now)
            case "cover again":
                return self._cover(len(self.contract.batches) - 1, tick, now, weather, ask)
            case "cover" if not self.vices.never_covers:
                self._new_batch(now)
                return self._cover(len(self.contract.batches) - 1, tick, now, weather, ask)
            case "disclose" if self.contract.instalments[step.instalment].state in {"waiting", "disclosed"}:
                self._disclose(step.instalment, now, ask)
            case "end":
                self._set_state("period over")
            case "refund":
                self._refund(tick, weather)
            case "settled" if self.scene.ledger.account(self.contract.terms.escrow) is None:
                self._set_state("merged")
            case "settle" if self.contract.state != "merged":
                self._set_state("unwanted")
                self._end(ask, tick, now, weather)
        return True

    def _end(
        self, ask: Callable[[Callable[[], bytes | None]], bytes | None], tick: int, now: int, weather: Weather
    ) -> None:
        """Ask for an end, and submit it if the host signs."""
        terms, account = self.contract.terms, self.scene.ledger.account(self.contract.terms.escrow)
        if account is None or now >= terms.end:
            return
        latest = ending.last_second(terms, now) if self.later else now + ending.USUAL_SECONDS
        if latest is None:
            return
        stroops = max(0, paymaster.host_due(self.contract, latest) - self.vices.offers_less)
        asked = Ending(stroops, account.sequence + 1, latest)
        signature = ask(lambda: self.host.end(asked, now))
        if signature is not None:
            envelope = end_of(terms, asked)
            signatures = {terms.escrow: envelope.sign(self.scene.escrow_private), terms.host: signature}
            self.ends.append(envelope.xdr(signatures))
            self.ended_with[envelope.hash] = stroops
            self.post.send(self.ends[-1], tick, weather)

    def _set_up(self, tick: int, weather: Weather) -> None:
        terms, header = self.contract.terms, self.scene.ledger.state.header
        if self.scene.ledger.account(terms.escrow):
            self._set_state("set up")
        elif header.sequence > terms.last_setup_ledger or header.closed_at > terms.start + 60:
            self._set_state("too late")
        else:
            self._set_state("sent")
            envelope = envelopes.setup(self.set_up_terms)
            by_escrow = {terms.escrow: envelope.sign(self.scene.escrow_private)}
            signatures = {terms.owner: envelope.sign(PRIVATE["owner"]), **by_escrow}
            self.post.send(envelope.xdr(signatures), tick, weather)

    def _store(self, ask: Callable[[Callable[[], bool]], bool | None], now: int, weather: Weather) -> None:
        """A new piece now and then, again and again until the host says that it has it: it is paid from the first."""
        if self.storing is None and weather.stores:
            data = self.stored.to_bytes(4, "big") * 10
            self.stored += 1
            self.storing = (PieceId(hashlib.sha256(data).digest()), data, now)
        if self.storing is not None:
            piece, data, _ = self.storing
            if ask(lambda: self.host.store(piece, data, now)):
                self.uncovered.append(self.storing)
                self.data[piece] = data
                self.storing = None

    def _new_batch(self, now: int) -> None:
        first = paymaster.first_open(self.contract, now)
        assert first is not None
        pieces = sorted(self.uncovered)
        digests = []
        for at in range(first, self.contract.terms.instalments):
            found = [instalments.piece_digest(self._salt(at), at, piece, data) for piece, data, _ in pieces]
            digests.append(instalments.batch_digest(self._salt(at), found))
        since = min(at for _, _, at in pieces)
        self.overpaid += sum(
            worth(self.contract.terms, 1, max(0, self.host.stored_at[piece] - since)) for piece, _, _ in pieces
        )
        number = len(self.contract.batches)
        batch = paymaster.Batch(number, first, since, len(pieces) * PIECE_BYTES, tuple(digests), covered=False)
        self.contract = msgspec.structs.replace(self.contract, batches=(*self.contract.batches, batch))
        self.in_batch.append(tuple(piece for piece, _, _ in pieces))
        self.uncovered = []

    def _cover(
        self, number: int, tick: int, now: int, weather: Weather, ask: Callable[[Callable[[], bool]], bool | None]
    ) -> bool:
        terms, batch = self.contract.terms, self.contract.batches[number]
        needed = escrow_needs(paymaster.unclaimed(self.contract)) + ending.FEES_STROOPS
        lacking = needed - self.scene.balance("escrow")
        if lacking > 0 and not self.vices.does_not_top_up:
            sequence = self.scene.account("owner").sequence + 1
            top_up = envelopes.payment(
                terms.network,
                terms.owner,
                terms.escrow,
                stroops=lacking,
                sequence_number=sequence,
                last_second=now + 250,
            )
            self.post.send(signed(top_up, "owner"), tick, weather._replace(delay_ticks=0))
            return False
        locks = []
        for at in range(batch.first, terms.instalments):
            lock = paymaster.lock(terms, self.contract.batches, at, self._salt(at))
            if at in self.vices.rubbish:
                lock = Lock(lock.amount_stroops, bytes(32))
            envelope = envelopes.claim(terms, at, lock)
            self.signed[at].append(envelope)
            locks.append((lock, envelope.sign(self.scene.escrow_private)))
        hosts = HostBatch(batch.first, batch.at, batch.stored_bytes, len(self.in_batch[number]))
        said = ask(lambda: self.host.cover(Cover(number, hosts, self.in_batch[number], tuple(locks)), now))
        if said is False and batch.first < (terms.instalment_at(now) or 0):
            self._take_back(number)
        if not said:
            return False
        covered = msgspec.structs.replace(batch, covered=True)
        self.contract = msgspec.structs.replace(self.contract, batches=(*self.contract.batches[:number], covered))
        return True

    def _take_back(self, number: int) -> None:
        """A batch that came too late for its first instalment: its pieces go into another."""
        batch, pieces = self.contract.batches[number], self.in_batch.pop()
        self.contract = msgspec.structs.replace(self.contract, batches=self.contract.batches[:number])
        self.uncovered = [(piece, self.host.pieces[piece], batch.at) for piece in pieces if piece in self.host.pieces]

    def _disclose(self, at: int, now: int, ask: Callable[[Callable[[], bool]], bool | None]) -> None:
        if at in self.vices.silent:
            return
        self._set_instalment(at, "disclosed")
        ask(lambda: self.host.disclose(at, self._salt(at), now))

    def _salt(self, instalment: int) -> bytes:
        return hashlib.sha256(self.contract.terms.escrow + bytes([instalment])).digest()

    def _watch(self, at: int, now: int) -> None:
        if any(is_in(self.scene, each) for each in self.signed[at]):
            self._set_instalment(at, "claimed")
        elif now > self.contract.terms.window(at)[1]:
            self._set_instalment(at, "window over")

    def _refund(self, tick: int, weather: Weather) -> None:
        if self.scene.ledger.account(self.contract.terms.escrow) is None:
            self._set_state("merged")
        else:
            self.post.send(signed(envelopes.refund(self.contract.terms)), tick, weather)

    def _sweep(self) -> str:
        """All the escrow has, now, with all the keys that the owner has."""
        terms, account = self.contract.terms, self.scene.ledger.account(self.contract.terms.escrow)
        escrow, owner = (StrKey.encode_ed25519_public_key(key) for key in (terms.escrow, terms.owner))
        sequence = account.sequence + 1 if account else 1
        body = Transaction(escrow, sequence, 100, [AccountMerge(owner)], None, Preconditions())
        return signed(Envelope(terms.network, body.to_xdr_object().to_xdr_bytes()), "escrow", "owner")

    def _set_state(self, event: OwnerEvent) -> None:
        self.contract = msgspec.structs.replace(self.contract, state=owner_after(self.contract.state, event))

    def _set_instalment(self, at: int, event: str) -> None:
        found = list(self.contract.instalments)
        state = instalment_after(found[at].state, event)
        found[at] = msgspec.structs.replace(found[at], state=state)
        self.contract = msgspec.structs.replace(self.contract, instalments=tuple(found))


def end_of(terms: Terms, asked: Ending) -> Envelope:
    return envelopes.settle(terms, host_stroops=asked.stroops, sequence_number=asked.sequence, last_second=asked.latest)


def worth(terms: Terms, pieces: int, seconds: int) -> Fraction:
    """What keeping so many for so long is worth, in stroops."""
    return Fraction(terms.price * pieces * PIECE_BYTES * seconds, PRICED_BYTES * PRICED_SECONDS)


def is_in(scene: Scene, envelope: Envelope) -> bool:
    """Whether it took effect on the ledger."""
    entry = scene.ledger.books.entry(envelope.hash)
    return entry is not None and entry.outcome.is_success
