"""Prices of images, characters and minutes: as they are declared, to what a gateway charges."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_catalog_transport import START

from groundplan.blueprint.model import Deployment, Rates
from groundplan.catalog.check import validate_files
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO
from groundplan.economics.unit_price import audio_price, image_price, speech_price
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.transcriptions import TRANSCRIPTIONS
from groundplan.ledger.model import Usage
from groundplan.release.compile.places import compile_deployments
from groundplan.release.compile.pricing import declared_or_listed


def compiled(deployment: str) -> Deployment:
    text = START.format(company="").replace("price: free\n", "url: https://h.example/v1\n") + deployment
    found, problems = compile_deployments(validate_files({"a.yaml": text}), date(2026, 1, 1), declared_or_listed)
    assert not problems
    return found[0]


ASK = Ask(
    fields={}, model="auto", messages=1, query="", stream=False, include_usage=False, cap=None, copies=1, size=0
)  # fmt: skip
PRICES = {"1024x1024": 4, "1024x1024/hd": 8, "512x512/low": 1, "512x512/high": 3, "any": 12}


@pytest.mark.parametrize(
    ("size", "quality", "price"),
    [
        ("1024x1024", None, 8),
        ("1024x1024", "auto", 8),
        ("1024x1024", "hd", 8),
        ("1024x1024", "standard", 4),
        ("512x512", None, 12),
        ("512x512", "low", 1),
        ("512x512", "auto", 12),
        ("1792x1024", None, 12),
        (None, "low", 12),
        ("auto", None, 12),
    ],
)
def test_an_image_costs_what_its_class_costs(size: str | None, quality: str | None, price: int) -> None:
    assert image_price(Rates(input=0, output=0, images=PRICES), size, quality) == price


@pytest.mark.parametrize(
    ("asked", "answered", "price"),
    [
        ({"size": "1024x1024"}, {}, 4),
        ({"size": "1024x1024"}, {"size": "1024x1024", "quality": "hd"}, 8),
        ({"size": "1024x1024"}, {"size": "1024x1024", "quality": "standard"}, 4),
        ({"size": "1024x1024", "quality": "auto"}, {}, 8),
        ({"size": "1024x1024", "quality": "auto"}, {"quality": "auto"}, 8),
        ({"size": "1024x1024", "quality": "auto"}, {"quality": "low"}, 4),
        ({"size": "512x512"}, {}, 12),
        ({"size": "512x512"}, {"quality": "low"}, 1),
        ({"size": "512x512", "quality": "low"}, {"size": "1024x1024", "quality": "hd"}, 1),
        ({}, {}, 12),
        ({}, {"size": "1024x1024"}, 4),
        ({}, {"size": 1024, "quality": None}, 12),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_request_leaves_open_is_charged_as_the_answer_says(
    asked: dict[str, Any], answered: dict[str, Any], price: int, streamed: bool
) -> None:
    painter = Deployment(
        name="painter", site="here", model="m", upstream_model="m", url="http://u/v1",
        rates=Rates(input=0, output=0, images=PRICES),
    )  # fmt: skip
    request = Request(0.0)
    request.body = json.dumps({"prompt": "a house", "stream": streamed, **asked}).encode()
    ask, codec = IMAGES.read(request), IMAGES.codec(painter)
    held = IMAGES.cost_bound(ask, painter, 0, 0)
    assert held == image_price(painter.rates, asked.get("size"), asked.get("quality")) and held >= price
    usage: Usage | None
    if streamed:
        relay = codec.new_relay(ask)
        relay.feed(json.dumps({"type": "image_generation.completed", "b64_json": "eA==", **answered}).encode())
        usage = relay.usage
    else:
        usage = codec.parse_answer(json.dumps({"data": [{"b64_json": "eA=="}], **answered}).encode(), ask).usage
    assert usage is not None and IMAGES.cost(ask, painter, usage) == price


def test_an_answer_of_a_class_without_a_price_costs_what_was_reserved() -> None:
    only = Rates(input=0, output=0, images={"1024x1024/hd": 8})
    painter = Deployment(name="painter", site="here", model="m", upstream_model="m", url="http://u/v1", rates=only)
    request = Request(0.0)
    request.body = b'{"prompt":"a house","size":"1024x1024"}'
    ask = IMAGES.read(request)
    usage = IMAGES.codec(painter).parse_answer(b'{"data":[{}],"quality":"low"}', ask).usage
    assert usage is not None and IMAGES.cost(ask, painter, usage) == IMAGES.cost_bound(ask, painter, 0, 0) == 8


def test_a_class_without_a_price_has_none() -> None:
    some = Rates(input=0, output=0, images={"512x512": 1})
    assert image_price(some, "1024x1024", None) is None
    assert image_price(Rates(input=0, output=0), None, None) is None


@given(st.integers(0, 10**7), st.integers(0, 10**14))
def test_units_are_never_charged_too_little(count: int, rate: int) -> None:
    assert speech_price(Rates(input=0, output=0, characters=rate), count) * 10**6 >= count * rate
    assert audio_price(Rates(input=0, output=0, minute=rate), count) * 60 >= count * rate


def test_what_is_declared_reaches_the_gateway() -> None:
    prices = "{1024x1024: 0.04 USD, any: 0.12 USD}"
    painter = compiled(f"type: images\nprice: {{input: 0 USD/Mtok, output: 0 USD/Mtok, images: {prices}}}\n")
    assert painter.rates.images == {"1024x1024": PICO * 4 // 100, "any": PICO * 12 // 100}
    voice = compiled("type: speech\nprice: {input: 0 USD/Mtok, output: 0 USD/Mtok, characters: 15 USD}\n")
    assert voice.rates.characters == 15 * PICO and voice.rates.source != "declared free"
    minutes = "type: transcription\nprice: {input: 0 USD/Mtok, output: 0 USD/Mtok, minute: 0.006 USD}\n"
    ear = compiled(minutes + "audio: 30m\n")
    assert (ear.rates.minute, ear.audio_seconds) == (6 * PICO // 1000, 1800)
    with pytest.raises(Invalid, match="without a bound"):
        compiled(minutes)
    least = compiled(minutes.replace("}", ", shortest: 10s, flagged: 0.05 USD}") + "audio: 5s\n")
    assert (least.rates.shortest, least.rates.flagged) == (10, PICO // 20)
    assert TRANSCRIPTIONS.cost_bound(ASK, least, 0, 0) == least.rates.minute // 6
    for seconds, place, charged in ((2.5, least, 10), (12, least, 12), (2.5, ear, 3)):
        heard = b'{"text":"well","duration":%b}' % str(seconds).encode()
        assert TRANSCRIPTIONS.codec(place).parse_answer(heard, ASK).usage == Usage(seconds=charged)
