"""`groundplan erase`: requests the erasure of a person; a signed receipt lists what was erased and what was kept, and
why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.files import read_argument_text
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class ErasureOptions:
    """The person to erase, the reason, and the extent."""

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
class OtherActions:
    """Other actions of the command, instead of requesting an erasure."""

    request: Annotated[str | None, typer.Option("--request", help="ID of an earlier request: show its state.")] = None
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the signed receipt to this file.")] = None
    verify: Annotated[Path | None, typer.Option("--verify", help="Verify this receipt instead.")] = None
    hold: Annotated[
        bool, typer.Option("--hold", help="Place the kept content of the person's calls under a legal hold.")
    ] = False
    end_hold: Annotated[bool, typer.Option("--end-hold", help="End that legal hold.")] = False


@grouped
def erase(options: ErasureOptions, other: OtherActions, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Request the erasure of a person from documents, kept calls, reviews, caches, files and their account.

    Somebody with the duty compliance must confirm it in the console; `--request ID --receipt FILE` then gives the
    signed receipt. What is under a legal hold stays, and so do records that must be kept: approvals, and the books.
    """
    client = ControlClient.connect(home)
    if other.verify is not None:
        value, text = _verify_receipt(client, other.verify)
    elif other.request is not None:
        value, text = _show_request(client, other.request, other.receipt)
    elif options.person is None or not options.reason:
        raise Invalid(
            "the person to erase and the reason are missing", code="usage", hint="Give --person and --reason."
        )
    elif other.hold or other.end_hold:
        value, text = _set_legal_hold(client, options.person, options.reason, end=other.end_hold)
    else:
        value, text = _request_erasure(client, options)
    emit(value, as_json, text)


def _verify_receipt(client: ControlClient, receipt: Path) -> tuple[Any, str]:
    content = read_argument_text(receipt, code="receipt", hint="Give the file of the receipt.")
    value = client.post("/api/erasures/verify", {"receipt": content})
    return value, f"The signature is valid. {_result_table(value['receipt'])}"


def _show_request(client: ControlClient, request: str, receipt: Path | None) -> tuple[Any, str]:
    """State of an earlier request; writes its receipt to the file `receipt` if there is one."""
    value = client.get(f"/api/erasures/{request}")
    if receipt is not None and value["receipt"]:
        receipt.write_text(value["receipt"], encoding="utf-8")
    return value, f"It is {value['state']}." + ("\n" + _result_table(value) if value["state"] == "waiting" else "")


def _set_legal_hold(client: ControlClient, person: str, reason: str, *, end: bool) -> tuple[Any, str]:
    client.post(f"/api/people/{quote(person, safe='')}/hold", {"reason": reason, "end": end})
    return {"person": person, "held": not end}, f"The legal hold {'ended' if end else 'is set'}."


def _request_erasure(client: ControlClient, options: ErasureOptions) -> tuple[Any, str]:
    body = {
        "person": options.person, "also": options.also or [], "reason": options.reason,
        "keep_documents": options.keep_documents, "dry_run": options.dry_run,
    }  # fmt: skip
    value = client.post("/api/erasures", body)
    if options.dry_run:
        return value, f"{_result_table(value)}\nNothing was requested."
    table_ = _result_table(value)
    return value, (
        f"{table_}\nRequested. Somebody with the duty compliance must confirm it under Governance, Erasures; "
        f"then: groundplan erase --request {value['id']} --receipt FILE"
    )


def _result_table(value: dict[str, Any]) -> str:
    """Table of what an erasure erases and what it keeps."""
    rows = [("goes", *_result_row(item)) for item in value["erased"]] + [
        ("stays", *_result_row(item)) for item in value["kept"]
    ]
    return table(("", "what", "how many", "", "which"), rows) if rows else "Nothing was found."


def _result_row(item: dict[str, Any]) -> tuple[str, str, str, str]:
    return item["what"], str(item["count"]), item["why"], ", ".join(item["names"][:5])
