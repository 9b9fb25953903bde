"""When attempts connected and first answered is in the journal, and journals from before that can still be read."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from tests.unit.test_gateway_pipeline import Rig, rig

from groundplan.core.ids import new_id
from groundplan.gateway.call.trace import attempt_span, parse_trace
from groundplan.gateway.journal import records
from groundplan.ledger.model import Finish, Settlement, Usage
from groundplan.testing.scripted import Script

__all__ = ["rig"]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_new_connection_and_the_first_byte_are_timed_and_a_kept_connection_costs_nothing(rig: Rig) -> None:
    rig.one.script = Script(latency_ms=30)
    await rig.chat()
    await rig.chat()
    first, second = (record for record in await rig.records() if isinstance(record, Settlement))
    assert 0 < first.connect_us < first.first_byte_us <= first.duration_us
    assert first.first_byte_us >= 25_000 and first.started_us > 0
    assert second.connect_us == 0 and 25_000 <= second.first_byte_us <= second.duration_us


async def test_an_attempt_that_never_connected_has_neither(rig: Rig) -> None:
    rig.one.script = Script(mode="down")
    await rig.chat()
    failed, answered = (record for record in await rig.records() if isinstance(record, Settlement))
    assert failed.outcome != "ok" and failed.first_byte_us == 0
    assert answered.started_us >= failed.started_us + failed.duration_us


def test_records_from_before_are_read_with_nothing_measured() -> None:
    call = new_id().bytes
    old = [call, 0, 1, 7, "ok", 200, {"input": 3}, False, [], 5]
    data = bytes(records.HEADER_BYTES) + records.encode_frame(records.SETTLEMENT, 1, msgspec.msgpack.encode(old))
    entry = records.frame_at(data, records.HEADER_BYTES)
    assert entry is not None
    assert entry.record == Settlement(call, 0, 1, 7, "ok", 200, Usage(input=3), False, [], 5)
    before = [call, 3, "w", "", "k", "/v1", "ok", 200, "", "d", "none", 1, 5, 4, [["serve", 4]], []]
    data = bytes(records.HEADER_BYTES) + records.encode_frame(records.FINISH, 1, msgspec.msgpack.encode(before))
    entry = records.frame_at(data, records.HEADER_BYTES)
    assert entry is not None and isinstance(entry.record, Finish) and entry.record.trace == ""


class Before(msgspec.Struct, frozen=True, array_like=True):
    """A settlement as programs knew it before attempts were timed."""

    call: bytes
    attempt: int
    at: int
    cost: int
    outcome: str
    http_status: int
    usage: Usage
    estimated: bool
    flags: list[str]
    duration_us: int


def test_a_program_from_before_reads_records_of_now() -> None:
    now = Settlement(new_id().bytes, 0, 1, 7, "ok", 200, Usage(input=3), False, [], 5, 6, 7, 8)
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(now), type=Before)
    assert (found.cost, found.duration_us, found.usage) == (7, 5, Usage(input=3))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"00", PARENT.encode()[:-1], PARENT.upper().encode(), b"ff" + PARENT.encode()[2:],
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01",
        PARENT.encode() + b"-more", PARENT.encode() + b"\r\nx: y", b"%b, %b" % (PARENT.encode(), PARENT.encode()),
    ],
)  # fmt: skip
def test_a_malformed_trace_is_no_trace(text: bytes) -> None:
    assert parse_trace(text, None) is None


def test_a_trace_goes_on_with_the_attempts_own_span() -> None:
    call = UUID(int=7)
    found = parse_trace(PARENT.encode(), b"a=1,b=2")
    assert found is not None
    lines = found.upstream(call, 1)
    span = attempt_span(call, 1).hex()
    assert lines == f"traceparent: {PARENT[:36]}{span}-01\r\ntracestate: a=1,b=2\r\n".encode()
    assert attempt_span(call, 0) != attempt_span(call, 1) != attempt_span(UUID(int=8), 1)
    later = parse_trace(b"cc-" + PARENT.encode()[3:] + b"-future", b"bad\r\nx: y")
    assert later is not None and later.parent == PARENT and later.state == b""


@pytest.mark.parametrize(
    ("version", "flags", "sent"),
    [
        ("00", "00", "00"),
        ("00", "02", "02"),
        ("00", "03", "03"),
        ("00", "ff", "03"),
        ("00", "84", "00"),
        ("01", "f1", "01"),
    ],
)
def test_flags_that_the_standard_does_not_define_are_cleared(version: str, flags: str, sent: str) -> None:
    found = parse_trace(f"{version}-{PARENT[3:-2]}{flags}".encode(), None)
    assert found is not None and found.parent == PARENT[:-2] + sent
    assert found.upstream(UUID(int=7), 0).endswith(f"-{sent}\r\n".encode())


@pytest.mark.parametrize(
    ("state", "goes_on"),
    [
        (b"foo=1 \t , \t bar=2", b"foo=1,bar=2"),
        (b"foo=1,", b"foo=1"),
        (b"0123@v-1*/_=!~ #$%&'()*+-./:;<>?@[]^_`{|}", b"0123@v-1*/_=!~ #$%&'()*+-./:;<>?@[]^_`{|}"),
        (b"t" * 256 + b"=1", b"t" * 256 + b"=1"),
        (b",".join(b"k%d=1" % each for each in range(32)), b",".join(b"k%d=1" % each for each in range(32))),
        (b",".join(b"k%d=1" % each for each in range(33)), b""),
        (b"foo=1,foo=1", b"foo=1,foo=1"),
        (b"foo =1", b""),
        (b"FOO=1", b""),
        (b"foo.bar=1", b""),
        (b"foo@=1,bar=2", b""),
        (b"foo@@bar=1", b""),
        (b"t" * 257 + b"=1", b""),
        (b"foo=bar=baz", b""),
        (b"foo=,bar=3", b""),
        (b"foo", b""),
        (b"a=\x00", b""),
    ],
)
def test_the_callers_state_goes_on_as_the_standard_has_it(state: bytes, goes_on: bytes) -> None:
    found = parse_trace(PARENT.encode(), state)
    assert found is not None and found.state == goes_on
