"""What each request gets: one short function per kind, and the table of them.

Owns the meaning of requests for the pieces on this host. Must not know sockets or threads; everything it is given has
the right shape already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

from msgspec import Struct, field

from layrfs.crypto import merkle
from layrfs.crypto.challenges import answer_digest, answer_leaves, chosen_leaves, digest_of_selected
from layrfs.crypto.identity import verify_signature
from layrfs.errors import BadMessage, MissingPiece, NoSpace, NotPermitted, WrongBytes
from layrfs.host.questions import Questions
from layrfs.ids import NodeId, PieceId
from layrfs.network.piece_server import Answer, Visit
from layrfs.storage.piece_ranges import LeafReads, RangeRead
from layrfs.wire import messages
from layrfs.wire.contracts import (
    ContractRequest,
    ContractResponse,
    Cover,
    Disclose,
    EarningReport,
    Leave,
    Leaving,
    Opened,
    Propose,
    Quote,
    Quoted,
    Settle,
    Standing,
    contract_statement,
)
from layrfs.wire.delegation import (
    Delegate,
    DelegationRequest,
    DelegationResponse,
    Entrust,
    GetPatches,
    Revoke,
    delegation_statement,
)
from layrfs.wire.messages import Reason, Request

RequestT = TypeVar("RequestT", bound=Struct)
Said = ParamSpec("Said")


class Pieces(Protocol):
    """What handlers need of a piece store; `layrfs.storage.piece_store.PieceStore` says what each means."""

    def put(self, piece: PieceId, data: memoryview, tenant: bytes, note: bytes) -> None: ...
    def has(self, piece: PieceId) -> bool: ...
    def read(self, piece: PieceId) -> bytes | None: ...
    def read_range(self, piece: PieceId, offset: int, length: int | None) -> RangeRead | None: ...
    def read_leaves(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> LeafReads | None: ...
    def delete(self, piece: PieceId, tenant: bytes) -> bool: ...
    def renew(self, piece: PieceId, tenant: bytes) -> bool: ...
    def inventory(self, tenant: bytes, after: PieceId) -> tuple[list[messages.Listed], PieceId | None]: ...


class Roots(Protocol):
    """What handlers need of `layrfs.storage.root_store.RootStore`."""

    def put(self, data: bytes) -> bool: ...
    def get(self, volume: bytes) -> bytes | None: ...


class Delegations(Protocol):
    """What handlers need of `layrfs.app.delegations.Delegations`; all of it is asked for by the volume itself."""

    def answer(self, request: DelegationRequest, body: memoryview) -> DelegationResponse:
        """Raises MissingPiece (no such delegation), NoSpace, BadMessage, LocalError."""
        ...


class Contracts(Protocol):
    """What handlers need of `layrfs.app.earning.Earning`, which says what each means."""

    def quote(self) -> Quoted: ...
    def answer(self, request: ContractRequest, body: memoryview) -> ContractResponse | messages.Refused:
        """Raises BadMessage, LocalError. Asked for by the tenant itself."""
        ...

    def room(self, tenant: bytes, piece_bytes: int) -> AbstractContextManager[Reason | None]: ...
    def stored(self, piece: PieceId, tenant: bytes, piece_bytes: int) -> None: ...
    def has_contract(self, tenant: bytes) -> bool: ...
    def serves(self, piece: PieceId) -> bool: ...
    def deleting(self, tenant: bytes, pieces: Sequence[PieceId]) -> AbstractContextManager[Sequence[PieceId]]: ...
    def leave(self) -> Leaving: ...
    def report(self) -> EarningReport: ...


class Host(Struct, frozen=True):
    """What handlers work with."""

    node_id: NodeId
    network_id: bytes
    pieces: Pieces
    roots: Roots
    report: Callable[[], messages.StatusReport]
    delegations: Delegations | None = None
    """None: this host repairs nothing for others."""
    contracts: Contracts | None = None
    """None: this host is free."""
    questions: Questions = field(default_factory=Questions)


class Call(Struct, Generic[RequestT], frozen=True):
    """One request on its way to an answer; `body` is empty for all kinds but Store."""

    host: Host
    visit: Visit
    request: RequestT
    body: memoryview


Handler = Callable[[Call[Request]], Answer]


def handle_store(call: Call[messages.Store]) -> Answer:
    """Verified, then stored, then acknowledged: the answer means the piece is durable."""
    try:
        call.host.pieces.put(call.request.piece, call.body, call.request.tenant, call.request.note)
    except WrongBytes:
        return _refuse("wrong piece")
    except NotPermitted:
        return _refuse("not the owner")
    except NoSpace:
        return _refuse("full")
    if call.host.contracts is not None:
        call.host.contracts.stored(call.request.piece, call.request.tenant, len(call.body))
    return Answer(messages.Stored())


def handle_retrieve(call: Call[messages.Retrieve]) -> Answer:
    """The whole piece as it is (its id proves it), or whole leaves with their proof."""
    if call.host.contracts is not None and not call.host.contracts.serves(call.request.piece):
        return _refuse("no contract")
    if call.request.offset == 0 and call.request.length == 0:
        data = call.host.pieces.read(call.request.piece)
        return _refuse("missing") if data is None else Answer(messages.Retrieved(len(data)), data)
    found = call.host.pieces.read_range(call.request.piece, call.request.offset, call.request.length or None)
    if found is None:
        return _refuse("missing")
    return Answer(messages.Retrieved(found.piece_bytes, found.first_leaf, found.proof), found.leaves)


def handle_prove(call: Call[messages.Prove]) -> Answer:
    """The leaves that the nonce chooses, each with its proof. Like `handle_retrieve` for whoever knows the id."""
    request = call.request

    def choose(piece_bytes: int) -> tuple[int, ...]:
        return chosen_leaves(request.nonce, request.piece, merkle.leaf_count(piece_bytes), request.leaves)

    found = call.host.pieces.read_leaves(request.piece, choose)
    if found is None:
        return _refuse("missing")
    proofs = tuple(merkle.prove_each(found.hashes, found.numbers))
    return Answer(messages.Proven(found.piece_bytes, proofs), b"".join(found.leaves))


def handle_answer(call: Call[messages.Answer]) -> Answer:
    """The digest that nobody can make who has not the bytes now."""
    piece, salt = call.request.piece, call.request.salt
    if call.request.kind == "whole":
        data = call.host.pieces.read(piece)
        return _refuse("missing") if data is None else _answered(answer_digest(salt, piece, data, "whole"))
    found = call.host.pieces.read_leaves(piece, partial(answer_leaves, salt, piece))
    if found is None:
        return _refuse("missing")
    return _answered(digest_of_selected(salt, found.piece_bytes, b"".join(found.leaves)))


def handle_has(call: Call[messages.Has]) -> Answer:
    """Anybody who knows an id may ask for the piece, so anybody may ask whether it is here."""
    return Answer(messages.Held(tuple(call.host.pieces.has(piece) for piece in call.request.pieces)))


def handle_delete(call: Call[messages.Delete]) -> Answer:
    """Only for whoever holds the tenant's private key now, on this connection."""
    host, request = call.host, call.request
    if not _has_signed(request.tenant, request.signature, call, messages.delete_statement, request.pieces):
        return _refuse("not the owner")
    with _deleting(host, request) as free:
        return Answer(messages.Deleted(sum(host.pieces.delete(piece, request.tenant) for piece in free)))


