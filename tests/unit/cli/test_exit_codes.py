"""Every error has a code, and every code is in the table a person reads."""

from __future__ import annotations

import re

import pytest

from layrfs import errors
from layrfs.cli import exit_codes
from layrfs.cli.exit_codes import exit_code_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LayrError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_ends_with_a_documented_code(kind: type[errors.LayrError]) -> None:
    code = exit_code_of(kind("x"))
    assert code != 0
    assert re.search(rf"^ +{code}  ", exit_codes.__doc__ or "", re.MULTILINE)


def test_some_that_scripts_rely_on() -> None:
    assert exit_code_of(errors.UsageError("")) == 2
    assert exit_code_of(errors.WrongPassphrase("")) == 7
    assert exit_code_of(errors.Unavailable("")) == exit_codes.NETWORK
    assert exit_code_of(errors.NotFound("")) == exit_codes.FILE


def test_errors_are_found_again_by_name() -> None:
    for kind in KINDS:
        assert type(errors.named(kind.__name__, "why")) is kind
    assert type(errors.named("os", "why")) is errors.LayrError


def test_what_nurseries_wrap_is_unwrapped() -> None:
    purpose = errors.NotFound("x")
    group = BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [KeyboardInterrupt(), purpose])])
    assert errors.innermost(group) is purpose
    assert isinstance(errors.innermost(ExceptionGroup("", [ValueError()])), ValueError)
