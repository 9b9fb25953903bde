"""A name is found in what was kept, however JSON, a line's end or a keyboard wrote it."""

from __future__ import annotations

import json

import pytest

from groundplan.api.erasure.text_matching import normalize, unescape_json

NAME = "Zoë Strauß"


@pytest.mark.parametrize(
    "kept",
    [
        "ask Zoë Strauß about it",
        "ask ZOË\n  STRAUSS about it",
        "ask Zoe\u0308 Strauß",
        "| **Zoë** | Strauß |",
        json.dumps({"prompt": "did Zoë\nStrauß sign?"}),
        json.dumps({"prompt": "Zoë Strauß"}, ensure_ascii=False),
        json.dumps({"arguments": json.dumps({"inner": json.dumps({"name": NAME})})}),
        'data: {"text": "Zo\\u00eb\\tStrau\\u00df \\ud83d\\ude00"}\n\n',
    ],
)
def test_a_name_is_found_however_it_is_written(kept: str) -> None:
    word = normalize(NAME)
    assert word in normalize(kept) or word in normalize(unescape_json(kept))


def test_another_name_is_not_found_and_odd_escapes_harm_nothing() -> None:
    for text in ("Zoë, and Strauß", "\\", "\\u12", "\\ud83d alone", "C:\\users\\zoë"):
        assert normalize(NAME) not in normalize(unescape_json(text))
    assert unescape_json("\\ud83d\\ude00") == "\U0001f600"