def _deleting(host: Host, request: messages.Delete) -> AbstractContextManager[Sequence[PieceId]]:
    if host.contracts is None:
        return nullcontext(request.pieces)
    return host.contracts.deleting(request.tenant, request.pieces)


def handle_renew(call: Call[messages.Renew]) -> Answer:
    """Likewise; an owner who has lost the key loses the room, in the end, which nobody else can give back."""
    host, request = call.host, call.request
    if not _has_signed(request.tenant, request.signature, call, messages.renew_statement, request.pieces):
        return _refuse("not the owner")
    if host.contracts is not None and not host.contracts.has_contract(request.tenant):
        return _refuse("no contract")
    return Answer(messages.Renewed(tuple(host.pieces.renew(piece, request.tenant) for piece in request.pieces)))


def handle_inventory(call: Call[messages.Inventory]) -> Answer:
    """Only for the tenant itself: to anybody else, what belongs together is not told."""
    request = call.request
    if not _has_signed(request.tenant, request.signature, call, messages.inventory_statement, request.after):
        return _refuse("not the owner")
    found, through = call.host.pieces.inventory(request.tenant, request.after)
    return Answer(messages.Listing(tuple(found), through))


def handle_put_root(call: Call[messages.PutRoot]) -> Answer:
    """Whoever has the volume's key may; hosts only see to it that versions never go back."""
    try:
        kept = call.host.roots.put(bytes(call.body))
    except BadMessage:
        return _refuse("bad root")
    except NoSpace:
        return _refuse("full")
    return Answer(messages.RootKept()) if kept else _refuse("stale")


