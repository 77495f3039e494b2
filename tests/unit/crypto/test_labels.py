"""The page of labels: each for one purpose only."""

from __future__ import annotations

from layrfs.crypto import labels


def _all_labels() -> list[bytes]:
    values = [value for name, value in vars(labels).items() if name.isupper()]
    return [value.encode() if isinstance(value, str) else value for value in values]


def test_no_label_is_another_or_begins_another() -> None:
    found = _all_labels()
    assert len(found) > 10
    for one in found:
        assert [other for other in found if other.startswith(one)] == [one]


def test_every_label_names_project_and_version_and_has_no_zero_byte() -> None:
    assert all(label.startswith(b"LayrFS v1 ") and b"\0" not in label for label in _all_labels())


def test_signed_bytes_keeps_purposes_apart() -> None:
    assert labels.signed_bytes(labels.SIGN_DATAGRAM, b"x") != labels.signed_bytes(labels.SIGN_DELETE, b"x")
    assert labels.signed_bytes(b"label", b"message") == b"label\0message"
