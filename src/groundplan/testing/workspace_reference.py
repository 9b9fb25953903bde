"""docs/workspace.md: the reference of all kinds, made from the JSON Schema, so that both agree; writes no file."""

from __future__ import annotations

from typing import Any

from groundplan.catalog.model import KINDS
from groundplan.catalog.schema import json_schema

REFERENCE_PATH = "docs/workspace.md"
SCHEMA_PATH = "docs/schema/groundplan.schema.json"


def editor_hint(location: str) -> str:
    """First line of a YAML file that tells editors where its schema is (a path or URL)."""
    return f"# yaml-language-server: $schema={location}"


_INTRODUCTION = f"""\
# What a workspace can declare

A workspace is a folder of YAML 1.2 files (`*.yaml`, `*.yml`, in any folder that is not hidden). Each document,
separated by `---`, declares one thing; its `kind` says what. How documents are distributed over files makes no
difference. `groundplan init DIR` writes a first workspace, `groundplan check` reports every problem with file, line and
column, without network.

- Values carry units: `800ms`, `99.5%`, `6000 B`, `200 USD/month`, `0.40 USD/Mtok`, `2000/day`. Money is exact to
  10^-12 USD.
- `NO` is Norway, `2026-01-31` needs no quotes; numbers where text is meant do.
- A list of one may be written as the value: `sources: handbook`. A key without a value counts as left out.
- People are named by e-mail, or by the name of a `person` document. A person named only by e-mail is declared by that.
- `everyone` is a group that exists without being declared; `public`, as a reader of a source or document, is everybody,
  also a call that carries no person.
- Secrets are references, `env:NAME` or `file:/path`. A text elsewhere that looks like a secret is refused and not
  repeated.
- Links and paths that lead out of the folder are refused. Folders that a source names hold documents, not
  declarations.
- At most 10,000 files of 1 MiB each, 16 MiB in total, nested at most 32 deep; anchors and aliases work within a
  document.

For completion in editors, begin a file with `{editor_hint("PATH/" + SCHEMA_PATH.rpartition("/")[2])}`; `groundplan
check --schema` prints that schema.

## What is required

- Exactly one `company`.
- For a workload in experiment, pilot or production: a business owner, a budget for itself or its team, and a chat
  deployment, unless it names only deployments of other types (`embeddings`, `also`).
- In production: an owner for each of the nine duties. Duties of the company count, except `business`.
- A price for each model: from the built-in list, from `price` of a deployment or model, or `price: free`.
- Sources at most as sensitive as the workload; named deployments and fallbacks at sites that its residency and
  sensitivity allow. A site without `holds` takes confidential data in a cloud, restricted data elsewhere. `EU`
  contains its member states, `EEA` these and `IS`, `LI`, `NO`.
- Groups and teams that do not include themselves; one name for each of them together, one e-mail address for each
  person.
- `separation: solo` only while one person is named.

## Kinds
"""


def reference() -> str:
    """The whole page as Markdown."""
    definitions: dict[str, Any] = json_schema()["$defs"]
    kinds = {doc.__name__: kind for kind, doc in KINDS.items()}
    parts = [_INTRODUCTION]
    parts += [_table(f"### `{kind}`", definitions[name]) for name, kind in kinds.items()]
    parts.append("## Parts\n")
    parts += [
        _table(f"### {_title(name)}", definition) for name, definition in definitions.items() if name not in kinds
    ]
    return "\n".join(parts)


def _title(name: str) -> str:
    """What a part is called: `CacheRule` is cache, `ProviderKeyDoc` is provider key."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).split()
    return " ".join(words[:-1] if words[-1] in ("doc", "rule") else words)


def _table(heading: str, definition: dict[str, Any]) -> str:
    required = set(definition.get("required", []))
    rows = [
        f"| `{key}`{' *' if key in required else ''} | {_type(field)} | {_meaning(field)} |"
        for key, field in definition["properties"].items()
        if key != "kind"
    ]
    lines = [
        heading,
        "",
        definition.get("description", ""),
        "",
        "| Key (* required) | Value | |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _meaning(field: dict[str, Any]) -> str:
    """What a field is for, in one line, and what holds where it is left out, unless that is said already."""
    text = " ".join(field.get("description", "").split()).replace("|", "\\|")
    if "default" not in field or "Default:" in text or "eft out" in text:
        return text
    default = field["default"]
    shown = f"[{', '.join(default)}]" if isinstance(default, list) else str(default)
    if isinstance(default, bool | float):
        shown = str(default).lower() if isinstance(default, bool) else f"{default:g}"
    return f"{text}{'' if not text or text.endswith('.') else '.'} Default: `{shown}`.".strip()


def _type(field: dict[str, Any]) -> str:
    """A few words on what may be written."""
    if "$ref" in field:
        name = _title(field["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.replace(' ', '-')})"
    if "const" in field:
        return f"`{str(field['const']).lower() if isinstance(field['const'], bool) else field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "examples" in field:
        return f"such as `{field['examples'][0]}`"
    if "anyOf" in field and field["anyOf"][-1].get("items") == field["anyOf"][0]:
        return f"one or a list: {_type(field['anyOf'][0])}"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(choice) for choice in field["anyOf"]))
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        (value,) = field["patternProperties"].values()
        return f"names, each with a value {_type(value)}"
    words = {"string": "text", "boolean": "`true`, `false`", "integer": "number", "number": "number"}
    return words[field["type"]]
