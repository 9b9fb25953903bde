"""The page of searches: what was put in order by a deployment, and what was to be and was not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from groundplan.console.render import templates
from groundplan.knowledge.retrieval.wire import Passage, SearchAnswer, Step

STEP = Step(name="rerank", deployment="sorter", passages=30, ms=41.5)


def shown(*steps: Step, passages: Sequence[Passage] = ()) -> str:
    result: dict[str, Any] = msgspec.to_builtins(SearchAnswer(passages=list(passages), steps=list(steps)))
    template = templates.get_template("knowledge_search.html")
    block = "".join(template.blocks["main"](template.new_context({
        "names": ["asked"], "workload": "asked", "q": "leave", "search_problem": "", "result": result,
        "reasons": {}, "csrf": "c", "tab": "search", "call": "", "session": {"duties": [], "operator": True},
        "sees_all": True,
    })))  # fmt: skip
    return " ".join(re.sub(r"<[^>]*>", " ", block).split())


def test_steps_are_told() -> None:
    assert "sorter reranked 30 passages" in shown(STEP)
    late = shown(msgspec.structs.replace(STEP, skipped="no answer came within 0.5 s"))
    assert "not reranked sorter was asked to rerank 30 passages: no answer came within 0.5 s." in late
    assert "rerank" not in shown()


def test_each_result_says_what_its_score_is_for() -> None:
    found = Passage(
        document="d", path="a.md", title="Leave", source="s", start_line=1, end_line=2, text="Leave is 28 days.",
        score=0.9, chunk="c", similarity=0.5, words=["leave", "days"],
    )  # fmt: skip
    told = shown(passages=[found])
    assert "score 0.9000: contains leave , days ; similarity 0.5000; its surroundings count, too" in told
    bare = msgspec.structs.replace(found, words=[], overdue=True, similarity=None)
    assert "halved because its review is overdue: contains no word of the question; its surroundings" in shown(
        passages=[bare]
    )


def test_an_answer_of_the_playground_leads_to_its_passages_and_a_refusal_to_none() -> None:
    def asked(**result: Any) -> str:
        template = templates.get_template("playground.html")
        values: dict[str, Any] = {
            "asked": {"workload": "asked", "question": "a & b?"},
            "names": ["asked"],
            "sees_all": True,
            "who": "ana",
            "csrf": "c",
        }
        values |= {
            "result": {
                "call_id": "c1",
                "usage": {"prompt_tokens": 3, "completion_tokens": 2},
                "why": [],
                "attempts": 1,
                **result,
            },
            "problem": None,
        }
        return "".join(template.blocks["main"](template.new_context(values)))

    passage = {"title": "Leave", "path": "l.md", "source": "s", "start_line": 1, "end_line": 2, "text": "28 days"}
    facts = {"deployment": "one", "site": "here", "cost_usd": "0", "estimated": False, "cache": "none",
             "budget_remaining_usd": "1", "sources": [passage]}  # fmt: skip
    link = "/knowledge/search?workload=asked&amp;q=a%20%26%20b%3F&amp;call=c1"
    page = asked(status=200, answer="28", facts=facts)
    assert link in page or link.replace("%20", "+") in page
    refused = asked(status=403, answer=None, facts={}, error={"message": "no", "code": "x", "hint": ""})
    assert "/knowledge/search" not in refused
