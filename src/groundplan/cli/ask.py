"""`groundplan ask`: one question to a workload through the gateway's OpenAI API, as one of its people.

The key is made for this question, carries that person's permissions and is revoked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from groundplan.api.calls.ask import ask_once
from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, usd
from groundplan.core.errors import Invalid
from groundplan.knowledge.retrieval.wire import NOT_GIVEN


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    workload: Annotated[str, typer.Option("--workload", help="Workload to ask.")],
    person: Annotated[str | None, typer.Option("--as", help="E-mail address of the person who asks.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Maximum tokens of the answer.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question, and show what the answer rests on and what it cost."""
    if not question.strip():
        raise Invalid("the question is empty", code="question_empty", hint='Write it in quotes: groundplan ask "..."')
    client = ControlClient.connect(home)
    gateway = client.gateway_url()
    with temporary_key(client, workload, person) as key:
        value = ask_once(gateway, key, workload, question, max_tokens=max_tokens)
    emit(value, as_json, answer_text(value))


@contextmanager
def temporary_key(client: ControlClient, workload: str, person: str | None) -> Iterator[str]:
    """A key for one question; revoked at the end."""
    created = client.post("/api/keys", {"workload": workload, "user": person, "days": 1})
    try:
        yield str(created["key"])
    finally:
        client.delete(f"/api/keys/{created['id']}")


def answer_text(value: dict[str, Any]) -> str:
    """The answer with its passages and its receipt, for people."""
    facts = value.get("groundplan") or {}
    lines = [str(value["choices"][0]["message"]["content"]).strip(), ""]
    for source in facts.get("sources") or ():
        lines.append(f"  from {source_place(source)}")
    lines += _warnings(facts, str(value["choices"][0]["message"]["content"]))
    by = f"{facts.get('model')} at {facts.get('site')}"
    if facts.get("abstained") and not facts.get("model"):
        by = "nothing reached the workload's floor, so no model was asked"
    lines.append(f"  {by}, {usd(facts.get('cost_usd'))}, call {facts.get('call_id')}")
    return "\n".join(lines)


def _warnings(facts: dict[str, Any], answer: str) -> list[str]:
    """Lines about unsupported citations, documents that contradict each other, and replaced documents."""
    lines = [
        f"  [{citation['passage']}] does not support: {answer[citation['start'] : citation['end']]}"
        for citation in facts.get("citations") or ()
        if citation["supported"] is False
    ]
    for conflict in facts.get("conflicts") or ():
        lines.append(
            f"  contradiction: {conflict['path']} says '{conflict['says']}', "
            f"{conflict['other_path']} '{conflict['other_says']}'"
        )
    for replaced in facts.get("newer") or ():
        reason = NOT_GIVEN.get(replaced.get("reason", ""))
        suffix = f", which {reason}" if reason else ""
        lines.append(f"  {replaced['path']} was not used: {replaced['newer_path']} is newer{suffix}")
    return lines


def source_place(source: dict[str, Any]) -> str:
    """`path, lines 3-7` of a cited passage."""
    return f"{source.get('path')}, lines {source.get('start_line')}-{source.get('end_line')}"
