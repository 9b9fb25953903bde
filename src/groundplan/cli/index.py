"""`groundplan knowledge index ...`: lists, builds, compares, switches and removes editions of the search index."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = command_group("Editions of the search index: build, compare, switch.")
Number = Annotated[int, typer.Argument(metavar="EDITION", help="Number of the edition, from `list`.")]
_POLL_SECONDS = 0.5


@app.command("list")
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all editions with their state, chunking, embedding and content."""
    value = ControlClient.connect(home).get("/api/knowledge/index")
    rows = [
        (
            str(edition["id"]), edition["state"], edition["settings"]["model"], edition["settings"]["chunking"],
            str(edition["documents"]), str(edition["passages"]), str(edition["without_vector"]), _state_note(edition),
        )
        for edition in value["editions"]
    ]  # fmt: skip
    text = table(("edition", "state", "model", "cut into", "documents", "passages", "without vector", ""), rows)
    if not value["serves_declared"]:
        declared = value["declared"]
        text += f"\nDeclared is {declared['model']}, {declared['chunking']} (switch: {declared['switch']})."
    emit(value, as_json, text)


@app.command()
def build(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Start building the declared edition beside the one that serves. It also starts by itself."""
    value = ControlClient.connect(home).post("/api/knowledge/index/build", {})
    message = f"Edition {value['edition']} is being built." if value["begun"] else "There is nothing to build."
    if not value["begun"] and value["edition"]:
        message = f"Edition {value['edition']} is being built already."
    emit(value, as_json, message)


@app.command()
def compare(which: Number, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Compare a finished edition with the one that serves: counts, missing documents, recall and quality."""
    value = ControlClient.connect(home).post(f"/api/knowledge/index/{which}/compare", {})
    names = ("documents", "passages", "characters", "without_vector", "recall", "found", "rank")
    rows = [(name.replace("_", " "), str(value["own"][name]), str(value["serving"][name])) for name in names]
    if value["own"]["labelled"]:
        rows += [
            (name, str(figure), str((value["serving"]["labelled"] or {}).get(name, "-")))
            for name, figure in value["own"]["labelled"].items()
        ]
    text = table(("", f"edition {which}", f"edition {value['with']}, serving"), rows)
    against = value["against"]
    text += "\n" + (f"Objections: {'; '.join(against)}." if against else "No objections.")
    emit(value, as_json, text)


@app.command()
def switch(
    which: Number,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the search services.")] = 60.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve this edition; the previous one is kept for a rollback."""
    client = ControlClient.connect(home)
    _wait_for_switch(client, client.post(f"/api/knowledge/index/{which}/switch", {}), wait, as_json)


@app.command()
def rollback(
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the search services.")] = 60.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the edition that served before. Deleted documents stay deleted."""
    client = ControlClient.connect(home)
    _wait_for_switch(client, client.post("/api/knowledge/index/rollback", {}), wait, as_json)


@app.command()
def drop(which: Number, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remove an edition that does not serve, before its time."""
    value = ControlClient.connect(home).post(f"/api/knowledge/index/{which}/drop", {})
    emit(value, as_json, f"Edition {which} is dropped.")


def _wait_for_switch(client: ControlClient, value: dict[str, Any], wait: float, as_json: bool) -> None:
    deadline = time.monotonic() + wait
    while value["state"] == "switching" and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        editions = client.get("/api/knowledge/index")["editions"]
        value["state"] = next(edition["state"] for edition in editions if edition["id"] == value["edition"])
    served_text = f"Edition {value['edition']} serves."
    waiting_text = f"Edition {value['edition']} serves as soon as every search service has read it."
    emit(value, as_json, served_text if value["state"] == "serving" else waiting_text)


def _state_note(edition: dict[str, Any]) -> str:
    if edition["state"] == "kept":
        return f"until {edition['until'][:10]}" + (", rolled back" if edition["declined"] else "")
    compared = edition["compared"]
    if edition["state"] == "ready" and compared:
        return f"objections: {'; '.join(compared['against'])}" if compared["against"] else "no objections"
    return ""
