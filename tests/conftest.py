"""What every test module shares: the option that makes the end-to-end tests large."""

import signal

import pytest


def pytest_configure() -> None:
    """Started in the background, we may have inherited deafness to Ctrl-C; programs under test shall not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--big`: the sizes of the promise (5,000 files, 2 GiB) instead of those of a coffee break."""
    parser.addoption("--big", action="store_true", help="end-to-end tests with 5,000 files and files of gigabytes")


@pytest.fixture(scope="session")
def big(request: pytest.FixtureRequest) -> bool:
    """Whether the large sizes were asked for."""
    return bool(request.config.getoption("--big"))
