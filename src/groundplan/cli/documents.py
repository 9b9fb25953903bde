"""`groundplan knowledge sources|documents|findings|...`: lists content with its properties and findings, and records
decisions."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.files import read_argument_file
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid
from groundplan.core.words import quantity

Reason = Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the audit log.")]
Document = Annotated[str, typer.Argument(metavar="DOCUMENT", help="ID of the document, or SOURCE/PATH.")]
TEXT_SUFFIXES = frozenset({".md", ".txt", ".html", ".csv", ".json"})


def register(app: typer.Typer) -> None:
    """Add these commands to `groundplan knowledge`."""
    for command in (
        sources,
        documents,
        document,
        access,
        findings,
        decide,
        delete,
        deletions,
        readmit,
        held,
        lineage,
        mentions,
        push,
    ):
        app.command()(command)


def sources(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Sources with their health, owners, quality and open findings."""
    value = ControlClient.connect(home).get("/api/knowledge/sources")
    rows = [
        (
            row["name"], row["type"], row["health"], row["owner"], row["documents"], row["kept_back"],
            "-" if row["quality"] is None or not (row["documents"] or row["findings"]) else f"{row['quality']:.0%}",
            row["findings"],
            _progress_text(row["progress"]) or row["health_reason"] or "",
        )
        for row in value["sources"]
    ]  # fmt: skip
    heads = ("source", "type", "health", "owner", "documents", "kept back", "quality", "findings", "")
    emit(value, as_json, table(heads, rows) if rows else "No source is declared.")


def _progress_text(progress: dict[str, Any] | None) -> str:
    """The progress of a running ingestion of a source; empty if none is running."""
    if not progress or not progress.get("running"):
        return ""
    total = f" of about {progress['of']}" if progress.get("of") else ""
    return f"reading: {progress['read']}{total}, {progress['failed']} cannot be read"


