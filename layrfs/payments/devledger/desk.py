"""Which request of Horizon's interface gets which answer.

Owns the paths, their arguments and the problems they may meet. Must not know sockets. Invariant: a verdict on a
transaction has status 200 or 400; the statuses that clients repeat a request for are never one.
"""

from __future__ import annotations

import base64
import re
from http import HTTPStatus
from itertools import islice

import msgspec
from stellar_sdk import StrKey
from stellar_sdk.exceptions import SdkError

from layrfs.errors import BadMessage
from layrfs.payments.devledger import horizon
from layrfs.payments.devledger.books import EVERYBODY, Closing, Entry, Page
from layrfs.payments.devledger.ledger import Rejected
from layrfs.payments.devledger.service import LedgerService
from layrfs.payments.devledger.state import network_id
from layrfs.payments.devledger.transactions import Submission, submission_untrusted
from layrfs.payments.devledger.web import Request, Response

_MOST_RECORDS = 200
_LATEST_SECONDS = (1 << 32) - 1
"""In 2106: no contract can begin later, and a ledger's time never goes back."""

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_LISTS = frozenset({"transactions", "operations", "payments"})


class _Problem(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: HTTPStatus, kind: str, title: str, detail: str, extras: horizon.Json | None = None
    ) -> None:
        super().__init__(detail)
        self.response = _answer(horizon.problem_json(status, kind, title, detail, extras), status, "problem+json")


