"""A ledger reached through Horizon's interface, by one or several servers, from threads of its own.

Owns the asking: which server, how long, what each failure means. Must not know what the answers are for. The
invariant: an answer is believed when it is complete, of the network that was chosen, and from one address at one time;
everything else is one sentence and LedgerUnavailable. That Horizon is away for days is normal here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import trio

from layrfs.errors import BadMessage, LedgerUnavailable, Rejected, Unfunded, WrongLedger
from layrfs.model.ledger import Fate, HistoryPage, LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.payments import horizon_answers as answers
from layrfs.payments.devledger.state import DEVELOPMENT_PREFIX
from layrfs.payments.reading import address_of, submission_untrusted
from layrfs.payments.verdicts import sentence
from layrfs.payments.web import Response, Web, is_local
from layrfs.policy.endpoints import FRESH, in_order, rest_seconds

T = TypeVar("T")

PAGE_TRANSACTIONS = 50
GET_SECONDS, SUBMIT_SECONDS = 15, 45
"""Horizon answers a submission when the transaction is in, or after half a minute."""

QUESTION_SECONDS = 60.0
LAG_SECONDS = 120
"""Behind an address elsewhere may be many servers, some behind others; one that lags more calls itself out of order."""

CLOCKS_APART_SECONDS = 3600
"""A ledger whose time is further from this machine's is not believed. All that is irrevocable hangs on that time: what
is paid, whose pieces are let go, which salts are disclosed."""

_THREADS_PER_SERVER = 4
"""Of each server's own: one that never comes to an end holds up no other."""

_MOST_DIGITS = 9
_OK, _BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _BROKEN = 200, 400, 403, 404, 429, 500


