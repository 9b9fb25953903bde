"""How the example company judges its demo: by what was answered, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from groundplan.core.home import Home
from groundplan.testing import judgements
from groundplan.testing.judgements import Caller, ChatAnswer, Judgements, parse_answer
from groundplan.testing.judging import Question, Sheet, Tone, judge, load_sheets
from groundplan.testing.people import ruling

ROOT = Path(__file__).parents[2]
ASKED = "How long is the warranty?"
SUPPORT = Sheet(
    "", "lena@acme.example", ("ben@acme.example",), {"accuracy": "facts", "tone": "tone"},
    (Question(ASKED, ("three years",)),), Tone(8, ("your fault",)),
)  # fmt: skip
FINANCE = Sheet(
    "", "fay@acme.example", ("ana@acme.example",), {"traceability": "cited", "arithmetic": "figures"},
    (Question("What was revenue?", ("6.42 million",)),),
)  # fmt: skip
CALLER = Caller("support", "gp_key")


@pytest.mark.parametrize(
    ("answer", "accuracy", "tone"),
    [
        ("It is  Three\nyears.", True, True),
        ("It is two years.", False, True),
        ("It is three years", True, False),
        ("It was your fault: three years.", True, False),
        ("It is THREE YEARS.", True, False),
        ("It is three years!!", True, False),
        ("It is three years and one and one and one and one.", True, False),
        ("", False, False),
    ],
)
def test_accuracy_and_tone_are_of_the_text(answer: str, accuracy: bool, tone: bool) -> None:
    assert judge(SUPPORT, ASKED, answer, ()) == {"accuracy": accuracy, "tone": tone}


@pytest.mark.parametrize(
    ("answer", "passages", "traceability", "arithmetic"),
    [
        ("According to [1]: 6.42 million.", ["Revenue was 6.42 million EUR."], True, True),
        ("6.42 million.", ["Revenue was 6.42 million EUR."], False, True),
        ("According to [1]: 6.24 million.", ["Revenue was 6.42 million EUR."], True, False),
        ("According to [1]: 6.42 million.", [], False, False),
    ],
)
def test_figures_stand_in_what_is_cited(answer: str, passages: list[str], traceability: bool, arithmetic: bool) -> None:
    found = judge(FINANCE, "What was revenue?", answer, passages)
    assert found == {"traceability": traceability, "arithmetic": arithmetic}


def test_what_is_not_on_the_sheet_is_not_judged() -> None:
    assert judge(SUPPORT, "Who are you?", "three years.", ()) == {}
    assert ruling(SUPPORT, "user: Who are you?", "three years.") is None


def test_a_reviewer_sends_what_holds_the_facts_and_says_what_is_missing() -> None:
    assert ruling(SUPPORT, f"user: {ASKED}", "It is three years.") == (
        "release",
        "it holds (read, as the demo plays it)",
    )
    refused = ruling(SUPPORT, f"user: {ASKED}", "No idea.")
    assert refused == ("refuse", "it lacks three years (read, as the demo plays it)")


def test_answers_streams_and_refusals_are_read() -> None:
    whole = {"choices": [{"message": {"content": "Three"}}], "groundplan": {"call_id": "1"}}
    assert parse_answer(200, json.dumps(whole).encode()) == ChatAnswer(200, "Three", {"call_id": "1"})
    events = [{"choices": [{"delta": {"content": text}}]} for text in ("Thr", "ee", None)]
    told = [*events, {"choices": [], "groundplan": {"call_id": "2"}}]
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in told) + b"data: [DONE]\n\n"
    assert parse_answer(200, stream) == ChatAnswer(200, "Three", {"call_id": "2"})
    refusal = {"error": {"code": "review_refused", "call_id": "3"}}
    assert parse_answer(403, json.dumps(refusal).encode()) == ChatAnswer(403, refused="3")
    assert parse_answer(200, b"data: " + json.dumps(refusal).encode()) == ChatAnswer(200, refused="3")
    assert parse_answer(429, b'{"error": {"code": "budget_exhausted", "call_id": "4"}}') == ChatAnswer(429)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []

    def exchange(_port: int, _method: str, path: str, by: str, body: dict[str, Any]) -> None:
        assert (path, by) == ("/api/outcomes", "gp_key")
        if any(each.get("id") == body["id"] for each in told):
            raise ValueError("{'code': 'outcome_differs'}")
        if body["call_id"] == "unknown" and len(told) < 3:
            told.append({})
            raise ValueError("there is no such call")
        told.append({name: body.get(name) for name in ("call_id", "label", "accepted", "id")})

    monkeypatch.setattr(judgements, "exchange", exchange)
    yield told


def test_each_answer_is_judged_once_and_the_last_word_is_of_all_of_it(reported: list[dict[str, Any]]) -> None:
    said = Judgements(0, {"support": SUPPORT})
    for call, cache, text in (
        ("a", "none", "Two years."), ("b", "none", "Two years."), ("c", "exact", "Three years."),
        ("d", "semantic", "Three years."),
    ):  # fmt: skip
        said.take(CALLER, ASKED, ChatAnswer(200, text, {"call_id": call, "cache": cache}))
    said.take(CALLER, ASKED, ChatAnswer(403, refused="e"))
    said.take(CALLER, ASKED, ChatAnswer(429))
    said.take(CALLER, "Who are you?", ChatAnswer(200, "I am.", {"call_id": "f", "cache": "none"}))
    said.send()
    again = Judgements(0, {"support": SUPPORT})  # after another start
    again.take(CALLER, ASKED, ChatAnswer(200, "Two years.", {"call_id": "g", "cache": "none"}))
    again.send()
    assert [tuple(each.values())[:3] for each in reported] == [
        ("a", "accuracy", False), ("a", "tone", True), ("a", None, False),
        ("d", "accuracy", True), ("d", "tone", True), ("d", None, True),
        ("e", "accuracy", False), ("e", None, False),
    ]  # fmt: skip


def test_what_is_not_in_the_ledger_yet_is_reported_later(reported: list[dict[str, Any]]) -> None:
    said = Judgements(0, {"support": SUPPORT})
    said.take(CALLER, ASKED, ChatAnswer(200, "Three years.", {"call_id": "unknown", "cache": "none"}))
    for _ in range(6):
        said.send()
    assert sorted(str(each["label"]) for each in reported if each) == ["None", "accuracy", "tone"]


def test_the_sheets_of_the_example_are_read(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert load_sheets(home) == {}
    home.workspace.write_text(f"{ROOT / 'examples/company'}\n")
    found = load_sheets(home)
    assert set(found["support-assistant"].judged) == {"accuracy", "tone"}
    assert set(found["finance-analytics"].judged) == {"accuracy", "traceability", "arithmetic"}
    assert all(each.reviewer not in each.askers for each in found.values()), "nobody releases their own"
    (tmp_path / "judging").mkdir()
    (tmp_path / "judging" / "x.json").write_text('{"about": 1}')
    home.workspace.write_text(f"{tmp_path}\n")
    with pytest.raises(ValueError, match="about"):
        load_sheets(home)