class Desk:
    """Answers requests about one running ledger."""

    def __init__(self, service: LedgerService) -> None:
        self._service = service
        self._network_id = network_id(service.passphrase)

    async def answer(self, request: Request) -> Response:
        """Whatever is asked, there is an answer."""
        try:
            if request.method == "POST":
                return await self._post(request)
            return self._get(request)
        except _Problem as problem:
            return problem.response

    async def _post(self, request: Request) -> Response:
        match request.path:
            case ("transactions",):
                return await self._submit(request)
            case ("friendbot",):
                return self._friendbot(request)
            case ("layrfs", "close"):
                return self._close(request)
        raise _missing()

    def _get(self, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            raise _Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed", "GET or POST")
        header = self._service.header
        match request.path:
            case ():
                return _answer(horizon.root_json(self._service.passphrase, header, request.base))
            case (what,) if what in _LISTS:
                return self._list(request, what, EVERYBODY)
            case ("ledgers",):
                return self._ledgers(request)
            case ("ledgers", sequence):
                return self._ledger(request, sequence)
            case ("fee_stats",):
                return _answer(horizon.fee_stats_json(header))
            case ("friendbot",):
                return self._friendbot(request)
        return self._get_one(request)

    def _get_one(self, request: Request) -> Response:
        """An account, a transaction or an operation, or what is listed of it."""
        match request.path:
            case ("accounts", name):
                return self._account(request, name)
            case ("accounts", name, what) if what in _LISTS:
                return self._list(request, what, _key(name, "account_id"))
            case ("transactions", name):
                entry, submission = self._entry(name)
                asked = bytes.fromhex(name)
                return _answer(horizon.transaction_json(entry, submission, request.base, asked))
            case ("transactions", name, what) if what in _LISTS - {"transactions"}:
                entry, submission = self._entry(name)
                return self._of_transaction(request, what, entry, submission)
            case ("operations", token):
                return self._operation(request, token)
        raise _missing()

    def _account(self, request: Request, name: str) -> Response:
        account = self._service.account(_key(name, "account_id"))
        if account is None:
            raise _missing()
        return _answer(horizon.account_json(account, self._service.header, request.base))

    def _entry(self, name: str) -> tuple[Entry, Submission]:
        if not _HASH.fullmatch(name):
            raise _bad_field("tx_id", "not a hash of 64 hexadecimal digits")
        entry = self._service.books.entry(bytes.fromhex(name))
        if entry is None:
            raise _missing()
        return entry, submission_untrusted(entry.envelope, self._network_id)

    def _operation(self, request: Request, text: str) -> Response:
        token = _number(text, "id")
        entry = self._service.books.entry_at(token)
        number = 0 if entry is None else token - entry.token
        if entry is None or not 0 < number < len(entry.participants):
            raise _missing()
        submission = submission_untrusted(entry.envelope, self._network_id)
        return _answer(horizon.operation_json(entry, submission, token, request.base))

    def _list(self, request: Request, what: str, account: bytes) -> Response:
        page = _page(request)
        tokens = self._service.books.tokens(account, page, of_operations=what != "transactions")
        found = (self._record(request, what, token) for token in tokens)
        records = islice((each for each in found if each is not None), page.limit)
        return _paged(request, page, list(records))

    def _record(self, request: Request, what: str, token: int) -> horizon.Json | None:
        """None for what is not asked for: failures, and what moves no lumens."""
        entry = self._service.books.entry_at(token)
        if entry is None:
            raise AssertionError("tokens are written with their entries")
        if not entry.outcome.is_success and request.query.get("include_failed") != "true":
            return None
        submission = submission_untrusted(entry.envelope, self._network_id)
        if what == "transactions":
            return horizon.transaction_json(entry, submission, request.base)
        if what == "payments" and not horizon.moves_lumens(submission.inner.operations[token - entry.token - 1]):
            return None
        return horizon.operation_json(entry, submission, token, request.base)

    def _of_transaction(self, request: Request, what: str, entry: Entry, submission: Submission) -> Response:
        page, records = _page(request), []
        for number, operation in enumerate(submission.inner.operations, 1):
            if what == "operations" or horizon.moves_lumens(operation):
                records.append(horizon.operation_json(entry, submission, entry.token + number, request.base))
        start = page.start()
        if page.newest_first:
            records = [each for each in reversed(records) if int(each["paging_token"]) < start]
        else:
            records = [each for each in records if int(each["paging_token"]) > start]
        return _paged(request, page, records[: page.limit])

    def _ledgers(self, request: Request) -> Response:
        page, books = _page(request), self._service.books
        cursor = None if page.cursor is None else page.cursor >> 32
        found = books.closings(msgspec.structs.replace(page, cursor=cursor))
        last = self._service.header.sequence
        is_last_due = last < Page(cursor, newest_first=True).start() if page.newest_first else last > (cursor or 0)
        if is_last_due and all(each.header.sequence != last for each in found):
            found = [self._last(), *found] if page.newest_first else [*found, self._last()]
        return _paged(request, page, [horizon.ledger_json(each, request.base) for each in found[: page.limit]])

    def _last(self) -> Closing:
        """The last ledger, which leaves nothing in the books when nothing happened."""
        header = self._service.header
        return self._service.books.closing(header.sequence) or Closing(header, 0, 0, 0)

    def _ledger(self, request: Request, text: str) -> Response:
        sequence = _number(text, "ledger_id")
        is_last = sequence == self._service.header.sequence
        found = self._last() if is_last else self._service.books.closing(sequence)
        if found is None:
            raise _missing()
        return _answer(horizon.ledger_json(found, request.base))

    async def _submit(self, request: Request) -> Response:
        if request.form is None:
            raise _Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported Media Type", "send a form"
            )
        envelope = request.form.get("tx", "")
        try:
            submission = submission_untrusted(envelope, self._network_id)
        except BadMessage as error:
            raise _malformed(envelope, str(error)) from None
        outcome = await self._service.submit(envelope)
        if outcome is None:
            raise _Problem(
                HTTPStatus.GATEWAY_TIMEOUT, "timeout", "Timeout", "no ledger closed in time; submit it again"
            )
        if isinstance(outcome, Entry):  # which may be a fee bump that carries what came in
            submission = submission_untrusted(outcome.envelope, self._network_id)
        return _verdict(request, envelope, submission, outcome)

    def _friendbot(self, request: Request) -> Response:
        name = request.query.get("addr") or (request.form or {}).get("addr", "")
        envelope, outcome = self._service.give(_key(name, "addr"))
        submission = submission_untrusted(envelope, self._network_id)
        return _verdict(request, envelope, submission, outcome)

    def _close(self, request: Request) -> Response:
        if request.is_from_page:
            raise _Problem(HTTPStatus.FORBIDDEN, "forbidden", "Forbidden", "no page of the web may set the time")
        fields = {**request.query, **(request.form or {})}
        numbers = {name: _positive(text, name) for name, text in fields.items()}
        if numbers.get("at", 0) > _LATEST_SECONDS:
            raise _bad_field("at", f"above {_LATEST_SECONDS}")
        header = self._service.close(
            numbers.get("at"),
            base_fee_stroops=numbers.get("base_fee"),
            base_reserve_stroops=numbers.get("base_reserve"),
        )
        return _answer({"sequence": header.sequence, "closed_at": header.closed_at})


