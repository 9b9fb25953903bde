"""`groundplan import`: converts the configuration of another tool into a workspace, with a verdict on what has no
equivalent.

Works offline on files alone; reads no secret and prints none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from groundplan.catalog.fields import NAME, is_email
from groundplan.catalog.imports.focus import import_focus
from groundplan.catalog.imports.inventory import import_inventory
from groundplan.catalog.imports.kubernetes import import_kubernetes
from groundplan.catalog.imports.litellm import import_litellm
from groundplan.catalog.imports.litellm_models import ImportOptions
from groundplan.catalog.imports.litellm_units import WORDS
from groundplan.catalog.imports.machines import MAX_BYTES as MAX_INFRASTRUCTURE
from groundplan.catalog.imports.machines import ImportedSites
from groundplan.catalog.imports.node import included_files
from groundplan.catalog.imports.oscal import import_oscal
from groundplan.catalog.imports.oscal_files import MAX_BYTES as MAX_OSCAL
from groundplan.catalog.imports.terraform import import_terraform
from groundplan.catalog.imports.verdict import CARRIED, NO_OWNER, NO_PRICE, Finding, Verdict
from groundplan.catalog.reader import MAX_BYTES
from groundplan.cli.command_group import command_group
from groundplan.cli.options import JsonOption, program_name
from groundplan.cli.output import emit
from groundplan.core.errors import Conflict, Invalid, TooLarge
from groundplan.core.home import write_files
from groundplan.core.money import parse_usd
from groundplan.core.words import quantity
from groundplan.economics.price import has_listed_price
from groundplan.economics.prices import price_list

app = command_group("Make a workspace from another tool's configuration.")
MAX_FILES = 100
MAX_ALIKE = 20


@app.command()
def litellm(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration file of the proxy.")],
    to: Annotated[Path | None, typer.Option("--to", help="New or empty folder for the workspace.")] = None,
    owner: Annotated[
        list[str] | None,
        typer.Option("--owner", help="E-mail address of the business owner, or MODEL=E-MAIL. Repeatable."),
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Budget of each workload, in USD a month.")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            help="MODEL=IN/OUT in USD per million tokens; MODEL=AMOUNT/UNIT with minute, characters (a million), image "
            "or request; or MODEL=free. Repeatable.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="NAME=VALUE of an environment variable that holds an address, a region, a number or a model."
        ),
    ] = None,
    company: Annotated[str, typer.Option("--company", help="Name of the company.")] = "imported",
    as_json: JsonOption = False,
) -> None:
    """Show what in a LiteLLM proxy's config.yaml has an equivalent here; with --to, write the workspace."""
    if to is not None and to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise Conflict(f"{to} is not empty", code="folder_not_empty", hint="Name a new or an empty folder.")
    today = datetime.now(UTC).date()
    options = ImportOptions(
        known_price=lambda model: has_listed_price(model, today),
        known_context=lambda model: price_list.context_window(model) is not None,
        owners=_owners(owner or []), prices=_prices(price or []),
        values=_name_values(values or [], "--set NAME=VALUE"), budget=budget, company=company,
    )  # fmt: skip
    verdict = import_litellm(_read(config), config.name, options)
    if to is not None:
        write_files(to, verdict.files)
    emit({"folder": str(to) if to else None, **verdict.body()}, as_json, _verdict_text(verdict, to))


Infrastructure = Annotated[Path, typer.Argument(metavar="FILE", help="File that the tool wrote.")]
ToFile = Annotated[Path | None, typer.Option("--to", help="New file for the sites.")]


@app.command()
def terraform(file: Infrastructure, to: ToFile = None, as_json: JsonOption = False) -> None:
    """Import sites from `terraform show -json` of a state or a plan; OpenTofu works, too."""
    _sites(file, to, as_json, import_terraform)


@app.command()
def kubernetes(file: Infrastructure, to: ToFile = None, as_json: JsonOption = False) -> None:
    """Import sites from `kubectl get nodes -o json` or `-o yaml`."""
    _sites(file, to, as_json, import_kubernetes)


@app.command()
def inventory(file: Infrastructure, to: ToFile = None, as_json: JsonOption = False) -> None:
    """Import sites from a CSV file with the columns site, type, jurisdiction, hardware, count and, if known, prices."""
    _sites(file, to, as_json, import_inventory)


@app.command()
def focus(file: Infrastructure, to: ToFile = None, as_json: JsonOption = False) -> None:
    """Import hourly prices of rented hardware by region from a FOCUS bill."""
    _sites(file, to, as_json, import_focus)


