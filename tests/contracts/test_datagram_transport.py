"""What every datagram transport does: the real UDP socket, IPv4 and IPv6, and the in-memory fabric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import trio

from layrfs.errors import StateInUse
from layrfs.network.addresses import Address
from layrfs.network.udp import DatagramTransport, UdpTransport
from tests.grid.fabric import Fabric

Make = Callable[[str, int], DatagramTransport]


@pytest.fixture(params=["fabric", "udp", "udp6"])
async def make(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Make:
    """Makes transports of one kind; hosts are given as the last byte of a loopback address."""
    if request.param == "fabric":
        fabric = Fabric()
        await nursery.start(fabric.run)
        return fabric.endpoint
    if request.param == "udp6":
        return lambda _host, port: UdpTransport(("::", port), Counter())
    return lambda host, port: UdpTransport((host, port), Counter())


async def test_datagrams_arrive_with_their_sender(make: Make) -> None:
    one, two = make("127.0.0.1", 0), make("127.0.0.1", 0)
    port_one, port_two = await one.open(), await two.open()
    one.send(b"there", Address("127.0.0.1", port_two))
    with trio.fail_after(30):
        data, sender = await two.receive()
        assert (data, sender) == (b"there", Address("127.0.0.1", port_one))
        two.send(b"", sender)
        two.send(b"x" * 1200, sender)
        assert await one.receive() == (b"", Address("127.0.0.1", port_two))
        assert (await one.receive())[0] == b"x" * 1200
    one.close()
    two.close()


async def test_receive_now_never_waits(make: Make) -> None:
    one, two = make("127.0.0.1", 0), make("127.0.0.1", 0)
    await one.open()
    port_two = await two.open()
    assert two.receive_now() is None
    for _ in range(2):
        one.send(b"again", Address("127.0.0.1", port_two))
    with trio.fail_after(30):
        await two.receive()
        while two.receive_now() is None:  # noqa: ASYNC110 - the second may take a moment longer
            await trio.sleep(0.001)
    one.close()
    two.close()


async def test_a_taken_port_is_said_to_be_taken(make: Make) -> None:
    one = make("127.0.0.1", 0)
    port = await one.open()
    with pytest.raises(StateInUse, match=str(port)):
        await make("127.0.0.1", port).open()
    one.close()


async def test_a_closed_port_can_be_taken_again(make: Make) -> None:
    one = make("127.0.0.1", 0)
    port = await one.open()
    one.close()
    one.close()
    again = make("127.0.0.1", port)
    assert await again.open() == port
    again.close()


async def test_sending_never_raises(make: Make) -> None:
    one = make("127.0.0.1", 0)
    one.send(b"not open yet", Address("127.0.0.1", 9))
    await one.open()
    for target in (Address("127.0.0.1", 1), Address("240.0.0.1", 9), Address("::1", 9), Address("nonsense", 9)):
        one.send(b"into the void", target)
    one.send(b"x" * 1200, Address("127.0.0.1", 70000))
    one.close()
    one.send(b"closed", Address("127.0.0.1", 9))
    assert one.receive_now() is None


async def test_receiving_survives_errors_of_earlier_sends(make: Make) -> None:
    one, two = make("127.0.0.1", 0), make("127.0.0.1", 0)
    port_one = await one.open()
    for _ in range(5):
        one.send(b"nobody there", Address("127.0.0.1", 1))
    await two.open()
    two.send(b"hello", Address("127.0.0.1", port_one))
    with trio.fail_after(30):
        assert (await one.receive())[0] == b"hello"
    one.close()
    two.close()
