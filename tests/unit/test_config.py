"""Paths, mount options and the network's file: what a person can get wrong, and what survives."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.config import (
    MountOptions,
    NetworkConfig,
    Paths,
    option_value,
    parse_address,
    parse_size,
    valid_volume_name,
)
from layrfs.durable import write_atomically
from layrfs.errors import CorruptFile, LayrError, LocalError, NewerFormat, UsageError


def test_everything_is_under_layrfs_home() -> None:
    paths = Paths.from_environment({"LAYRFS_HOME": "/h", "HOME": "/home/al", "XDG_DATA_HOME": "/x"})
    assert paths.volume_key("v") == "/h/volumes/v/volume.key"
    assert paths.network_file == "/h/network.json"
    assert paths.embedded_dir == "/h/embedded"


def test_a_relative_home_becomes_absolute() -> None:
    assert os.path.isabs(Paths.from_environment({"LAYRFS_HOME": "h"}).data)


def test_xdg_directories() -> None:
    plain = Paths.from_environment({"HOME": "/home/al"})
    assert plain.control_socket("v") == "/home/al/.local/share/layrfs/volumes/v/control.sock"
    assert plain.network_file == "/home/al/.config/layrfs/network.json"
    chosen = Paths.from_environment({"HOME": "/home/al", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "relative"})
    assert chosen == Paths(data="/d/layrfs", config="/home/al/.config/layrfs")


def test_without_home_the_user_database_is_asked() -> None:
    assert os.path.isabs(Paths.from_environment({}).data)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 65, "ü"])
def test_names_that_are_no_volumes(name: str) -> None:
    with pytest.raises(UsageError):
        valid_volume_name(name)


def test_prepare_makes_private_directories_and_is_repeatable(tmp_path: Path) -> None:
    paths = Paths.under(str(tmp_path / "home"))
    for _ in range(2):
        paths.prepare("v")
    for directory in (paths.data, paths.volume_dir("v"), paths.cache_dir("v")):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert paths.volumes() == []
    write_atomically(paths.volume_key("v"), b"key")
    assert paths.volumes() == ["v"]


def test_state_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "layout").write_text("2\n")
    with pytest.raises(NewerFormat, match="newer LayrFS"):
        Paths.under(str(tmp_path)).prepare("v")
    assert os.listdir(tmp_path) == ["layout"]


def test_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "layout").write_text("<html>")
    with pytest.raises(CorruptFile):
        Paths.under(str(tmp_path)).check()


def test_a_state_directory_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="cannot be used"):
        Paths.under(str(tmp_path / "file" / "home")).prepare()


def test_network_file_round_trip(tmp_path: Path) -> None:
    path = str(tmp_path / "network.json")
    assert NetworkConfig.load(path) is None
    network = NetworkConfig("ab" * 32, ("192.0.2.1:4747", "[2001:db8::1]:4747"), embedded=False)
    network.save(path)
    assert NetworkConfig.load(path) == network
    assert network.addresses() == [("192.0.2.1", 4747), ("2001:db8::1", 4747)]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["network.json"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", CorruptFile),
        ("[]", CorruptFile),
        ('{"network_id": "xyz"}', CorruptFile),
        ('{"seeds": "one"}', CorruptFile),
        ('{"seeds": [1]}', CorruptFile),
        ('{"embedded": 1}', CorruptFile),
        ('{"version": 2}', NewerFormat),
    ],
)
def test_network_files_that_cannot_be_read(tmp_path: Path, text: str, error: type[LayrError]) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(error):
        NetworkConfig.load(str(path))
    assert path.read_text() == text


def test_options_of_an_fstab_line() -> None:
    options = MountOptions.parse(
        "rw,nosuid,nodev,noatime,user=al,_netdev,nofail,x-systemd.automount,home=/h,cache_size=2G,allow_other"
    )
    assert options.kernel == ("nosuid", "nodev", "noatime")
    assert (options.cache_bytes, options.allow_other) == (2 << 30, True)
    assert not options.read_only


def test_the_last_option_wins() -> None:
    assert MountOptions.parse("rw,ro").read_only
    assert MountOptions.parse("fsync=network").fsync_network
    assert not MountOptions.parse("fsync=network,fsync=local").fsync_network
    assert not MountOptions.parse("ro,rw").read_only
    assert option_value("home=/a,ro,home=/b", "home") == "/b"
    assert option_value("ro", "home") is None


@pytest.mark.parametrize(
    "text",
    [
        "bogus",
        "cache_size",
        "cache_size=",
        "cache_size=x",
        "cache_size=1M",
        "fsync=never",
        "workers=0",
        "answers=17",
        "instalments=1",
        "instalments=65",
        "contract_period=0",
        "contract_period=30d",
        "answers=-1",
        "answers=",
        "listen=1",
        "upload_after=soon",
        "host_price=",
        "host_price=-1",
        "host_price=much",
        "host_price=0.12345678",
        "home",
        "ro=1",
        "nosuid=1",
        "Rw",
    ],
)
def test_options_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        MountOptions.parse(f"rw,{text}")


@given(st.text(max_size=60))
def test_options_are_parsed_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(UsageError):
        MountOptions.parse(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("7", 7), ("4K", 4096), ("1.5G", 3 << 29), ("20g", 20 << 30), ("1MiB", 1 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1X", "G", "1 2", "1e9", "0x10", "nan"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4455", "127.0.0.1", 4455),
        (" seed.example.org:1 ", "seed.example.org", 1),
        ("localhost:65535", "localhost", 65535),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[2001:DB8::0:1]:80", "2001:db8::1", 80),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1", 80),
        ("under_score.local.:7", "under_score.local.", 7),
    ],
)
def test_good_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "host", "host:", "host:65536", "host:99999", "host:-1", "host:eighty", "host:٣", "host:80:90"),
        *("1.2.3:80", "1.2.3.999:80", "-bad-:80", "a b:80", "a..b:80", "x" * 300 + ":80", "h:" + "9" * 5000),
        *("[::1:80", "[::1]80", "[::1]", "::1:80", "::1:80:zz", "[]:80"),
    ],
)
def test_bad_addresses_are_one_clear_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
