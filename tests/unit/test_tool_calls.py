"""Pieces of tool calls, however a server mixes and numbers them: each call is told by itself, whole and in order."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from groundplan.gateway.surfaces.chat.answer_types import (
    FunctionDelta,
    ToolCallDelta,
    ToolCallSequencer,
    parse_chunk,
    parse_completion,
)

ARGUMENTS = st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers(), max_size=3).map(json.dumps)


def cut(data: st.DataObject, number: int, index: int, text: str) -> list[ToolCallDelta]:
    """One call in pieces, of which the first one names it."""
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    parts = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    first = ToolCallDelta(index, f"c{number}", FunctionDelta("look", parts[0]))
    return [first, *(ToolCallDelta(index, None, FunctionDelta(None, part)) for part in parts[1:])]


def told(sent: list[ToolCallDelta]) -> list[tuple[int, str | None, str]]:
    """(number, id, arguments) of each run of pieces of one call."""
    order, found = ToolCallSequencer(), list[tuple[int, str | None, str]]()
    pieces = [piece for each in sent for piece in order.feed(each)] + order.drain()
    for piece in pieces:
        more = piece.text
        if found and found[-1][0] == piece.index:
            number, name, text = found[-1]
            found[-1] = (number, name, text + more)
        else:
            found.append((piece.index or 0, piece.id, more))
    return found


@given(st.lists(ARGUMENTS, min_size=1, max_size=4), st.data())
def test_pieces_that_are_mixed_are_told_call_by_call(calls: list[str], data: st.DataObject) -> None:
    left = [cut(data, number, number, text) for number, text in enumerate(calls)]
    sent: list[ToolCallDelta] = []
    while any(left):
        sent.append(left[data.draw(st.sampled_from([n for n, drain in enumerate(left) if drain]))].pop(0))
    found = told(sent)
    assert [number for number, _, _ in found] == list(range(len(calls)))
    assert {name: text for _, name, text in found} == {f"c{n}": text for n, text in enumerate(calls)}


@given(st.lists(ARGUMENTS, min_size=1, max_size=4), st.data())
def test_calls_under_one_number_are_told_apart_by_their_ids(calls: list[str], data: st.DataObject) -> None:
    sent = [piece for number, text in enumerate(calls) for piece in cut(data, number, 0, text)]
    assert told(sent) == [(n, f"c{n}", text) for n, text in enumerate(calls)]


@given(st.lists(ARGUMENTS, min_size=1, max_size=4), st.data())
def test_calls_that_come_in_turn_are_told_as_they_come(calls: list[str], data: st.DataObject) -> None:
    """Nothing waits where the one before is whole."""
    order = ToolCallSequencer()
    for number, text in enumerate(calls):
        for piece in cut(data, number, number, text):
            assert order.feed(piece) == [piece]
    assert order.drain() == []


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    """Gemini's OpenAI-shaped address has given empty ones, and others repeat an empty one in each piece."""
    sent = [
        ToolCallDelta(number, id, FunctionDelta(name, part))
        for number in range(2)
        for id, name, part in (("", "look", ""), ("", None, '{"a":'), (None, None, "1}"))
    ]
    (_, first, one), (_, second, two) = told(sent)
    assert first and second and first != second and one == two == '{"a":1}'
    whole = [ToolCallDelta(0, "", FunctionDelta("look", part)) for part in ('{"a":1}', '{"b":2}')]
    end = ToolCallDelta(0, "", FunctionDelta("look", ""))
    assert [(number, text) for number, _, text in told([*whole, end])] == [(0, '{"a":1}'), (1, '{"b":2}')]
    for call in (b'{"id":"","function":{"name":"look"}}', b'{"function":{"name":"look","arguments":"{}"}}'):
        data = b'{"id":"c","choices":[{"message":{"tool_calls":[%b,%b]},"finish_reason":"tool_calls"}]}' % (call, call)
        calls = parse_completion(data).choices[0].message.tool_calls
        assert calls is not None and len({each.call_id for each in calls}) == 2


def test_pieces_without_the_number_of_their_call_belong_to_the_newest_one() -> None:
    """Also where only the beginnings are numbered, or the rest has another number."""
    for first, rest in ((None, None), (0, None), (0, 1)):
        begun = [ToolCallDelta(first, f"c{n}", FunctionDelta("look", "{")) for n in range(2)]
        sent = [begun[0], ToolCallDelta(first, None, FunctionDelta(None, "}"))]
        sent += [begun[1], ToolCallDelta(rest, None, FunctionDelta(None, "}"))]
        assert told(sent) == [(0, "c0", "{}"), (1, "c1", "{}")]
    numbered = [ToolCallDelta(n, f"c{n}", FunctionDelta("look", "{")) for n in range(2)]
    sent = [numbered[0], ToolCallDelta(None, None, FunctionDelta(None, "}"))]
    sent += [numbered[1], ToolCallDelta(None, None, FunctionDelta(None, "}"))]
    assert told(sent) == [(0, "c0", "{}"), (1, "c1", "{}")]
    data = b'{"choices":[{"delta":{"tool_calls":[{"index":null,"id":"a","function":{"name":"look"}}]}}]}'
    (choice,) = parse_chunk(data).choices
    assert choice.delta is not None and choice.delta.tool_calls is not None
    assert choice.delta.tool_calls[0].index is None


def test_an_empty_piece_that_ends_a_call_after_the_next_one_began() -> None:
    """Its arguments were whole, so the next one was told."""
    first, second = (ToolCallDelta(n, f"c{n}", FunctionDelta("look", "{}")) for n in range(2))
    end = ToolCallDelta(0, None, FunctionDelta(None, ""))
    assert told([first, second, end]) == [(0, "c0", "{}"), (1, "c1", "{}")]


@given(ARGUMENTS, st.lists(st.integers(0, 60), max_size=8))
def test_arguments_are_whole_with_their_last_sign_however_they_are_cut(text: str, cuts: list[int]) -> None:
    """Also where strings have braces, quotes and signs that take their meaning."""
    text = json.dumps({"{\\": [text, {"}": '"'}]})
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    order = ToolCallSequencer()
    order.feed(ToolCallDelta(0, "a", FunctionDelta("look", "")))
    waits = ToolCallDelta(1, "b", FunctionDelta("look", "{}"))
    assert order.feed(waits) == []
    pieces = [text[a:b] for a, b in itertools.pairwise(at)]
    told = [order.feed(ToolCallDelta(0, None, FunctionDelta(None, piece))) for piece in pieces]
    assert [len(each) for each in told] == [1] * (len(told) - 1) + [2] and told[-1][1] == waits