def documents(
    source: Annotated[str | None, typer.Option("--source", help="Only documents of this source.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="approved, draft, rejected, superseded, retired, not_yet_valid, expired, 'kept back' or deleted.",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only documents with this text in title or path.")] = None,
    holds: Annotated[
        str | None, typer.Option("--holds", help="personal_data: only public or internal documents that hold some.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List documents with their state, owner and quality, never their text."""
    filters = {"source": source, "state": state, "text": text, "holds": holds}
    value = {"documents": list(list_documents(ControlClient.connect(home), **filters))}
    rows = [
        (
            f"{row['source']}/{row['path']}", row["standing"].replace("_", " "), row["sensitivity"] or "",
            row["owner"] or "nobody", ", ".join(row["readers"]),
            "-" if row["quality"] is None else f"{row['quality']:.0%}",
        )
        for row in value["documents"]
    ]  # fmt: skip
    head = ("document", "state", "sensitivity", "owner", "readers", "quality")
    emit(value, as_json, table(head, rows, "No document matches."))


def document(which: Document, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a document with its properties and their origins, its readers, and the answers that used it."""
    client = ControlClient.connect(home)
    value = client.get(f"/api/knowledge/documents/{document_id(client, which)}")
    details = value["document"]
    lines = [f"{details['title']} ({details['source']}/{details['path']}), version {details['version']}"]
    if value["newer"]:
        lines.append(f"a newer version exists: {value['newer']['source']}/{value['newer']['path']}")
    names = ("state", "sensitivity", "owner", "steward", "purposes", "workloads", "residency", "licence", "valid_from",
             "valid_until", "review_by", "retain_until", "legal_hold")  # fmt: skip
    rows = [
        (name, _format_value(details[name]), details["origins"].get(name, {}).get("from", ""))
        for name in names
        if details[name] not in (None, False, [])
    ]
    lines.append(table(("what", "value", "from"), rows))
    lines += [f"{row['workload']}: {row['kept_back'] or 'may be given it'}" for row in value["workloads"]]
    lines += [f"{row['severity']}: {row['message']}" for row in value["findings"]]
    lines += [f"kept by a legal hold: version {row['version'] or '-'}, {row['cause']}" for row in value["kept"]]
    count = f"{'more than ' if value['more_people'] else ''}{len(value['people'])}"
    people = "person" if count == "1" else "people"
    lines.append(f"{quantity(len(value['used_by']), 'answer')} used it; {count} {people} may read it")
    emit(value, as_json, "\n".join(lines))


def access(
    which: Document,
    person: Annotated[
        str | None, typer.Option("--person", help="E-mail address: explain why this person may or may not read it.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who may read a document, or why one person may or may not, with the groups and grants behind it."""
    client = ControlClient.connect(home)
    path = f"/api/knowledge/documents/{document_id(client, which)}"
    if person is None:
        details = client.get(path)
        value = {name: details[name] for name in ("people", "more_people")}
        rows = [(row["email"], row["name"], "; ".join(_access_paths(row))) for row in value["people"]]
        others_note = "\nOthers may read it, too: check one with --person." if value["more_people"] else ""
        emit(value, as_json, table(("who", "name", "through"), rows) + others_note if rows else "Nobody may read it.")
        return
    value = client.get(f"{path}/access?{urlencode({'person': person})}")
    lines = [f"{person} {'may read it' if value['readable'] else 'may not read it'}"]
    for row in value["by"]:
        grantee = row.get("grant", {}).get("to")
        steps = row["through"] or [grantee or row["reader"]]
        lines.append(
            f"{'refused' if row['refuses'] else 'allowed'} {'by a grant to' if grantee else 'as'} {' > '.join(steps)}"
        )
    emit(value, as_json, "\n".join(lines if value["by"] else [*lines, "no reader entry matches"]))


def _access_paths(row: dict[str, Any]) -> list[str]:
    """The paths by which a person is a reader, each starting with their own group."""
    group_paths = [
        " > ".join(row["through"].get(reader, [reader])) for reader in row["by"] if not reader.startswith("source/")
    ]
    return [*group_paths, *(f"grant to {' > '.join(grant['through']) or grant['to']}" for grant in row["grants"])]


def findings(
    kind: Annotated[
        str, typer.Option("--kind", help="Only findings of this kind, such as stale, duplicate or personal_data.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is wrong with content now, most severe first."""
    kind = f"knowledge.{kind.removeprefix('knowledge.')}"
    client = ControlClient.connect(home)
    value = {"findings": list(client.list_all("/api/findings", "findings", kind=kind, limit=1000))}
    rows = [(row["severity"], row["message"], row["hint"], row["owner"] or "") for row in value["findings"]]
    emit(value, as_json, table(("", "what", "what to do", "for"), rows, "There are no findings about documents."))


def decide(
    which: Document,
    what: Annotated[
        str, typer.Argument(help="What to set: state, sensitivity, valid_until, owner, legal_hold, superseded_by, ...")
    ],
    value: Annotated[
        str, typer.Argument(help="New value; `-` withdraws an earlier decision; of superseded_by, the newer document.")
    ],
    reason: Reason,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record a decision about a document that overrides what it and its source say: approve, retire, extend, hold."""
    client = ControlClient.connect(home)
    new_value = document_id(client, value) if what == "superseded_by" and "/" in value else _parse_value(what, value)
    body = {"what": what, "value": new_value, "reason": reason}
    decided = client.post(f"/api/knowledge/documents/{document_id(client, which)}/decide", body)
    path, current = decided["document"]["path"], _format_value(decided["document"].get(what))
    message = f"{what} of {path} is {current} from the next search; findings about it follow within ten minutes"
    if new_value is None:
        message = (
            f"The decision about {what} of {path} is taken back. Its source is read now, and what that says holds then."
        )
    emit(decided, as_json, message)


def delete(which: Document, reason: Reason, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Delete a document: it is gone from search at once, erased from the disk by the day shown, and not ingested
    again."""
    client = ControlClient.connect(home)
    value = client.post(f"/api/knowledge/documents/{document_id(client, which)}/delete", {"reason": reason})
    emit(value, as_json, f"{value['path']} is removed from search now, and from disk by {value['due'][:10]}")


def deletions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the documents that were deleted by a decision, and since when each is erased from the disk."""
    value = ControlClient.connect(home).get("/api/knowledge/deletions")
    rows = [
        (f"{row['source']}/{row['path']}", row["at"][:10], row["by"], row["reason"],
         f"erased {row['erased_at'][:10]}" if row["erased_at"] else f"by {row['due'][:10]}",
         "readmitted" if row["lifted_at"] else "")
        for row in value["deletions"]
    ]  # fmt: skip
    lines = [table(("document", "deleted", "by", "why", "erased from disk", ""), rows, "No document was deleted.")]
    removed_at_source = value["gone_at_source"]
    if removed_at_source["waiting"]:
        count = quantity(removed_at_source["waiting"], "document")
        lines.append(
            f"{count} removed at the source, to be erased from disk: the first by {removed_at_source['due'][:10]}"
        )
    emit(value, as_json, "\n".join(lines))


def readmit(
    source: Annotated[str, typer.Argument(help="Source of the document.")],
    path: Annotated[str, typer.Argument(help="Path of the document in its source.")],
    reason: Reason,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Allow a deleted document to be ingested again; its source is scanned at once."""
    value = ControlClient.connect(home).post(
        "/api/knowledge/readmit", {"source": source, "path": path, "reason": reason}
    )
    emit(value, as_json, f"{source}/{path} is ingested again by a scan of {source}, which begins now")


def held(
    which: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="ID of a held version: print its text.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why the text is read; kept in the audit log.")] = "",
    source: Annotated[str | None, typer.Option("--source", help="Only documents of this source.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what legal holds keep of documents that have changed, disappeared or become unreadable; with an ID, print
    its text."""
    client = ControlClient.connect(home)
    if which is not None:
        value = client.post(f"/api/knowledge/held/{quote(which, safe='')}/read", {"reason": reason})
        emit(
            value,
            as_json,
            value["version"]["text"] or "Only its bytes are kept, as they were pushed; print them with --json.",
        )
        return
    value = client.get(f"/api/knowledge/held?{urlencode({'source': source} if source else {})}")
    rows = [
        (row["id"], f"{row['source']}/{row['path']}", row["version"] or "", row["cause"], row["at"][:10])
        for row in value["held"]
    ]
    empty_text = "No legal hold keeps a document that has changed or disappeared."
    emit(value, as_json, table(("id", "document", "version", "it", "on"), rows, empty_text))


def lineage(
    call: Annotated[str | None, typer.Argument(help="ID of a call. Default: all calls of the last day.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only events since this time, such as 2026-11-01.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only events before this time. Default: now.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an answer rested on. Without a call, print the last day as OpenLineage events, source to answer."""
    client = ControlClient.connect(home)
    if call is None:
        span = {name: _parse_time(text) for name, text in (("since", since), ("until", until)) if text is not None}
        value = client.get(f"/api/knowledge/lineage?{urlencode(span)}")
        while following := value.pop("next", None):
            page = client.get(f"/api/knowledge/lineage?{urlencode({**span, 'since': following})}")
            value = {"events": value["events"] + page["events"]} | ({"next": page["next"]} if "next" in page else {})
        emit(value, True, "")
        return
    value = client.get(f"/api/knowledge/calls/{quote(call, safe='')}/lineage")
    rows = [
        (f"{row['source'] or ''}/{row['path']}",
         "contradicts" if row["role"] == "conflict" else f"{row['first_line']}-{row['last_line']}",
         row["version_then"] or "",
         "deleted since" if row["deleted_at"] else "changed since" if row["changed_since"] else "now")
        for row in value["rested_on"]
    ]  # fmt: skip
    emit(value, as_json, table(("document", "lines", "version", ""), rows) if rows else "It rested on no document.")


def _parse_time(text: str) -> str:
    """A date or time of ISO 8601; UTC if it names no time zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"'{text}' is not a time", code="usage", hint="Write 2026-11-01 or 2026-11-01T12:00Z.") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def mentions(
    words: Annotated[list[str], typer.Argument(help="Texts that identify the person: an e-mail address, a full name.")],
    reason: Reason,
    delete_them: Annotated[
        bool, typer.Option("--delete", help="Delete the documents that contain one of them.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find documents that mention a person, for an erasure request. Documents under legal hold are kept, and listed."""
    body = {"words": words, "reason": reason, "delete": delete_them}
    value = ControlClient.connect(home).post("/api/knowledge/mentions", body)
    rows = [
        (f"{row['source']}/{row['path']}", "legal hold" if row["held"] else "deleted" if row["deleted"] else "")
        for row in value["documents"]
    ]
    emit(value, as_json, table(("document", ""), rows) if rows else "No document contains these words.")


def push(
    source: Annotated[str, typer.Argument(help="Source of type push.")],
    files: Annotated[
        list[Path], typer.Argument(help="Files to push; each file's name becomes its path in the source.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Push files to a source of type push."""
    value = ControlClient.connect(home).post(
        "/api/knowledge/push", {"source": source, "documents": [_push_entry(file) for file in files]}
    )
    stored = quantity(value["documents"], "document is", "documents are")
    lines = [f"{stored} stored; {source} is read now, and searchable after that"]
    lines += [f"{refusal['path']} is not stored. {refusal['hint']}" for refusal in value["refused"]]
    emit(value, as_json, "\n".join(lines))


def _push_entry(file: Path) -> dict[str, Any]:
    data = read_argument_file(file, code="push_file", hint="Name a file.")
    media = file.suffix.lower().lstrip(".")
    if file.suffix.lower() in TEXT_SUFFIXES:
        return {"path": file.name, "text": data.decode("utf-8", "replace"), "media": media}
    return {"path": file.name, "data": base64.b64encode(data).decode(), "media": media}


def list_documents(client: ControlClient, **filters: str | None) -> Iterator[dict[str, Any]]:
    """All documents that match the filters, page by page."""
    cursor: str | None = None
    while True:
        page = client.get("/api/knowledge/documents", **{name: value or None for name, value in filters.items()},
                          after=cursor, limit=1000)  # fmt: skip
        yield from page["documents"]
        if (cursor := page["next"]) is None:
            return


def document_id(client: ControlClient, which: str) -> str:
    """The id of a document named by its id or as SOURCE/PATH."""
    if "/" not in which:
        return quote(which, safe="")
    source, _, path = which.partition("/")
    for row in client.get(
        f"/api/knowledge/documents?{urlencode({'source': source, 'path': path}, errors='surrogateescape')}"
    )["documents"]:
        return str(row["id"])
    raise Invalid(
        f"there is no document {which}", code="document_unknown", hint="`groundplan knowledge documents` lists them."
    )


def _parse_value(what: str, value: str) -> Any:
    if value == "-":
        return None
    if what == "legal_hold":
        return value.lower() in ("yes", "true", "on")
    if what in ("purposes", "workloads", "residency"):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if value is None:
        return "-"
    return "yes" if value is True else str(value)
