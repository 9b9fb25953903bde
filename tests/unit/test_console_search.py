"""The page of searches: what was put in order by a deployment, and what was to be and was not."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.console.render import templates
from groundplan.knowledge.retrieval.wire import SearchAnswer, Step

STEP = Step(name="rerank", deployment="sorter", passages=30, ms=41.5)


def shown(*steps: Step) -> str:
    result: dict[str, Any] = msgspec.to_builtins(SearchAnswer(passages=[], steps=list(steps)))
    template = templates.get_template("knowledge_search.html")
    block = "".join(template.blocks["main"](template.new_context({
        "names": ["asked"], "workload": "asked", "q": "leave", "told": "", "result": result, "reasons": {}, "csrf": "c",
        "tab": "search",
    })))  # fmt: skip
    return " ".join(re.sub(r"<[^>]*>", " ", block).split())


def test_steps_are_told() -> None:
    assert "sorter put 30 passages in order" in shown(STEP)
    late = shown(msgspec.structs.replace(STEP, skipped="no answer came within 0.5 s"))
    assert "not put in order sorter was asked for the order of 30 passages: no answer came within 0.5 s." in late
    assert "put" not in shown()