def handle_get_root(call: Call[messages.GetRoot]) -> Answer:
    """For everybody: it is sealed."""
    record = call.host.roots.get(call.request.volume)
    return _refuse("missing") if record is None else Answer(messages.RootFound(), record)


def handle_delegation(call: Call[DelegationRequest]) -> Answer:
    """Only for whoever holds the volume's root key now, on this connection; the volume's id is the public key."""
    delegations, request = call.host.delegations, call.request
    if not _has_signed(request.volume, request.signature, call, delegation_statement, request, call.body):
        return _refuse("not the owner")
    if delegations is None:
        return _refuse("not allowed")
    try:
        return Answer(delegations.answer(request, call.body))
    except MissingPiece:
        return _refuse("missing")
    except NoSpace:
        return _refuse("full")
    except BadMessage:
        return _refuse("bad delegation")


def handle_quote(call: Call[Quote]) -> Answer:
    """For everybody, but only where there is a price."""
    contracts = call.host.contracts
    return _refuse("not allowed") if contracts is None else Answer(contracts.quote())


def handle_contract(call: Call[ContractRequest]) -> Answer:
    """Only for whoever holds the tenant's private key now, on this connection."""
    contracts, request = call.host.contracts, call.request
    if not _has_signed(request.tenant, request.signature, call, contract_statement, request, call.body):
        return _refuse("not the owner")
    if contracts is None:
        return _refuse("not allowed")
    try:
        answer, is_known = partial(contracts.answer, request, call.body), contracts.has_contract(request.tenant)
        said = call.host.questions.answered(request, call.visit.address, answer, has_contract=is_known)
        return Answer(said)
    except BadMessage:
        return _refuse("bad terms")


def handle_leave(call: Call[Leave]) -> Answer:
    """For ourselves; where nothing is paid there is nothing to wait for."""
    if call.visit.node_id != call.host.node_id or call.host.contracts is None:
        return _refuse("not allowed")
    return Answer(call.host.contracts.leave())


def handle_status(call: Call[messages.Status]) -> Answer:
    """For ourselves: whoever proves this very node's key."""
    if call.visit.node_id != call.host.node_id:
        return _refuse("not allowed")
    return Answer(call.host.report())


def _entry(kind: type[RequestT], handler: Callable[[Call[RequestT]], Answer]) -> tuple[type[Struct], Handler]:
    return kind, cast("Handler", handler)


HANDLERS: dict[type[Struct], Handler] = dict(
    (
        _entry(messages.Store, handle_store),
        _entry(messages.Retrieve, handle_retrieve),
        _entry(messages.Prove, handle_prove),
        _entry(messages.Answer, handle_answer),
        _entry(messages.Has, handle_has),
        _entry(messages.Delete, handle_delete),
        _entry(messages.Renew, handle_renew),
        _entry(messages.Inventory, handle_inventory),
        _entry(messages.Status, handle_status),
        _entry(messages.PutRoot, handle_put_root),
        _entry(messages.GetRoot, handle_get_root),
        *((kind, cast("Handler", handle_delegation)) for kind in (Delegate, Entrust, GetPatches, Revoke)),
        _entry(Quote, handle_quote),
        _entry(Leave, handle_leave),
        *((kind, cast("Handler", handle_contract)) for kind in (Propose, Opened, Cover, Disclose, Settle, Standing)),
    )
)


def _has_signed(
    key: bytes,
    signature: bytes,
    call: Call[RequestT],
    statement: Callable[Concatenate[bytes, NodeId, bytes, int, Said], bytes],
    *said: Said.args,
    **more: Said.kwargs,
) -> bool:
    """Whether the key's holder has signed this, for this host and connection, and not earlier on it."""
    host, visit = call.host, call.visit
    signed = statement(host.network_id, host.node_id, visit.challenge, visit.next_number(), *said, **more)
    return verify_signature(key, signed, signature)


def _answered(digest: bytes) -> Answer:
    return Answer(messages.Answered(digest))


def _refuse(reason: Reason) -> Answer:
    return Answer(messages.Refused(reason))
