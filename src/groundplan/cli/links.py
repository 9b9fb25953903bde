"""`groundplan knowledge share|links|unshare|open`: documents that are shared by link."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.documents import Document, Reason, document_id
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

_DAYS = 14


def register(app: typer.Typer) -> None:
    """Add these commands to `groundplan knowledge`."""
    for command in (share, links, unshare):
        app.command()(command)
    app.command("open")(open_link)


def share(
    which: Document,
    reason: Reason,
    until: Annotated[
        str, typer.Option("--until", help=f"Last day (YYYY-MM-DD, UTC); {_DAYS} days from now unless said.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Share a document by a link: anyone who is signed in and opens it may read the document from then on."""
    client = ControlClient.connect(home)
    last = until or (datetime.now(UTC).date() + timedelta(days=_DAYS)).isoformat()
    value = client.post(
        f"/api/knowledge/documents/{document_id(client, which)}/links", {"until": last, "reason": reason}
    )
    emit(
        value,
        as_json,
        f"link {value['name']} is valid until {value['until']}. It is shown only once:\n{value['word']}\n"
        f"Opened with `groundplan knowledge open {value['word']}`, or in the console under Knowledge, Search.",
    )


def links(which: Document, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The links of a document, and who has opened them."""
    client = ControlClient.connect(home)
    value = client.get(f"/api/knowledge/documents/{document_id(client, which)}/links")
    rows = [
        (
            row["name"],
            "holds" if row["holds"] else "withdrawn" if row["withdrawn_at"] else "over",
            row["until"] or "",
            row["made_by"] or "the operator",
            ", ".join(row["opened_by"]) or "nobody yet",
            row["reason"],
        )
        for row in value["links"]
    ]
    heads = ("link", "", "until", "made by", "opened by", "why")
    emit(value, as_json, table(heads, rows) if rows else "It is not shared by link.")


def unshare(
    which: Document,
    name: Annotated[str, typer.Argument(help="Name of the link, from `groundplan knowledge links`.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a link. It grants nothing from the next query on."""
    client = ControlClient.connect(home)
    value = client.post(f"/api/knowledge/documents/{document_id(client, which)}/links/{name}/withdraw", {})
    emit(value, as_json, f"link {name} is withdrawn; it grants nothing from now on")


def open_link(
    word: Annotated[str, typer.Argument(help="The link, as you received it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a link as yourself."""
    value = ControlClient.connect(home).post("/api/knowledge/links/open", {"word": word})
    emit(value, as_json, f"you may read {value['source']}/{value['path']}: search finds it from now on")
