"""`groundplan erase`: one request to erase a person, with a signed receipt of what went and what stayed and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid


def erase(
    person: Annotated[str | None, typer.Option("--person", help="E-mail address of whom to erase.")] = None,
    also: Annotated[list[str] | None, typer.Option("--also", help="Another text that names them; repeat it.")] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it is in the audit log.")] = "",
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the signed receipt to this file.")] = None,
    keep_documents: Annotated[bool, typer.Option("--keep-documents", help="Documents that name them stay.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and what would stay.")] = False,
    request: Annotated[str | None, typer.Option("--request", help="Of this earlier request: how it stands.")] = None,
    verify: Annotated[Path | None, typer.Option("--verify", help="Check a receipt instead.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Put what is kept of their calls under a legal hold.")] = False,
    end_hold: Annotated[bool, typer.Option("--end-hold", help="End that hold.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a person to be erased from documents, kept calls, reviews, caches, files and their account.

    It waits for somebody with the duty compliance to confirm it in the console; then `--request ID --receipt FILE`
    gives the signed receipt. What a legal hold keeps stays, and so does what must: who approved something, the books.
    """
    client = ControlClient.connect(home)
    if verify is not None:
        found = client.post("/api/erasures/verify", {"receipt": _text(verify)})
        emit(found, as_json, f"The signature holds. {_told(found['receipt'])}")
        return
    if request is not None:
        found = client.get(f"/api/erasures/{request}")
        if receipt is not None and found["receipt"]:
            receipt.write_text(found["receipt"], encoding="utf-8")
        emit(found, as_json, f"It is {found['state']}." + ("\n" + _told(found) if found["state"] == "waiting" else ""))
        return
    if person is None or not reason:
        raise Invalid("whom to erase, and why, is needed", code="usage", hint="Give --person and --reason.")
    if hold or end_hold:
        client.post(f"/api/people/{quote(person, safe='')}/hold", {"reason": reason, "end": end_hold})
        emit({"person": person, "held": hold}, as_json, f"The legal hold {'ended' if end_hold else 'stands'}.")
        return
    body = {
        "person": person, "also": also or [], "reason": reason, "keep_documents": keep_documents, "dry_run": dry_run,
    }  # fmt: skip
    value = client.post("/api/erasures", body)
    asked = (
        "Nothing was asked for."
        if dry_run
        else (
            f"Asked. Somebody with the duty compliance confirms it under Governance, Erasures; "
            f"then: groundplan erase --request {value['id']} --receipt FILE"
        )
    )
    emit(value, as_json, f"{_told(value)}\n{asked}")


def _told(value: dict[str, Any]) -> str:
    rows = [("goes", *_row(one)) for one in value["erased"]] + [("stays", *_row(one)) for one in value["kept"]]
    return table(("", "what", "how many", "", "which"), rows) if rows else "Nothing was found."


def _row(one: dict[str, Any]) -> tuple[str, str, str, str]:
    return one["what"], str(one["count"]), one["why"], ", ".join(one["names"][:5])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} cannot be read", code="receipt", hint="Give the file of the receipt.") from error
