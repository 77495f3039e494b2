"""The books of a development ledger: what is closed is there afterwards, and is found by hash, account and place."""

from __future__ import annotations

from pathlib import Path

import pytest

from layrfs.errors import CorruptFile
from layrfs.payments.devledger.books import EVERYBODY, Books, Page
from layrfs.payments.devledger.ledger import IDLE_LEDGERS, DevelopmentLedger, resumed
from tests.ledgers import START, Bank, bump, person, sign, signed


def test_a_ledger_goes_on_where_its_books_end(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.sqlite")
    bank = Bank(Books(path))
    ann, bob = bank.person(1), bank.person(2)
    assert bank.run(signed(bank.build(ann).append_account_merge_op(bob.public_key), ann).to_xdr()).is_success
    bank.close()
    bank.ledger.books.close()
    again = Books(path)
    found = again.state()
    assert found == bank.ledger.state
    assert found is not None
    assert DevelopmentLedger(found, again).state == bank.ledger.state
    again.close()


def test_new_books_have_no_ledger() -> None:
    assert Books().state() is None


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptFile):
        Books(str(tmp_path / "ledger.sqlite"))


def test_history_is_found_by_account_in_both_orders_and_from_a_cursor() -> None:
    bank = Bank()
    ann, bob, eve = bank.person(1), bank.person(2), bank.person(3)
    for _ in range(3):
        build = bank.build(ann).append_bump_sequence_op(0).append_set_options_op(source=bob.public_key)
        bank.run(bump(signed(build, ann, bob), eve).to_xdr())
    books = bank.ledger.books
    whole = list(books.tokens(EVERYBODY, Page(), of_operations=False))
    assert len(whole) == 6
    assert whole == sorted(whole)
    for key in (ann, bob, eve):
        assert len(list(books.tokens(key.raw_public_key(), Page(), of_operations=False))) == 4
    of_bob = list(books.tokens(bob.raw_public_key(), Page(), of_operations=True))
    assert [token & 4095 for token in of_bob] == [1, 2, 2, 2], "made once, then three options of his"
    down = Page(cursor=of_bob[2], newest_first=True)
    assert list(books.tokens(bob.raw_public_key(), down, of_operations=True)) == [of_bob[1], of_bob[0]]
    entry = books.entry_at(of_bob[3])
    assert entry is not None
    assert entry.inner_hash is not None
    assert books.entry(entry.hash) == books.entry(entry.inner_hash) == entry


def test_ledgers_without_transactions_leave_nothing_but_the_last_ones_number() -> None:
    bank = Bank()
    bank.person(1)
    for _ in range(5):
        bank.close()
    assert [each.header.sequence for each in bank.ledger.books.closings(Page())] == [2]
    kept = bank.ledger.books.state()
    assert kept is not None
    assert kept.header.sequence == 7
    assert kept.header.closed_at == START + 30


def test_idle_ledgers_are_written_down_now_and_then_and_no_number_comes_twice() -> None:
    bank = Bank()
    bank.person(1)
    for _ in range(40):
        bank.ledger.close(bank.now, is_idle=True)
        kept = bank.ledger.books.state()
        assert kept is not None
        here = bank.ledger.state.header.sequence
        assert here - kept.header.sequence < IDLE_LEDGERS
        assert resumed(kept).header.sequence >= here
    ann, last = person(1), bank.ledger.state.header.sequence
    bank.ledger.submit(sign(bank.build(ann).append_bump_sequence_op(0), ann))
    assert bank.ledger.close(bank.now, is_idle=True)
    assert bank.ledger.books.closing(last + 1) is not None
