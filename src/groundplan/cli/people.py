"""`groundplan people`: live membership. YAML names people at the first start only; then these commands change them."""

from __future__ import annotations

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.keys import effective_text
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = typer.Typer(help="People, groups and teams as they are now.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_people(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Everybody with groups and duties."""
    value = ControlClient.connect(home).get("/api/people")
    rows = [
        (p["email"], p["name"], ", ".join(p["groups"]), ", ".join(p["duties"]), "active" if p["active"] else "left")
        for p in value["people"]
    ]
    emit(value, as_json, table(("e-mail", "name", "groups", "duties", "state"), rows))


@app.command()
def add(group: str, person: str, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Put PERSON (e-mail) into GROUP."""
    value = ControlClient.connect(home).post(f"/api/groups/{group}/members", {"person": person})
    emit(value, as_json, f"{person} is in {group}")


@app.command()
def remove(group: str, person: str, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take PERSON (e-mail) out of GROUP: the next retrieval no longer sees what only GROUP may read."""
    value = ControlClient.connect(home).delete(f"/api/groups/{group}/members/{person}")
    emit(value, as_json, effective_text(f"{person} is out of {group}", value["effective"]))


@app.command()
def leave(person: str, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """PERSON (e-mail) has left: every permission and key of theirs ends."""
    value = ControlClient.connect(home).delete(f"/api/people/{person}")
    emit(value, as_json, effective_text(f"{person} has left", value["effective"]))