@app.command()
def oscal(
    documents: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Catalogs, profiles or component definitions, as JSON.")
    ],
    owner: Annotated[str, typer.Option("--owner", help="E-mail address of the owner of the controls.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the framework. Default: from its title.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="New file for the framework.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import OSCAL controls as a framework; a profile needs the documents that it imports beside it."""
    _require_new(to)
    if not is_email(owner.strip().lower()):
        raise Invalid("an owner is not an e-mail address", code="email_syntax", hint="Write --owner ana@acme.example.")
    if name is not None and not re.fullmatch(NAME, name):
        raise Invalid(f"{name} is not a name", code="name_syntax", hint="Use lower-case letters, digits and hyphens.")
    texts = {path.name: _text(path, path.name, MAX_OSCAL) for path in documents}
    if len(texts) < len(documents):
        raise Invalid("two files have the same name", code="import_oscal", hint="Give each another name.")
    imported = import_oscal(texts, owner.strip().lower(), name)
    _emit_result(imported.summary(), imported.findings, imported.text, imported.body(), to, as_json)


def _require_new(to: Path | None) -> None:
    if to is not None and to.exists():
        raise Conflict(f"{to} exists already", code="file_exists", hint="Name a new file.")


def _sites(file: Path, to: Path | None, as_json: bool, read: Callable[[str, str], ImportedSites]) -> None:
    _require_new(to)
    text = _text(file, file.name, MAX_INFRASTRUCTURE)
    if len(text) > MAX_INFRASTRUCTURE:
        raise TooLarge(
            f"{file.name} is too large", code="import_large", hint="At most 32 MiB are read: import a part of it."
        )
    parsed = read(text, file.name)
    _emit_result(parsed.summary(), parsed.findings, parsed.text, parsed.body(), to, as_json)


def _emit_result(
    summary: str, findings: Sequence[Finding], text: str, body: Mapping[str, object], to: Path | None, as_json: bool
) -> None:
    """Print the findings, and write the YAML to a file if one is named."""
    lines = [summary, "", *_lines(findings)]
    if to is not None:
        to.write_text(text, encoding="utf-8")
    lines += ["", f"{to} is written." if to else text]
    emit({"file": str(to) if to else None, **body}, as_json, "\n".join(lines))


def _lines(findings: Sequence[Finding]) -> list[str]:
    """Lines of the findings in order; of many alike, only the first ones."""
    alike = Counter(map(_kind, findings))
    shown = Counter[tuple[str, str, str]]()
    lines: list[str] = []
    for finding in findings:
        kind = _kind(finding)
        shown[kind] += 1
        if shown[kind] <= MAX_ALIKE:
            lines.append(f"{finding.where.file}:{finding.where.line}: {finding.what} [{finding.state}] {finding.here}")
            lines += [f"    {finding.todo}"] if finding.todo else []
        if shown[kind] == MAX_ALIKE < alike[kind]:
            lines.append(f"    and {quantity(alike[kind] - MAX_ALIKE, 'more', 'more')} like these (--json lists them)")
    return lines


def _kind(finding: Finding) -> tuple[str, str, str]:
    return finding.state, finding.here, "" if finding.state in (NO_OWNER, NO_PRICE) else finding.what


def _verdict_text(verdict: Verdict, to: Path | None) -> str:
    lines = [verdict.summary(), "", *_lines([finding for finding in verdict.findings if finding.state != CARRIED])]
    carried = sum(finding.state == CARRIED for finding in verdict.findings)
    lines += ["", f"{carried} settings have an equivalent here (--json lists them)"]
    lines.append(f"{verdict.served} of {verdict.workloads} workloads are ready to be called")
    outcome = f"{to} is written. Next: {program_name()} check {to}" if to else "Nothing was written: add --to DIR"
    return "\n".join([*lines, outcome])


def _name_values(given: Sequence[str], form: str) -> dict[str, str]:
    values = {}
    for text in given:
        name, separator, value = text.rpartition("=") if "://" not in text else text.partition("=")
        if not separator or not name or not value:
            raise Invalid("an option lacks its value", code="option_form", hint=f"Write {form}.")
        values[name] = value
    return values


def _owners(given: Sequence[str]) -> Mapping[str, str]:
    values = _name_values([text if "=" in text else f"*={text}" for text in given], "--owner MODEL=E-MAIL")
    owners = {"" if name == "*" else name: email.strip().lower() for name, email in values.items()}
    if not all(is_email(email) for email in owners.values()):
        raise Invalid("an owner is not an e-mail address", code="email_syntax", hint="Write --owner ana@acme.example.")
    return owners


def _prices(given: Sequence[str]) -> Mapping[str, str]:
    form = "--price MODEL=IN/OUT in USD per million tokens, such as --price gpt=0.40/1.60, MODEL=0.006/minute (or "
    form += "another of " + ", ".join(WORDS) + "), or MODEL=free"
    prices = _name_values(given, form)
    for text in prices.values():
        parts = text.split("/")
        if text != "free" and len(parts) != 2:
            raise Invalid("a price has two parts", code="price_syntax", hint=f"Write {form}.")
        try:
            for part in (parts[:1] if parts[-1] in WORDS else parts) if text != "free" else ():
                parse_usd(part)
        except Invalid as error:
            raise Invalid(error.message, code=error.code, hint=f"Write {form}.") from error
    return prices


def _read(config: Path) -> dict[str, str]:
    """Texts of the configuration and of the files that it includes, by path from its folder. Raises `Invalid`."""
    folder = config.absolute().parent.resolve()
    files = {config.name: _text(config, config.name)}
    waiting = [(folder, name) for name in included_files(files[config.name])]
    while waiting:
        beside, written = waiting.pop(0)
        path = (beside / written).resolve()
        if not path.exists():  # LiteLLM's older versions look beside the first file only
            path = (folder / written).resolve()
        inside = path.is_relative_to(folder)
        name = path.relative_to(folder).as_posix() if inside else written
        if name in files:
            continue
        if len(files) >= MAX_FILES or not inside:
            raise Invalid(
                "an included file is outside of the folder of the configuration, or there are too many",
                code="import_include", where=f"{config.name}", hint="Put it beside the configuration.",
            )  # fmt: skip
        files[name] = _text(path, name)
        waiting += [(path.parent, each) for each in included_files(files[name])]
    return files


def _text(path: Path, name: str, most: int = MAX_BYTES) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror or type(error).__name__}",
            code="import_unreadable",
            hint="Check the path and its permissions.",
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{name} is not UTF-8 text", code="import_unreadable", hint="Name a text file, saved as UTF-8."
        ) from error
