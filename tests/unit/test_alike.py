"""What makes two requests the same, which are looked at, and when it is told that teams ask alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec import structs

from groundplan.core.ids import new_id
from groundplan.economics.levers.model import SHARE, SharedRequests
from groundplan.economics.levers.requests import MIN_REQUESTS, same_requests
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.repeats import Request, is_sampled, request_digest

DAY, KEY = date(2026, 11, 20), b"k" * 32
TODAY = 20_777
"""The same day as days since the epoch."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def request(body: str, **more: Any) -> Request:
    return replace(Request(new_id(), DAY, "faq", "chat", "Be brief.", _fields(body.encode()), 1), **more)


BODY = '{"model": "auto", "messages": [{"role": "user", "content": "Wann?"}], "temperature": 0, "stream": false}'


@pytest.mark.parametrize(
    ("body", "same"),
    [
        (BODY.replace(" ", ""), True),
        (BODY.replace("auto", "acme/large").replace("false", "true"), True),
        (BODY.replace('"role": "user", "content": "Wann?"', '"content": "W\\u0061nn?", "role": "user"'), True),
        (BODY.replace('"stream"', '"user": "ana", "max_tokens": 20, "tools": null, "stream"'), True),
        (BODY.replace("Wann?", "Wann"), False),
        (BODY.replace('"temperature": 0', '"temperature": 1'), False),
        (BODY.replace('"stream"', '"tools": [], "stream"'), False),
    ],
)
def test_what_is_asked_makes_requests_the_same_and_who_asks_which_model_does_not(body: str, same: bool) -> None:
    assert (request_digest(request(body, workload="other"), KEY) == request_digest(request(BODY), KEY)) is same


def test_another_key_prompt_or_endpoint_is_another_digest() -> None:
    made = {
        request_digest(request(BODY), KEY), request_digest(request(BODY), b"l" * 32),
        request_digest(request(BODY, prompt=""), KEY), request_digest(request(BODY, endpoint="responses"), KEY),
    }  # fmt: skip
    assert len(made) == 4 and None not in made
    assert request_digest(request(BODY, fields={"messages": msgspec.Raw(b'"\\ud800"')}), KEY) is None


def ask(text: str, **more: Any) -> Ask:
    return Ask(
        {"input": msgspec.Raw(b'"%b"' % text.encode())}, "m", 1, more.get("query", text), False, False, None, 1, 9
    )


def test_one_request_in_eight_is_looked_at_by_what_it_asks_and_others_on_other_days() -> None:
    asks = [ask(f"What does form {n} say?") for n in range(4000)]
    found = {each.query for each in asks if is_sampled(each, TODAY)}
    assert 4000 / SHARE * 0.8 < len(found) < 4000 / SHARE * 1.2
    assert all(
        is_sampled(structs.replace(each, model="other", fields={}), TODAY) == (each.query in found) for each in asks
    )
    assert not any(is_sampled(each, TODAY + 1) for each in asks if each.query in found)
    assert any(is_sampled(ask(f"text {n}", query=""), TODAY) for n in range(100))
    is_sampled(ask("", query="\ud83d"), TODAY)


ALIKE = SharedRequests(("faq", "help"), ("care", "sales"), ("ana@x", "bo@x"), 37, 123, Decimal("1.2345"), 37)


def test_teams_that_ask_alike_are_told_in_round_numbers_with_owners() -> None:
    (told,) = same_requests(ALIKE, Decimal(1))
    assert (told.lever, told.about) == ("the same asked by several teams", ("faq", "help"))
    assert told.saves_usd == Decimal("9.9") and "(ana@x, bo@x)" in told.what
    assert told.evidence.startswith("about 980 calls asked exactly the same as one of another team, about 690 of them")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"requests": MIN_REQUESTS - 1, "fewest": 2 * MIN_REQUESTS - 1, "calls": 9000}, False),
        ({"requests": MIN_REQUESTS}, True),
        ({"requests": 1, "fewest": 2 * MIN_REQUESTS}, True),
        ({"teams": ("care",)}, False),
    ],
)
def test_whoever_guesses_what_another_team_asks_learns_nothing(changed: dict[str, Any], told: bool) -> None:
    assert bool(list(same_requests(replace(ALIKE, **changed), Decimal(1)))) is told
