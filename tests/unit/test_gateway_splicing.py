"""Splicing into a caller's bytes: what is not named stays byte for byte, and the result is what a rewrite would say."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_stack import deployment

from groundplan.gateway.http.server import Request
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.rerank import RERANK
from groundplan.gateway.surfaces.speech import SPEECH

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.text(max_size=4) | st.sampled_from(["model", "max_tokens", 'a"b', "c\\", "é"])


def test_unchanged_bytes_stay_as_they_came() -> None:
    body = b'{ "model" :"auto",\n  "max_tokens":1e1 ,"x-\\u00e9": {"model":  "inner"} , "stream" : true }\n'
    out = replace_fields(body, _fields(body), {"model": b'"up"', "max_tokens": None, "stream_options": b"{}"})
    assert out == b'{ "model" :"up" ,"x-\\u00e9": {"model":  "inner"} , "stream" : true ,"stream_options":{}}'


def test_the_first_field_is_removed_with_its_comma() -> None:
    body = b'{"a":1, "b":2 , "c":[3]}'
    assert json.loads(replace_fields(body, _fields(body), {"a": None})) == {"b": 2, "c": [3]}
    assert json.loads(replace_fields(body, _fields(body), {"a": None, "b": None})) == {"c": [3]}
    assert json.loads(replace_fields(body, _fields(body), {"a": None, "b": None, "c": None, "d": b"4"})) == {"d": 4}


def test_without_original_bytes_the_fields_are_serialised() -> None:
    fields = _fields(b'{"a": 1, "b": 2}')
    assert replace_fields(b"", fields, {"a": None, "b": b"5", "c": b"6"}) == b'{"b":5,"c":6}'


@given(
    st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=6),
    st.dictionaries(_NAMES, st.none() | st.integers(0, 99), max_size=4),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_splicing_equals_reserialising(
    body: dict[str, object], changes: dict[str, int | None], indent: int | None, ascii: bool
) -> None:
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    try:
        fields = _fields(raw)
        for name in changes:
            name.encode()
    except (msgspec.DecodeError, UnicodeError):
        return
    new = {name: None if value is None else str(value).encode() for name, value in changes.items() if '"' not in name}
    new = {name: value for name, value in new.items() if name.isidentifier() or name in body}
    wanted = {name: value for name, value in body.items() if not (name in new and new[name] is None)}
    wanted |= {name: json.loads(value) for name, value in new.items() if value is not None}
    out = replace_fields(raw, fields, new)
    assert json.loads(out) == wanted
    assert list(json.loads(out)) == list(wanted)


@pytest.mark.parametrize(
    ("interface", "raw"),
    [
        (EMBEDDINGS, b'{ "input" : [[7, 8],[9]] ,"model":"M", "encoding_format": "float" }'),
        (MODERATIONS, b'{ "input" : ["caf\\u00e9"],  "model":"M" ,"later": [1, 2.50]}'),
        (RERANK, b'{"query" : "q","documents": [ "a" ],\n "model" : "M" , "top_n":1 }'),
        (IMAGES, b'{"prompt": "a house" , "size":"1024x1024","model" :"M", "seed":1e1 }'),
        (SPEECH, b'{ "model":"M", "input" : "caf\\u00e9","voice":{"id" : "v"}, "speed": 1.0 }'),
    ],
)
def test_a_task_request_is_forwarded_byte_for_byte(interface: Interface, raw: bytes) -> None:
    request, place = Request(0.0), deployment("one", 1)
    request.body = raw
    made = interface.codec(place).request_body(interface.read(request), place, 16, [])
    assert made == raw.replace(b'"M"', b'"up-one"')
