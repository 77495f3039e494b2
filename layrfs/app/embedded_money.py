"""Money in the embedded network: what a mount says of it, the ledger beside the hosts, and gifts.

Owns the ledger's process and whose accounts begin with something. Must not know what is paid for. The ledger's library
is loaded where there is a ledger. Invariants: there is none until somebody mounts with `-o host_price`, and from then
on it stays, because contracts are on it; a ledger that fails takes no host with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial

import msgspec
import trio

from layrfs.app.earning_plan import EarningPlan
from layrfs.app.supervisor import Supervisor
from layrfs.config import MountOptions
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.wallet_keys import account_of
from layrfs.errors import LayrError
from layrfs.host.directory import HostDirectory, HostSettings
from layrfs.ledger_config import LedgerConfig, addresses_now
from layrfs.model.lumens import parse_lumens

_log = logging.getLogger(__name__)

LEDGER_NAME = "ledger"
AGAIN_SECONDS = 2.0


class Told(msgspec.Struct, frozen=True):
    """What a mount says: the price that hosts are to ask (XLM, as it was written), and its owner's account."""

    host_price: str | None = None
    owner: bytes | None = None

    def words(self) -> tuple[str, ...]:
        """For the command line of the embedded network."""
        price = () if self.host_price is None else ("--host-price", self.host_price)
        return price if self.owner is None else (*price, "--owner", self.owner.hex())


def told(options: MountOptions, keys: VolumeKeys) -> Told:
    """What a mount has to say."""
    if options.host_price is None:
        return Told()
    return Told(options.host_price, account_of(keys.wallet_private))


async def keep_ledger(
    directory: str, told: Told, *, task_status: trio.TaskStatus[LedgerConfig | None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep the embedded network's ledger running; reports which one, at its first start once it answers, or that there
    is none."""
    path = os.path.join(directory, LEDGER_NAME)
    if told.host_price is None and not os.path.isdir(path):
        task_status.started(None)
        return
    find = partial(LedgerConfig.load, ledger_file(directory))
    try:
        await Supervisor("embedded ledger", ("layrfs.app.ledger", path), path, find).run(task_status=task_status)
    except LayrError as error:
        _log.error("nobody can be paid: %s", error)
        task_status.started(None)


def ledger_file(directory: str) -> str:
    """That says where the ledger of the embedded network in ``directory`` is."""
    return os.path.join(directory, LEDGER_NAME, "ledger.json")


def paid_by(
    ledger: LedgerConfig | None, told: Told, before: HostSettings | None, ledger_files: tuple[str, ...]
) -> EarningPlan | None:
    """How a host is paid from now on: as told, or as before; a host that was paid once stays so."""
    known = None if before is None or not before.price else before
    if ledger is None:
        return (
            None
            if known is None
            else EarningPlan(known.price, known.horizon, known.passphrase, ledger_files=ledger_files)
        )
    price = parse_lumens(told.host_price) if told.host_price is not None else (known.price if known else 0)
    return EarningPlan(price, ledger.horizon, ledger.passphrase, ledger_files=ledger_files) if price else None


def accounts_of(homes: Sequence[HostDirectory]) -> list[bytes]:
    """Of the hosts that are paid."""
    return [home.wallet().public_key for home in homes if home.has_wallet()]


async def give(config: LedgerConfig, ledger_files: tuple[str, ...], accounts: Sequence[bytes]) -> None:
    """Have those of these accounts begin with a gift that have not begun. Returns when all have."""
    from layrfs.payments.horizon import Horizon

    look = partial(addresses_now, ledger_files, config.passphrase)
    ledger, wanting = Horizon(config.horizon, config.passphrase, look), list(accounts)
    while wanting:
        try:
            if await ledger.account(wanting[-1]) is None:
                await ledger.fund(wanting[-1])
            wanting.pop()
        except LayrError as error:
            _log.warning("a gift waits: %s", error)
            await trio.sleep(AGAIN_SECONDS)