class Silent(LedgerUnavailable):
    """One server failed; `rest_seconds`: it wants to be left alone for so long."""

    def __init__(self, message: str, rest_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.rest_seconds = rest_seconds


class Horizon:
    """The ledger that `passphrase` names, at these addresses (``https://…``), asked in this order."""

    def __init__(self, urls: Sequence[str], passphrase: str, look: Callable[[], Sequence[str]] = tuple) -> None:
        """``look``: where that ledger is said to be now, asked when no server answers; empty: nobody knows."""
        self._passphrase = passphrase
        self._look = look
        self._last_failure = ""
        self._be_at(tuple(urls))

    def _be_at(self, urls: tuple[str, ...]) -> None:
        self._urls = urls
        self._servers = [Server(url, self._passphrase) for url in urls]
        self._records = [FRESH for _url in urls]
        self._threads = [trio.CapacityLimiter(_THREADS_PER_SERVER) for _url in urls]

    def _follow(self) -> None:
        """Be where the ledger has moved: the next question goes there."""
        urls = tuple(self._look())
        if urls and urls != self._urls:
            self._be_at(urls)

    @property
    def passphrase(self) -> str:
        """What signatures are for."""
        return self._passphrase

    async def head(self) -> LedgerHead:
        """See `layrfs.payments.ledger.Ledger`, as for all that follow."""
        return await self._ask(Server.head)

    async def account(self, key: bytes) -> LedgerAccount | None:
        return await self._ask(lambda server: server.account(key))

    async def transaction(self, hash_: bytes) -> LedgerTransaction | None:
        return await self._ask(lambda server: server.transaction(hash_))

    async def fate(self, hash_: bytes, source: bytes) -> Fate:
        return await self._ask(lambda server: server.fate(hash_, source))

    async def submit(self, xdr: str) -> LedgerTransaction:
        hash_ = submission_untrusted(xdr, self._passphrase).hash
        return await self._ask(lambda server: server.submit(xdr, hash_))

    async def history(self, key: bytes, cursor: str = "", *, newest_first: bool = False) -> HistoryPage:
        return await self._ask(lambda server: server.history(key, cursor, newest_first=newest_first))

    async def fund(self, key: bytes) -> None:
        """Have a test network's friendbot pay into an account. Raises Rejected, LedgerUnavailable."""
        await self._ask(lambda server: server.fund(key))

    async def _ask(self, question: Callable[[Server], T]) -> T:
        failures: list[LedgerUnavailable | WrongLedger] = []
        servers, records, threads = self._servers, self._records, self._threads  # they may have moved by the answer
        for index in in_order(records, trio.current_time()):
            try:
                answer = await _ask_server(servers[index], threads[index], question)
            except (LedgerUnavailable, WrongLedger) as error:
                rest = getattr(error, "rest_seconds", 0.0)
                records[index] = records[index].after_failure(trio.current_time(), rest)
                self._last_failure = str(error)
                failures.append(error)
            else:
                records[index] = FRESH
                return answer
        if failures:
            self._follow()
            raise failures[0]
        rest = rest_seconds(self._records, trio.current_time())
        raise LedgerUnavailable(f"{self._last_failure}; it is asked again in {rest:.0f} s")


async def _ask_server(server: Server, threads: trio.CapacityLimiter, question: Callable[[Server], T]) -> T:
    def answer() -> T:
        server.check_network()
        return question(server)

    with trio.move_on_after(QUESTION_SECONDS):
        return await trio.to_thread.run_sync(answer, abandon_on_cancel=True, limiter=threads)
    raise Silent(f"the ledger at {server.name} has not answered within {QUESTION_SECONDS:.0f} s")


class Server:
    """One Horizon, in plain blocking code. All methods raise Silent, WrongLedger."""

    def __init__(self, url: str, passphrase: str) -> None:
        self._url = url.rstrip("/")
        self._passphrase = passphrase
        self._web = Web(self._url)
        self._is_right = False
        self.name = urlsplit(url).netloc

    def check_network(self) -> None:
        """Once: that it is the network that was chosen."""
        if self._is_right:
            return
        said = self.network()
        if said != self._passphrase:
            raise WrongLedger(
                f"the ledger at {self.name} is {said!r} and not {self._passphrase!r}: no money was moved"
                " (layrfs wallet ledger chooses one)"
            )
        self._is_right = True

    def network(self) -> str:
        """The passphrase of the network it is on, as it says."""
        root = self._get("/", answers.Root)
        return self._believed(lambda: _there(root)).network_passphrase

    def head(self) -> LedgerHead:
        found = self._get("/ledgers", answers.Ledgers, {"order": "desc", "limit": "1"})
        head = self._believed(lambda: answers.head_untrusted(_there(found)))
        if not self._passphrase.startswith(DEVELOPMENT_PREFIX):  # there, people set the time
            self._check_time(head.closed_at)
        return head

    def _check_time(self, closed_at: int) -> None:
        apart = closed_at - time.time()
        if abs(apart) > CLOCKS_APART_SECONDS:
            hours, way = round(abs(apart) / 3600), "ahead of" if apart > 0 else "behind"
            raise Silent(f"the ledger at {self.name} is {hours} h {way} this machine's clock: one of them is wrong")

    def account(self, key: bytes) -> LedgerAccount | None:
        found = self._get(f"/accounts/{address_of(key)}", answers.Account)
        return None if found is None else self._believed(lambda: answers.account_untrusted(found, key))

    def transaction(self, hash_: bytes) -> LedgerTransaction | None:
        found = self._get(f"/transactions/{hash_.hex()}", answers.Transaction)
        return None if found is None else self._transaction(found, hash_)

    def fate(self, hash_: bytes, source: bytes) -> Fate:
        lag_seconds = 0 if is_local(self._url) else LAG_SECONDS
        return Fate(self.head(), self.account(source), self.transaction(hash_), lag_seconds)

    def history(self, key: bytes, cursor: str, *, newest_first: bool) -> HistoryPage:
        asked = {
            "order": "desc" if newest_first else "asc",
            "limit": str(PAGE_TRANSACTIONS),
            "include_failed": "true",
        }
        path = f"/accounts/{address_of(key)}/transactions"
        found = self._get(path, answers.Transactions, asked | ({"cursor": cursor} if cursor else {}))
        if found is None:
            return HistoryPage((), cursor)
        return self._believed(lambda: answers.page_untrusted(found, self._passphrase, cursor))

    def submit(self, xdr: str, hash_: bytes) -> LedgerTransaction:
        """Raises Rejected, unless it is in already and the server did not know in time."""
        response = self._call(lambda: self._web.post("/transactions", {"tx": xdr}, SUBMIT_SECONDS))
        if response.status == _OK:
            done = self._transaction(self._believed(lambda: _parsed(response, answers.Transaction)), hash_)
        else:
            codes = self._codes(response)
            there = self.transaction(hash_)
            if there is None:
                raise Rejected(f"the ledger does not take the transaction: {sentence(codes)}", codes)
            done = there
        if not done.successful:
            raise Rejected(f"the transaction has failed: {sentence(done.codes)}", done.codes)
        return done

    def fund(self, key: bytes) -> None:
        response = self._call(lambda: self._web.get("/friendbot", {"addr": address_of(key)}, GET_SECONDS))
        if response.status == _OK:
            return
        problem = self._problem(response)
        if response.status == _NOT_FOUND:
            raise Unfunded(f"the ledger at {self.name} gives no lumens away: only test networks do")
        raise Rejected(f"the ledger at {self.name} gave nothing: {problem.detail or problem.title}", problem.codes())

    def _transaction(self, found: answers.Transaction, hash_: bytes) -> LedgerTransaction:
        return self._believed(lambda: answers.transaction_untrusted(found, self._passphrase, hash_))

    def _get(self, path: str, kind: type[T], asked: Mapping[str, str] | None = None) -> T | None:
        """None when Horizon itself says that there is none."""
        response = self._call(lambda: self._web.get(path, asked or {}, GET_SECONDS))
        if response.status == _OK:
            return self._believed(lambda: _parsed(response, kind))
        if response.status == _NOT_FOUND and self._problem(response).is_not_found():
            return None
        raise Silent(f"the ledger at {self.name} answered with the error {response.status}")

    def _codes(self, response: Response) -> tuple[str, ...]:
        codes = self._problem(response).codes() if response.status == _BAD_REQUEST else ()
        if not codes:
            raise Silent(f"the ledger at {self.name} answered a transaction with the error {response.status}")
        return codes

    def _problem(self, response: Response) -> answers.Problem:
        return self._believed(lambda: _parsed(response, answers.Problem))

    def _call(self, call: Callable[[], Response]) -> Response:
        try:
            response = call()
        except (OSError, ValueError) as error:
            raise Silent(f"the ledger at {self.name} cannot be reached ({_cause(error)})") from None
        if response.status == _TOO_MANY:
            raise Silent(f"the ledger at {self.name} has been asked too often", _rest_seconds(response.headers))
        if response.status >= _BROKEN:
            raise Silent(
                f"the ledger at {self.name} is out of order (error {response.status})",
                _rest_seconds(response.headers),
            )
        return response

    def _believed(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except BadMessage as error:
            raise Silent(f"the ledger at {self.name} answered something that makes no sense ({error})") from None


def _parsed(response: Response, kind: type[T]) -> T:
    return answers.parsed_untrusted(response.text, kind)


def _there(found: T | None) -> T:
    if found is None:
        raise BadMessage("there is nothing at that address")
    return found


def _rest_seconds(headers: Mapping[str, str]) -> float:
    lower = {name.lower(): value for name, value in headers.items()}
    said = lower.get("retry-after") or lower.get("x-ratelimit-reset") or ""
    return float(said) if said.isascii() and said.isdigit() and len(said) <= _MOST_DIGITS else 0.0


def _cause(error: BaseException) -> str:
    """A few words: what the libraries say of a broken connection is a page, with the address in it."""
    text = str(error).lower()
    for word, meaning in (
        ("refused", "connection refused"),
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("resolve", "its name is not known"),
        ("certificate", "its certificate is not valid"),
        ("exceeds the limit", "its answer is too large"),
    ):
        if word in text:
            return meaning
    return "the connection broke"
