"""Chunks that differ in their text alone go on without a look at each, and nothing about a stream is any different."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groundplan.gateway.http.chunk_template import ChunkTemplate
from groundplan.gateway.http.sse import EventReader
from groundplan.gateway.surfaces.chat.relay import ChatRelay, CopiesRelay
from groundplan.gateway.surfaces.codec import Malformed

TEXTS = st.text(max_size=6) | st.sampled_from(
    [" word", "é", "日本", '"', "\\", "\n\n", "\x7f", "", "data: ", "}\n\ndata: {"]
)
SPACING = st.sampled_from([(",", ":"), (", ", ": ")])


def chunk(text: str, separators: tuple[str, str] = (",", ":"), **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return json.dumps(value, separators=separators, ensure_ascii=False).encode()


def event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def with_usage(separators: tuple[str, str]) -> bytes:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    return json.dumps({"choices": [], "usage": usage}, separators=separators).encode()


END = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'


class Reading:
    """A stream as it is relayed, with or without the short way."""

    def __init__(self, short: bool) -> None:
        self.relay, self.reader = ChatRelay(include_usage=True), EventReader()
        self.short, self.passed = short, 0

    def feed(self, data: bytes) -> bytes:
        if self.short and self.reader.is_between_events and self.relay.try_pass_through(data):
            self.passed += 1
            return data
        return b"".join(self.relay.feed(each) for each in self.reader.feed(data))

    @property
    def state(self) -> tuple[Any, ...]:
        relay = self.relay
        return relay.output_bytes, relay.finished, relay.held, relay.usage, relay.tier, relay.done


@given(
    st.lists(TEXTS, max_size=12), SPACING, st.data(),
    st.sampled_from([{}, {"obfuscation": "x"}, {"service_tier": "default"}, {"usage": None}, {"model": '"content":"'}]),
)  # fmt: skip
@example(["a", "b", "c"], (",", ":"), None, {"obfuscation": "x"})
@example(["a\x7fb", "c\x7fb", "\x7f", "\x7f"], (",", ":"), None, {})
def test_a_stream_is_the_same_however_it_is_read(
    texts: list[str], separators: tuple[str, str], data: st.DataObject | None, more: dict[str, Any]
) -> None:
    chunks = []
    for number, text in enumerate(texts):
        changed = {"obfuscation": "y" * number} if "obfuscation" in more else {}
        if data is not None and data.draw(st.integers(0, 9)) == 0:
            changed = data.draw(st.sampled_from([{"service_tier": "priority"}, {"created": 2}, {"choices": []}]))
        chunks.append(chunk(text, separators, **(more | changed)))
    whole = b"".join(map(event, [*chunks, END, with_usage(separators)])) + b"data: [DONE]\n\n"
    cuts = [len(whole)]
    if data is not None and data.draw(st.booleans()):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8))) + cuts
    elif data is None or data.draw(st.booleans()):
        cuts = [at + 2 for at in range(len(whole)) if whole.startswith(b"\n\n", at)]
    short, long = Reading(True), Reading(False)
    at = 0
    for cut in cuts:
        assert short.feed(whole[at:cut]) == long.feed(whole[at:cut])
        assert short.state == long.state
        at = cut


@given(st.data(), st.sampled_from([chunk("a"), chunk("a", obfuscation="x"), chunk("a", (", ", ": "))]))
def test_nothing_passes_that_a_look_would_have_found(data: st.DataObject, known: bytes) -> None:
    """Bytes changed, put in and left out anywhere."""
    changed = bytearray(event(known) * data.draw(st.integers(1, 2)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"x", b"\n", b"\r", b"\xff", b"\xc3\xa9", b'","finish_reason":"stop', b"\x00"]
            )
        )
    short, long = Reading(True), Reading(False)
    for reading in (short, long):
        reading.feed(event(known))
    try:
        expected = long.feed(bytes(changed))
    except Malformed:
        with pytest.raises(Malformed):
            short.feed(bytes(changed))
    else:
        assert short.feed(bytes(changed)) == expected and short.state == long.state


@pytest.mark.parametrize("more", [{}, {"obfuscation": "k3"}, {"usage": None, "system_fingerprint": "fp"}])
def test_most_of_a_stream_takes_the_short_way(more: dict[str, Any]) -> None:
    reading = Reading(True)
    for word in ("The", " capital", " of", "\n\n", " Suède", " is", "…"):
        reading.feed(event(chunk(word, **more)))
    assert reading.passed == 5, "all but the first, and the one with line ends"
    assert reading.feed(event(chunk("a", **more)) * 3) and reading.passed == 6, "several that come together"


def test_what_changes_in_every_chunk_is_not_looked_for_for_ever() -> None:
    reading = Reading(True)
    for number in range(50):
        reading.feed(event(chunk("x", created=number)))
    assert reading.relay._samples_left == 0 and reading.passed == 0


def test_each_of_several_copies_is_looked_at() -> None:
    relay = CopiesRelay(include_usage=True, copies=2)
    for _ in range(3):
        relay.feed(chunk("x"))
        assert not relay.try_pass_through(event(chunk("x")))


@pytest.mark.parametrize(
    "text",
    [
        b'{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[]}}]}',
        b'{"choices":[{"delta":{"content":"a\\n"}}]}',
        b'{"choices":[{"delta":{"c\\u006fntent":"b","content":"a"}}]}',
        b'{"choices":[{"delta":{"content":\n"a"}}]}',
        b'{"type":"content","choices":[{"delta":{"content":"a"}}]}',
    ],
)  # fmt: skip
def test_where_the_text_cannot_be_found_for_certain_every_chunk_is_read(text: bytes) -> None:
    assert ChunkTemplate.of(text) is None


ESCAPED = chunk("\n")


@pytest.mark.parametrize(
    ("events", "passed"),
    [
        ([event(chunk("a")), event(chunk("b")), event(END), event(chunk("c")), event(chunk("d"))], 1),
        (
            [
                event(chunk("a", service_tier="default")),
                event(chunk("\n", service_tier="priority")),
                event(chunk("b", service_tier="default")),
            ],
            0,
        ),
        ([event(chunk("a")), event(ESCAPED), event(chunk("b"))], 1),
        ([event(chunk("a")), event(chunk("b"))[:-1], b"\n" + event(chunk("c")), event(chunk("d"))], 1),
    ],
)
def test_what_came_in_between_counts(events: list[bytes], passed: int) -> None:
    """The end, another tier, half an event."""
    short, long = Reading(True), Reading(False)
    for data in events:
        assert short.feed(data) == long.feed(data)
        assert short.state == long.state
    assert short.passed == passed


def test_bytes_that_are_no_text_are_found_in_a_chunk_like_others() -> None:
    reading = Reading(True)
    reading.feed(event(chunk("a")))
    broken = event(chunk("xx").replace(b"xx", b"\xc3("))
    with pytest.raises(Malformed):
        reading.feed(broken)
    assert reading.passed == 0