def _verdict(request: Request, envelope: str, submission: Submission, outcome: Entry | Rejected) -> Response:
    if isinstance(outcome, Entry) and outcome.outcome.is_success:
        return _answer(horizon.transaction_json(outcome, submission, request.base))
    fee = outcome.fee_stroops if isinstance(outcome, Entry) else 0
    problem = horizon.failed_json(envelope, submission, outcome.outcome, fee)
    return _answer(problem, HTTPStatus.BAD_REQUEST, "problem+json")


def _answer(content: horizon.Json, status: HTTPStatus = HTTPStatus.OK, kind: str = "hal+json") -> Response:
    return Response(status, msgspec.json.encode(content), f"application/{kind}; charset=utf-8")


def _page(request: Request) -> Page:
    order, cursor = request.query.get("order", "asc"), request.query.get("cursor", "")
    limit = _number(request.query.get("limit") or "10", "limit")
    if order not in {"asc", "desc"}:
        raise _bad_field("order", "asc or desc")
    if not 0 < limit <= _MOST_RECORDS:
        raise _bad_field("limit", f"1 to {_MOST_RECORDS}")
    return Page(_cursor(cursor, order), limit, order == "desc")


def _cursor(text: str, order: str) -> int | None:
    """ "now" is Horizon's word for the end of all there is."""
    if text == "now":
        return None if order == "desc" else (1 << 63) - 1
    return _number(text, "cursor") if text else None


def _paged(request: Request, page: Page, records: list[horizon.Json]) -> Response:
    here = request.base + "/".join(request.path)
    order, back = ("desc", "asc") if page.newest_first else ("asc", "desc")
    last = records[-1]["paging_token"] if records else request.query.get("cursor", "")
    first = records[0]["paging_token"] if records else request.query.get("cursor", "")
    onward = f"{here}?cursor={last}&limit={page.limit}&order={order}"
    backward = f"{here}?cursor={first}&limit={page.limit}&order={back}"
    return _answer(horizon.page_json(records, here, onward, backward))


def _key(name: str, field: str) -> bytes:
    try:
        return StrKey.decode_ed25519_public_key(name)
    except (SdkError, ValueError, TypeError):
        raise _bad_field(field, "not the address of an account") from None


def _number(text: str, field: str) -> int:
    if not _NUMBER.fullmatch(text) or abs(int(text)) >= 1 << 63:
        raise _bad_field(field, "not a number")
    return int(text)


def _positive(text: str, field: str) -> int:
    number = _number(text, field)
    if number <= 0:
        raise _bad_field(field, "not above 0")
    return number


def _missing() -> _Problem:
    return _Problem(HTTPStatus.NOT_FOUND, "not_found", "Resource Missing", "There is nothing here; check the address.")


def _bad_field(field: str, reason: str) -> _Problem:
    extras = {"invalid_field": field, "reason": reason}
    return _Problem(HTTPStatus.BAD_REQUEST, "bad_request", "Bad Request", f"{field}: {reason}", extras)


def _malformed(envelope: str, reason: str) -> _Problem:
    shown = base64.b64encode(envelope.encode()[:_MOST_RECORDS]).decode() if not envelope.isascii() else envelope
    return _Problem(
        HTTPStatus.BAD_REQUEST,
        "transaction_malformed",
        "Transaction Malformed",
        f"There is no transaction in this: {reason}",
        {"envelope_xdr": shown},
    )
