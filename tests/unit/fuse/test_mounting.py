"""What the kernel is told when we mount."""

from __future__ import annotations

import os

import pytest

from layrfs.config import MountOptions
from layrfs.fuse.mounting import kernel_options, raise_read_ahead


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ("", set()),
        ("allow_other", {"allow_other"}),
        ("ro,nosuid,noatime", {"ro", "nosuid", "noatime"}),
        ("cache_size=1G,workers=3", set()),
    ],
)
def test_kernel_options(options: str, more: set[str]) -> None:
    always = {"default_permissions", "fsname=layrfs:photos", "subtype=layrfs"}
    assert kernel_options(MountOptions.parse(options), "layrfs:photos") == always | more


def test_a_comma_in_the_name_is_not_an_option() -> None:
    assert "fsname=layrfs:a\\,dev\\\\b" in kernel_options(MountOptions(), "layrfs:a,dev\\b")


def test_read_ahead_of_what_is_not_mounted_is_left_alone(tmp_path: os.PathLike[str]) -> None:
    raise_read_ahead(os.fspath(tmp_path))
