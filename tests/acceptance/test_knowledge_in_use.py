"""Grounded answers and the evaluation of search on real processes: two versions of the rules for leave contradict
each other, answers say so and are checked, a model drafts questions, somebody accepts them, and search is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Stack, Upstream, wait_until
from tests.acceptance.test_promise_05_revoked import OWNERS, WORKLOAD, WORKSPACE

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
RULE = "Employees have {} days of paid leave a year. Leave is asked for in the portal of the staff, two weeks ahead."
TERM = """---
kind: term
name: leave
title: paid leave
meaning: Days off that are paid
synonyms: [PTO]
"""
GROUNDING = "grounding: {synonyms: true, rerank: {workload: sorting, deployment: sorter, within: 3s}}"
SORTER = """---
kind: deployment
name: sorter
type: rerank
site: here
model: scripted-sorter
upstream_model: scripted
url: URL
price: {input: 1 USD/Mtok, output: 0 USD/Mtok}
context: 32k
"""


def test_answers_cite_their_sources_and_search_is_evaluated(tmp_path: Path) -> None:
    upstream = Upstream(tmp_path / "upstream")
    workspace = tmp_path / "workspace"
    (workspace / "handbook").mkdir(parents=True)
    for year, days in ((2024, 25), (2026, 28)):
        file = workspace / "handbook" / f"leave-{year}.md"
        file.write_text(f"---\ntitle: Leave {year}\n---\n# Leave {year}\n\n{RULE.format(days)}\n")
    text = WORKSPACE.replace("URL", upstream.url) + WORKLOAD.format(
        name="asked", stage="pilot", owners=OWNERS, more=f"sources: [handbook]\n{GROUNDING}"
    )
    sorting = WORKLOAD.format(name="sorting", stage="pilot", owners=OWNERS, more="also: [sorter]")
    (workspace / "company.yaml").write_text(text + TERM + SORTER.replace("URL", upstream.url) + sorting)
    stack = Stack(tmp_path, workspace)
    try:
        upstream.start()
        stack.start(120)
        assert stack.control("POST", "/api/knowledge/ingest", {}).status == 200
        key = stack.key("asked", "--user", "ana@acme.example")
        check_grounded_answer(stack, upstream, key)
        check_evaluation(stack, upstream, tmp_path)
    finally:
        stack.stop()
        upstream.stop()


def check_grounded_answer(stack: Stack, upstream: Upstream, key: str) -> None:
    """A grounded answer names both sources, and each of its citations is checked."""
    upstream.control(mode="ok", say="Employees have 28 days of paid leave a year [1] [2]. Employees have 99 days [1].")

    def complete_facts() -> Any:
        candidate = stack.chat(key, "How many days of PTO do I have?", max_tokens=200).body["groundplan"]
        is_complete = (
            len(candidate["sources"]) == 2 and candidate.get("conflicts") and not candidate["steps"][0]["skipped"]
        )
        return candidate if is_complete else None

    facts = wait_until(complete_facts, 90, "the conflict is known")
    assert [(step["name"], step["deployment"]) for step in facts["steps"]] == [("rerank", "sorter")]
    (conflict,) = facts["conflicts"]
    assert {conflict["path"], conflict["other_path"]} == {"leave-2024.md", "leave-2026.md"}
    assert [citation["supported"] for citation in facts["citations"]].count(True) == 1, facts["citations"]
    assert facts["citations"][-1]["supported"] is False
    receipt = wait_until(
        lambda: (lambda body: body if body and body.get("citations") else None)(
            stack.control("GET", f"/api/calls/{facts['call_id']}").body
        ),
        30,
        "the receipt has the citations",
    )
    assert [row["supported"] for row in receipt["citations"]] == [
        citation["supported"] for citation in facts["citations"]
    ]


def check_evaluation(stack: Stack, upstream: Upstream, folder: Path) -> None:
    """Drafted questions count once a person has accepted them; a run is plotted and compared with the last one."""
    upstream.control(mode="ok", say="How many days of paid leave does an employee have?")
    file, plot = folder / "questions.jsonl", folder / "run.svg"
    options = ("--workload", "asked", "--as", "ana@acme.example", "--count", "2")
    assert len(stack.cli("knowledge", "draft", str(file), *options)["drafts"]) == 2
    stack.cli("knowledge", "evaluate", str(file), code=None)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["state"] for line in lines} == {"draft"}
    accepted = ("knowledge", "accept", str(file), "--by", "ana@acme.example")
    assert json.loads(stack_output(stack, *accepted))["accepted"] == 2
    first = stack.cli("knowledge", "evaluate", str(file), "--plot", str(plot))
    assert first["questions"] == 2 and first["by_sensitivity"]["internal"]["questions"] == 2 and first["last"] == {}
    assert "<svg" in plot.read_text() and "<svg" in plot.with_stem("run-parts").read_text()
    assert "ndcg@10" in stack.cli("knowledge", "evaluate", str(file))["last"]
    assert first["reranked"] == {"asked": 2, "skipped": 0}
    assert set(first["without_reranker"]) == {"ndcg@10", "recall@100", "mrr@10", "confidence", "p50_ms", "p95_ms"}
    calls = stack.control("GET", "/api/calls?workload=sorting").body["calls"]
    assert len(calls) >= 4 and {call["status"] for call in calls} == {"ok"}
    assert all(float(call["cost_usd"]) > 0 for call in calls)


def stack_output(stack: Stack, *arguments: str) -> str:
    """The output of a command that works on files and takes no HOME."""

    completed = subprocess.run(
        [sys.executable, "-m", "groundplan.cli.main", *arguments, "--json"], capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout
