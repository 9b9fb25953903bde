"""What a call to put documents in order costs: by the searches that are billed, else by the most that they can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_stack import deployment
from tests.unit.call_rig import call_rig
from tests.unit.raw_upstream import post as post

from groundplan.blueprint.model import Deployment, Guardrails, Rates
from groundplan.core.money import PICO
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.rerank import RERANK

CENT = PICO // 100
SORTER = deployment("sorter", 1, kind="rerank", rates=Rates(input=0, output=0, request=CENT))


def read_ask(*documents: str) -> Ask:
    body = {"model": "sorter", "query": "q", "documents": documents}
    return RERANK.read(Request(0.0, body=json.dumps(body).encode()))


def charged(place: Deployment, ask: Ask, **answer: Any) -> int:
    told = {"results": [{"index": 0, "relevance_score": 1.0}], **answer}
    usage = RERANK.codec(place).parse_answer(json.dumps(told).encode(), ask).usage
    assert usage is not None
    return RERANK.cost(ask, place, usage)


@pytest.mark.parametrize(("units", "times"), [(1, 1), (1.0, 1), (1.2, 2), (3, 3), (0, 2), (-1, 2), (None, 2)])
def test_the_searches_that_are_billed_are_charged(units: float | None, times: int) -> None:
    """Of 100 documents with 600 bytes each no more than 200 pieces have 500 tokens, and mostly 100."""
    ask = read_ask(*["x" * 600] * 100)
    assert RERANK.cost_bound(ask, SORTER, 0, 0) == 2 * CENT
    assert charged(SORTER, ask, meta={"billed_units": {"search_units": units}}) == times * CENT
    assert charged(SORTER, ask) == charged(SORTER, ask, meta=None) == 2 * CENT


def test_tokens_are_charged_beside_the_searches() -> None:
    both = deployment("both", 1, kind="rerank", rates=Rates(input=PICO, output=0, request=CENT))
    ask = read_ask(*["x" * 600] * 100)
    cost = charged(both, ask, usage={"total_tokens": 7}, meta={"billed_units": {"search_units": 1}})
    assert cost == CENT + 7 * PICO // 1_000_000


@pytest.mark.parametrize("usage", [None, {"total_tokens": 0}, {"prompt_tokens": 0}])
def test_where_no_token_is_told_nothing_is(usage: dict[str, int] | None) -> None:
    place = deployment("both", 1, kind="rerank", rates=Rates(input=PICO, output=0))
    answer = {"results": [{"index": 0, "relevance_score": 1.0}], "usage": usage}
    assert RERANK.codec(place).parse_answer(json.dumps(answer).encode(), read_ask("x")).usage is None


def test_a_document_counts_with_its_query() -> None:
    """Cohere splits what has more than 500 tokens with the query, and bills each piece."""
    body = {"model": "sorter", "query": "q" * 300, "documents": ["x" * 400] * 100}
    ask = RERANK.read(Request(0.0, body=json.dumps(body).encode()))
    assert RERANK.cost_bound(ask, SORTER, 0, 0) == 2 * CENT


FIRST, SECOND = {"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.5}


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"object": "list", "data": [FIRST, SECOND], "usage": {"total_tokens": 57}}, 57),
        ([{"score": 0.75, "document": "b", "index": 1, "meta_info": {"prompt_tokens": 7}},
          {"score": 0.5, "document": "a", "index": 0, "meta_info": {"prompt_tokens": 9}}], 16),
        ([{"score": 0.75, "index": 1, "meta_info": {"prompt_tokens": 7}}, {"score": 0.5, "index": 0}], None),
        ({"results": [SECOND, FIRST], "usage": {"prompt_tokens": 58}, "object": "list"}, 58),
        ({"results": [FIRST, SECOND], "meta": {"billed_units": {"total_tokens": 9}, "tokens": {}}}, 9),
        ({"results": [FIRST, SECOND], "meta": {"billed_units": None, "tokens": {"input_tokens": 8}}}, 8),
        ({"results": [FIRST, SECOND], "meta": {"billed_units": {"input_tokens": 6}, "tokens": {"input_tokens": 8}}}, 6),
        ({"results": [FIRST, SECOND], "meta": {"tokens": {"input_tokens": -8}}}, None),
    ],
)  # fmt: skip
def test_answers_of_voyage_sglang_localai_litellm_and_xinference(told: Any, tokens: int | None) -> None:
    """Each is what Cohere's and Jina's clients read, and costs what was read for it."""
    place = deployment("both", 1, kind="rerank", rates=Rates(input=PICO, output=0))
    found = RERANK.codec(place).parse_answer(json.dumps(told).encode(), read_ask("a", "b"))
    results = json.loads(found.data)["results"]
    assert [{name: each[name] for name in FIRST} for each in results] == [FIRST, SECOND]
    assert (found.usage.input if found.usage is not None else None) == tokens
    if isinstance(told, dict):
        kept = {name: value for name, value in told.items() if name != "results"}
        assert json.loads(found.data).items() >= kept.items(), "Voyage's own client reads `data`"
    elif "document" in told[0]:
        assert results[0]["document"] == {"text": "b"}


@pytest.mark.parametrize(
    "told", [[], {}, {"data": None}, {"data": []}, [{"index": 2, "score": 1}], {"data": [{"index": 0}]}, [{"index": 0}]]
)
def test_no_answer_is_made_of_anything_else(told: Any) -> None:
    with pytest.raises(Malformed):
        RERANK.codec(SORTER).parse_answer(json.dumps(told).encode(), read_ask("a", "b"))


def test_no_more_is_told_than_was_asked_for() -> None:
    body = json.dumps({"model": "sorter", "query": "q", "documents": ["a", "b"], "top_n": 1}).encode()
    told = json.dumps({"results": [SECOND, FIRST], "usage": {"total_tokens": 9}}).encode()
    found = RERANK.codec(SORTER).parse_answer(told, RERANK.read(Request(0.0, body=body)))
    assert json.loads(found.data) == {"results": [FIRST], "usage": {"total_tokens": 9}}


def test_voyage_is_asked_in_its_words() -> None:
    """It refuses `top_n`."""
    body = {"model": "sorter", "top_n": 2, "query": "q", "documents": ["a", "b"]}
    ask = RERANK.read(Request(0.0, body=json.dumps(body).encode()))
    for url, name in (("https://api.voyageai.com/v1", "top_k"), ("https://api.jina.ai/v1", "top_n")):
        place = msgspec.structs.replace(SORTER, url=url)
        sent = json.loads(RERANK.codec(place).request_body(ask, place, 0, []))
        assert sent == {"model": "up-sorter", name: 2, "query": "q", "documents": ["a", "b"]}


def test_an_instruction_counts_with_each_document() -> None:
    body = {"model": "sorter", "query": "q", "documents": ["x"] * 3, "instruct": "i" * 98, "top_n": 2}
    ask = RERANK.read(Request(0.0, body=json.dumps(body).encode()))
    assert ask.size == len(ask.body) + 2 * 101


def test_what_a_language_model_puts_around_each_pair_is_reserved_for() -> None:
    """Qwen3 reads 72 tokens beside a query and a document, also where those are a word each."""
    place, ask = deployment("both", 1, kind="rerank", rates=Rates(input=PICO, output=0)), read_ask(*["x"] * 100)
    read = {"prompt_tokens": 100 * (72 + 2), "total_tokens": 100 * (72 + 2)}
    assert charged(place, ask, usage=read) <= RERANK.cost_bound(ask, place, 0, 0)
    assert RERANK.token_bound(ask, SORTER, 0, 0) == len(ask.body) + 99 + 16 * 102, "at a price by request they are free"
    assert RERANK.token_bound(ask, place, 0, 0) == len(ask.body) + 99 + 128 * 100 + 16 * 2


async def test_masked_documents_come_back_as_they_were_sent(tmp_path: Path) -> None:
    rules = Guardrails(input={"personal_data": "mask"}, budget_ms=10_000)
    workloads = {"assistant": {"also": ["one"], "guardrails": rules}}
    async with call_rig(tmp_path, ("one",), more={"one": {"kind": "rerank"}}, workloads=workloads) as rig:
        sent = ["write to ana@acme.example", "no", {"text": "t", "author": "ana@acme.example"}]
        asked = {"model": "auto", "query": "write", "documents": sent, "return_documents": True}
        reply = await post(rig, "/v1/rerank", asked)
        assert reply.json["results"][0]["document"] == {"text": sent[0]}, reply.body
        seen = rig.models["one"].last
        assert seen is not None and b"ana@" not in seen.body and seen.body.count(b"<email_1>") == 2
