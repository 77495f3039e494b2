"""What every test module shares: the option that makes the end-to-end tests large, and patience."""

import signal

import pytest
from hypothesis import settings

settings.register_profile("big", deadline=None)
settings.register_profile("quick", deadline=None, derandomize=True)


def pytest_configure(config: pytest.Config) -> None:
    """Properties see the same examples in every quick run, so that a change is judged by what it changes; `--big` looks
    for new ones. Started in the background, we may have inherited deafness to Ctrl-C and to
    terminals that close; programs under test shall not."""
    settings.load_profile("big" if config.getoption("--big") else "quick")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--big`: the sizes of the promise (5,000 files, 2 GiB) instead of those of a coffee break."""
    parser.addoption("--big", action="store_true", help="end-to-end tests with 5,000 files and files of gigabytes")
    parser.addoption("--live-ledger", action="store_true", help="ask Stellar's public test network, too")


@pytest.fixture(scope="session")
def live_ledger(request: pytest.FixtureRequest) -> bool:
    """Whether there is internet, and strangers' servers may be asked."""
    return bool(request.config.getoption("--live-ledger"))


@pytest.fixture(scope="session")
def big(request: pytest.FixtureRequest) -> bool:
    """Whether the large sizes were asked for."""
    return bool(request.config.getoption("--big"))
