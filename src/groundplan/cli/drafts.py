"""`groundplan knowledge draft|accept`: evaluation questions that a model drafts from documents and a person accepts.

Drafts are requested from the gateway like any other call: with the permissions of the named person, charged to the
workload. They are not used in evaluations before they are accepted.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.api.calls.ask import ask_once
from groundplan.cli.ask import temporary_key
from groundplan.cli.client import ControlClient
from groundplan.cli.documents import list_documents
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, note
from groundplan.core.errors import Invalid

_TOKENS = 80


def register(app: typer.Typer) -> None:
    """Add these commands to `groundplan knowledge`."""
    app.command()(draft)
    app.command()(accept)


def draft(
    file: Annotated[Path, typer.Argument(help="New JSON Lines file for the drafts.")],
    workload: Annotated[
        str, typer.Option("--workload", help="Workload whose sources are used and whose budget is charged.")
    ],
    person: Annotated[str, typer.Option("--as", help="E-mail address of the person whose permissions apply.")],
    count: Annotated[int, typer.Option("--count", min=1, max=200, help="Number of questions.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed for the choice of documents.")] = 1,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft evaluation questions from documents with the workload's model, for a person to check."""
    from groundplan.knowledge.evaluation import draft as drafting  # noqa: PLC0415 -- only here

    if file.exists() or not file.parent.is_dir():
        state = "exists already" if file.exists() else "is in a folder that does not exist"
        raise Invalid(f"{file} {state}", code="drafts_file", hint="Name a new file.")
    client = ControlClient.connect(home)
    documents = _approved_documents(client, workload)
    random.Random(seed).shuffle(documents)
    gateway = client.gateway_url()
    drafts: list[dict[str, Any]] = []
    refused = 0
    with temporary_key(client, workload, person) as key:
        for document in documents:
            passage = _readable_passage(gateway, key, document)
            if passage is None:
                continue
            answer = ask_once(gateway, key, workload, drafting.draft_prompt(passage), max_tokens=_TOKENS)
            question = drafting.parse_question(str(answer["choices"][0]["message"]["content"] or ""))
            if question is None:
                refused += 1
            else:
                drafts.append(drafting.draft_line(question, passage, person, workload))
            if len(drafts) == count:
                break
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in drafts)
    try:
        file.write_text(lines, encoding="utf-8")
    except OSError as error:
        raise Invalid(
            f"{file} cannot be written: {error.strerror}", code="drafts_file", hint="Name a file in a writable folder."
        ) from error
    if refused:
        note(f"{refused} answers of the model were not questions")
    message = (
        f"{len(drafts)} drafts are in {file}. Read them, correct or delete lines, then `groundplan knowledge accept`."
    )
    emit({"drafts": drafts, "refused": refused, "file": str(file)}, as_json, message)


def accept(
    file: Annotated[Path, typer.Argument(help="File with the drafts.")],
    by: Annotated[str, typer.Option("--by", help="E-mail address of the person who has read them.")],
    numbers: Annotated[
        list[int] | None, typer.Option("--line", help="Only this line, counted from 1. Repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Accept drafts that a person has read; `groundplan knowledge evaluate` asks them from then on."""
    from groundplan.knowledge.evaluation.draft import accept_drafts as accept_drafts  # noqa: PLC0415 -- only here

    count = accept_drafts(file, numbers or [], by)
    emit({"accepted": count, "file": str(file)}, as_json, f"{count} questions of {file} are accepted by {by}")


def _approved_documents(client: ControlClient, workload: str) -> list[dict[str, Any]]:
    """Approved documents of the workload's sources. Raises `Invalid` (no_sources)."""
    workload_json = client.get(f"/api/workloads/{workload}")
    sources = workload_json.get("sources") or workload_json.get("workload", {}).get("sources") or []
    if not sources:
        raise Invalid(f"{workload} has no sources", code="no_sources", hint="Declare sources in its workload.")
    return [row for source in sources for row in list_documents(client, source=source, state="approved")]


def _readable_passage(gateway: str, key: str, document: dict[str, Any]) -> Any:
    """A passage of the document that the person of the key may read; None if search returns none."""
    from groundplan.knowledge.evaluation.draft import MIN_CHARS, Passage  # noqa: PLC0415 -- only here

    search_query = {"query": document["title"] or document["path"], "passages": 10}
    reply = ControlClient(gateway.removesuffix("/v1"), key).post("/api/knowledge/search", search_query)
    for passage in reply["passages"]:
        if passage["document"] == document["id"] and len(passage["text"]) >= MIN_CHARS:
            return Passage(
                f"{passage['source']}/{passage['path']}", passage["start_char"], passage["end_char"], passage["text"]
            )
    return None
