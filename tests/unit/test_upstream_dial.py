"""How a name becomes a connection: silent servers of one name, or a silent address, keep nobody from the others."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from groundplan.gateway.upstream import dial, http1_pool
from groundplan.gateway.upstream.answer_memory import CROWDED
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.dial import AddressInfo, Resolver, open_socket
from groundplan.gateway.upstream.http1_pool import Http1Pool


def at(*places: tuple[str, int]) -> AddressInfo:
    """What is told of a name with these addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]


async def test_an_unresolvable_name_holds_up_no_other() -> None:
    said, asked = threading.Event(), []

    def way(host: str, port: int, *_: int) -> AddressInfo:
        asked.append(host)
        if host == "silent":
            said.wait(20)
        return at(("127.0.0.1", port))

    names = Resolver(asyncio.get_running_loop(), way)
    waiting = [asyncio.create_task(names.addresses("silent", 1)) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await names.addresses("other", 2) == [(socket.AF_INET, ("127.0.0.1", 2))]
        waiting[0].cancel()
        said.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError) and found[1:] == [[(socket.AF_INET, ("127.0.0.1", 1))]] * 19
    assert asked == ["silent", "other"], "all who wait for a name have one thread"
    await names.addresses("other", 2)
    assert asked[2:] == ["other"], "it may be of another machine by now"


async def test_without_dns_the_last_known_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that is away, or takes longer than a connection may, is no outage of every upstream."""
    said, loop = threading.Event(), asyncio.get_running_loop()
    told: list[AddressInfo | OSError | None] = []

    def way(_: str, port: int, *__: int) -> AddressInfo:
        found = told.pop(0)
        if found is None:
            said.wait(20)
            return at(("127.0.0.2", port))
        if isinstance(found, OSError):
            raise found
        return found

    names, here, there = Resolver(loop, way), at(("127.0.0.1", 1)), [(socket.AF_INET, ("127.0.0.2", 1))]
    monkeypatch.setattr(dial, "STALE_AFTER_SECONDS", 0.02)
    away = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    told += [away, here, away, None, away, unknown, away, here, away, away]
    async with asyncio.timeout(20):
        with pytest.raises(socket.gaierror):
            await names.addresses("name", 1)
        assert [await names.addresses("name", 1) for _ in range(4)] == [[(socket.AF_INET, ("127.0.0.1", 1))]] * 4
        said.set()
        while names._lookups:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)
        assert await names.addresses("name", 1) == there, "what was said too late is known"
        for _ in range(2):
            with pytest.raises(socket.gaierror):
                await names.addresses("name", 1)  # it is not there any more, and so not where it was
        await names.addresses("name", 1)
        monkeypatch.setattr(dial, "MAX_STALE_SECONDS", -1.0)
        with pytest.raises(socket.gaierror):
            await names.addresses("name", 1)
        assert await names.getaddrinfo_of_database("name", 1, type=socket.SOCK_STREAM) == here, (
            "which is left for nothing less"
        )
    assert not told


@contextmanager
def saying_nothing() -> Iterator[tuple[str, int]]:
    """An address that takes no connection, and refuses none: so many wait there already."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        place = listener.getsockname()
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(place)
        yield place


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    with saying_nothing() as place:
        yield place


@pytest.fixture
def refused() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place: tuple[str, int] = listener.getsockname()
    return place


def named(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    """Whatever is looked up is there."""
    names = Resolver(asyncio.get_running_loop(), lambda *_: at(*places))
    monkeypatch.setattr(dial, "resolver_of", lambda _: names)
    monkeypatch.setattr(dial, "NEXT_ADDRESS_SECONDS", 0.02)


async def test_after_a_silent_address_the_next_one_is_tried(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int], refused: tuple[str, int]
) -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    there = server.sockets[0].getsockname()
    for before in (silent, refused):
        named(monkeypatch, before, there, silent)
        pool = Http1Pool("http://upstream.example/v1", loop)
        connection = await pool.connect(10)
        assert connection.transport is not None and connection.transport.get_extra_info("peername") == there
        pool.close()
    server.close()


async def test_connecting_to_a_silent_address_times_out(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int], refused: tuple[str, int]
) -> None:
    named(monkeypatch, silent)
    pool = Http1Pool("http://upstream.example/v1", asyncio.get_running_loop())
    with pytest.raises(UpstreamFailure) as late:
        await pool.connect(0.1)
    named(monkeypatch, refused, refused)
    with pytest.raises(UpstreamFailure, match="nothing listens") as caught:
        await pool.connect(10)
    assert (late.value.kind, caught.value.kind) == ("connect_timeout", "refused")
    named(monkeypatch)
    with pytest.raises(OSError, match="no address"):
        await open_socket(asyncio.get_running_loop(), "upstream.example", 1)


async def test_a_machine_without_ipv6_has_ports_though_the_first_address_of_a_name_takes_none(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[str, int]
) -> None:
    """The kernel says the same number of both; of an address in IPv6 it is no lack of ports."""
    loop, opens = asyncio.get_running_loop(), dial._connect_socket
    lacking = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    async def without(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, place: Any) -> socket.socket:
        if place == refused:
            return await opens(loop, family, place)
        raise lacking

    monkeypatch.setattr(dial, "_connect_socket", without)
    for places, kind in (
        ((("::1", 1), refused), "refused"),
        ((refused, ("::1", 1)), "refused"),
        ((("10.0.0.1", 1), ("10.0.0.2", 1)), CROWDED),
    ):
        named(monkeypatch, *places)
        with pytest.raises(UpstreamFailure) as caught:
            await Http1Pool("http://localhost/v1", loop).connect(10)
        assert (caught.value.kind, bool(caught.value.hint)) == (kind, kind == CROWDED)

    async def none(*_: object) -> None:
        raise lacking

    monkeypatch.setattr(http1_pool, "open_connection", none)
    with pytest.raises(UpstreamFailure) as caught:
        await Http1Pool("http://[::1]/v1", loop).connect(10)
    assert caught.value.kind == "refused" and "Cannot assign" in str(caught.value)


async def test_address_families_alternate_and_invalid_names_fail() -> None:
    loop = asyncio.get_running_loop()
    six, four = (socket.AF_INET6, ("::1", 1, 0, 0)), (socket.AF_INET, ("127.0.0.1", 1))
    told = [(family, socket.SOCK_STREAM, 6, "", place) for family, place in (six, six, four)]
    assert await Resolver(loop, lambda *_: told).addresses("host", 1) == [six, four, six]
    with pytest.raises(socket.gaierror):
        await Resolver(loop).addresses(f"{'a' * 70}.example", 1)
