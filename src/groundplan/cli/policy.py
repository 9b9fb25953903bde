"""`groundplan policy`: company rules in Cedar, tested before they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.options import JsonOption
from groundplan.cli.output import emit
from groundplan.core.errors import Invalid
from groundplan.governance.policy import folder

app = typer.Typer(help="Company rules in Cedar.", rich_markup_mode=None)


@app.callback()
def policy() -> None:
    """Company rules in Cedar."""


@app.command()
def test(
    cedar: Annotated[
        Path | None, typer.Option("--cedar", help="A folder of Cedar tests: policies, entities, requests.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide every request of a folder of Cedar tests as calls are decided. Exit 1 where one is decided otherwise than
    expected."""
    if cedar is None:
        raise Invalid("nothing is named to be tested", code="policy_test", hint="Name a folder: --cedar DIR.")
    outcome = folder.run(cedar)
    value: dict[str, Any] = {
        "requests": outcome.requests,
        "wrong": len(outcome.wrong),
        "seconds": round(outcome.seconds, 6),
    }
    if outcome.wrong:
        value["failures"] = outcome.wrong[:100]
    if outcome.denied_by_error:
        value["denied_by_error"] = outcome.denied_by_error
    if outcome.invalid:
        value["schema_disagreements"] = outcome.invalid[:100]
    lines = [f"{outcome.requests} requests, {len(outcome.wrong)} decided otherwise than expected"]
    lines += [
        f"  {each['test']}: request {each['request']}: expected {each['expected']}" for each in outcome.wrong[:100]
    ]
    emit(value, as_json, "\n".join(lines))
    if outcome.wrong or outcome.invalid:
        raise typer.Exit(1)
