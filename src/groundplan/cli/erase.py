"""`groundplan erase`: one request to erase a person, with a signed receipt of what went and what stayed and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.files import read_given_text
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to erase, why, and how far."""

    person: Annotated[str | None, typer.Option("--person", help="E-mail address of the person to erase.")] = None
    also: Annotated[
        list[str] | None, typer.Option("--also", help="Another text that identifies the person. Repeatable.")
    ] = None
    reason: Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the audit log.")] = ""
    keep_documents: Annotated[
        bool, typer.Option("--keep-documents", help="Keep documents that mention the person.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be erased and what would stay.")] = False


@dataclass(frozen=True, slots=True)
class Instead:
    """What else can be asked about an erasure."""

    request: Annotated[str | None, typer.Option("--request", help="ID of an earlier request: show its state.")] = None
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the signed receipt to this file.")] = None
    verify: Annotated[Path | None, typer.Option("--verify", help="Verify this receipt instead.")] = None
    hold: Annotated[
        bool, typer.Option("--hold", help="Place the kept content of the person's calls under a legal hold.")
    ] = False
    end_hold: Annotated[bool, typer.Option("--end-hold", help="End that legal hold.")] = False


@grouped
def erase(asked: Asked, instead: Instead, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Request the erasure of a person from documents, kept calls, reviews, caches, files and their account.

    Somebody with the duty compliance must confirm it in the console; `--request ID --receipt FILE` then gives the
    signed receipt. What is under a legal hold stays, and so do records that must be kept: approvals, and the books.
    """
    client = ControlClient.connect(home)
    if instead.verify is not None:
        value, text = _verified(client, instead.verify)
    elif instead.request is not None:
        value, text = _standing(client, instead.request, instead.receipt)
    elif asked.person is None or not asked.reason:
        raise Invalid(
            "the person to erase and the reason are missing", code="usage", hint="Give --person and --reason."
        )
    elif instead.hold or instead.end_hold:
        value, text = _held(client, asked.person, asked.reason, end=instead.end_hold)
    else:
        value, text = _requested(client, asked)
    emit(value, as_json, text)


def _verified(client: ControlClient, receipt: Path) -> tuple[Any, str]:
    given = read_given_text(receipt, code="receipt", hint="Give the file of the receipt.")
    found = client.post("/api/erasures/verify", {"receipt": given})
    return found, f"The signature is valid. {_told(found['receipt'])}"


def _standing(client: ControlClient, request: str, receipt: Path | None) -> tuple[Any, str]:
    """How a request stands; its receipt is written where there is one."""
    found = client.get(f"/api/erasures/{request}")
    if receipt is not None and found["receipt"]:
        receipt.write_text(found["receipt"], encoding="utf-8")
    return found, f"It is {found['state']}." + ("\n" + _told(found) if found["state"] == "waiting" else "")


def _held(client: ControlClient, person: str, reason: str, *, end: bool) -> tuple[Any, str]:
    client.post(f"/api/people/{quote(person, safe='')}/hold", {"reason": reason, "end": end})
    return {"person": person, "held": not end}, f"The legal hold {'ended' if end else 'is set'}."


def _requested(client: ControlClient, asked: Asked) -> tuple[Any, str]:
    body = {
        "person": asked.person, "also": asked.also or [], "reason": asked.reason,
        "keep_documents": asked.keep_documents, "dry_run": asked.dry_run,
    }  # fmt: skip
    value = client.post("/api/erasures", body)
    if asked.dry_run:
        return value, f"{_told(value)}\nNothing was requested."
    return value, (
        f"{_told(value)}\nRequested. Somebody with the duty compliance must confirm it under Governance, Erasures; "
        f"then: groundplan erase --request {value['id']} --receipt FILE"
    )


def _told(value: dict[str, Any]) -> str:
    rows = [("goes", *_row(one)) for one in value["erased"]] + [("stays", *_row(one)) for one in value["kept"]]
    return table(("", "what", "how many", "", "which"), rows) if rows else "Nothing was found."


def _row(one: dict[str, Any]) -> tuple[str, str, str, str]:
    return one["what"], str(one["count"]), one["why"], ", ".join(one["names"][:5])
