"""OSCAL documents -> `kind: framework`: catalogs, profiles and component definitions that select from them, and
assessments that name their controls.

Identifiers and titles are imported, texts of norms are not. Claims of a component's maker are no evidence here, so each
control needs evidence that a person gives (`document`), except in our own exports, which state the needs. Nothing is
fetched: what a profile imports has to be among the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from groundplan.catalog.imports import oscal_files as files
from groundplan.catalog.imports.naming import slug
from groundplan.catalog.imports.oscal_files import NAMESPACE, Prop
from groundplan.catalog.imports.verdict import CHANGED, NEEDED, NO_EQUAL, Finding, sort_findings
from groundplan.catalog.imports.yaml_text import Value, block, document
from groundplan.core.errors import Invalid, Problem, TooLarge, Where

DOCUMENT = "document"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}", re.ASCII)
_INSERT = re.compile(r"\{\{\s*insert:\s*param,\s*([^\s}]+)\s*\}\}")
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"|\n')
_TITLE = 200
MAX_CONTROLS = 20_000
MAX_PARTS = 1_000
_SPLIT_HINT = "Import a part of it."


@dataclass(frozen=True, slots=True)
class SelectedControl:
    """A selected control."""

    id: str
    """The identifier in OSCAL"""
    title: str
    file: str
    own: str = ""
    """Our identifier, if the document is our export."""
    needs: tuple[str, ...] = (DOCUMENT,)
    shipped: bool = False
    """Whether it belongs to a framework shipped with Groundplan, so that it is not declared again."""
    parent: str = ""
    """Id of the control that contains it"""


@dataclass(slots=True)
class _Selection:
    """The controls that a document selects, by id, and the values of parameters in titles."""

    controls: dict[str, SelectedControl] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedFrameworks:
    """The result of an import."""

    text: str
    """YAML of the documents"""
    findings: tuple[Finding, ...]
    frameworks: Mapping[str, int]
    """Name -> number of controls"""

    def summary(self) -> str:
        return "; ".join(f"{name}: {count} controls" for name, count in self.frameworks.items())

    def body(self) -> dict[str, object]:
        told = [finding.body() for finding in self.findings]
        return {
            "summary": self.summary(), "frameworks": dict(self.frameworks), "findings": told, "yaml": self.text,
        }  # fmt: skip


@dataclass(slots=True)
class _Reading:
    texts: Mapping[str, str]
    roots: Mapping[str, files.Root]
    findings: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Files that another file selects from."""
    selections: dict[str, _Selection] = field(default_factory=dict)
    """Cache by file, since profiles may import each other many times."""
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    """File -> quoted text -> the line of its first occurrence"""

    def where(self, name: str, text: str) -> Where:
        if name not in self.lines:
            self.lines[name] = _lines(self.texts[name])
        return Where(name, self.lines[name].get(text, 1))

    def add_finding(self, state: str, what: str, here: str, todo: str, where: Where) -> None:
        self.findings.append(Finding(state, what, here, todo, where))


def import_oscal(texts: Mapping[str, str], owner: str, name: str | None = None) -> ImportedFrameworks:
    """A framework for each document of `texts` (file name -> JSON) from which no other one selects. Raises `Invalid`
    with every missing control and file, `TooLarge`."""
    reading = _Reading(texts, files.parse_documents(texts))
    made = {file: _select(reading, file, ()) for file in reading.roots}
    if reading.problems:
        count = len(reading.problems)
        raise Invalid(
            f"{count} thing{'s are' if count > 1 else ' is'} missing in these documents", code="import_oscal",
            hint="Correct the documents, or name the missing files, too.", problems=tuple(reading.problems[:100]),
        )  # fmt: skip
    tops = [file for file in made if file not in reading.used]
    if name is not None and len(tops) > 1:
        raise Invalid(
            f"{', '.join(tops)} are frameworks of their own, which cannot all be {name}", code="import_oscal",
            hint="Import them one by one, or give no name.",
        )  # fmt: skip
    parts, counts = [], {}
    for file in tops:
        controls = list(made[file].controls.values())
        body = _framework(reading.roots[file].metadata, owner, name, shipped=any(each.shipped for each in controls))
        if str(body["name"]) in counts:
            raise Invalid(
                f"two documents are called {body['name']}", code="import_oscal", where=file,
                hint="Import them one by one, with a name.",
            )  # fmt: skip
        rows = _rows(reading, made[file], file)
        counts[str(body["name"])] = len(controls)
        parts.append(document(body, [f"from {file}"]) + (block("controls", rows) if rows else ""))
    return ImportedFrameworks("".join(parts), sort_findings(reading.findings), counts)


def _framework(metadata: files.Metadata, owner: str, name: str | None, *, shipped: bool) -> dict[str, Value]:
    ours = [each for each in metadata.props if each.ns == NAMESPACE]
    one = {each.name: each.value for each in ours}
    body: dict[str, Value] = {
        "kind": "framework",
        "name": name or one.get("framework") or slug(metadata.title, "framework"),
    }
    if not shipped:
        body["title"] = _line(metadata.title, {})
    body["owner"] = owner
    if "profile" in one:
        body["profile"] = one["profile"]
    if workloads := [each.value for each in ours if each.name == "workload"]:
        body["workloads"] = workloads
    groups: dict[str, dict[str, list[str]]] = {}
    for prop in ours:
        if prop.group:
            groups.setdefault(prop.group, {}).setdefault(prop.name, []).append(prop.value)
    told = [{key: values[0] for key, values in group.items() if key != "controls"} for group in groups.values()]
    if excluded := [each for each in told if "reason" in each]:
        body["excluded"] = excluded
    if amended := [
        {**each, **({"controls": group["controls"]} if "controls" in group else {})}
        for each, group in zip(told, groups.values(), strict=True)
        if "on" in each
    ]:
        body["amended"] = amended
    return body


def _rows(reading: _Reading, selection: _Selection, file: str) -> list[dict[str, Value]]:
    """The controls in the form of declarations. Raises `Invalid` if two have the same identifier."""
    found: dict[str, dict[str, Value]] = {}
    for each in selection.controls.values():
        written = each.own or each.id
        if not _ID.fullmatch(written):
            written = re.sub(r"[^A-Za-z0-9._-]+", "-", each.id).strip("-._")[:40] or "control"
            place = reading.where(each.file, each.id)
            reading.add_finding(
                CHANGED, each.id[:80], written, "An id has at most 40 letters, digits, dots, hyphens.", place
            )
        if written in found:
            raise Invalid(
                f"two controls are {written} here", code="import_oscal", where=reading.where(each.file, each.id),
                hint=f"Give them other ids in {each.file}: at most 40 letters, digits, dots and hyphens.",
            )  # fmt: skip
        title = _line(each.title, selection.params) or written
        found[written] = {"id": written, "title": title, "needs": list(each.needs)}
        if each.shipped:
            found[written] = {}
    if not found:
        raise Invalid("it selects no control", code="import_oscal", where=file, hint="Import one that names controls.")
    return [row for row in found.values() if row]


def _lines(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    line = 1
    for match in _QUOTED.finditer(text):
        if match[1] is None:
            line += 1
        else:
            found.setdefault(match[1], line)
    return found


def _select(reading: _Reading, file: str, path: tuple[str, ...]) -> _Selection:
    """Raises `TooLarge`."""
    if file not in reading.selections:
        made = _select_from(reading, file, path)
        if len(made.controls) > MAX_CONTROLS:
            raise TooLarge(f"{file} has {len(made.controls)} controls", code="import_large", hint=_SPLIT_HINT)
        reading.selections[file] = made
    return reading.selections[file]


def _select_from(reading: _Reading, file: str, path: tuple[str, ...]) -> _Selection:
    root = reading.roots[file]
    if isinstance(root, files.Catalog):
        return _select_catalog(reading, file, root)
    if isinstance(root, files.Profile):
        return _select_profile(reading, file, root, (*path, file))
    if isinstance(root, files.ComponentDefinition):
        return _select_components(reading, file, root, (*path, file))
    reviewed = [root.reviewed_controls] if isinstance(root, files.Plan) else [r.reviewed_controls for r in root.results]
    named = [each.control_id for one in reviewed for part in one.control_selections for each in part.include_controls]
    return _Selection({id: _untitled_control(reading, file, id, "") for id in named})


def _select_catalog(reading: _Reading, file: str, root: files.Catalog) -> _Selection:
    found = _Selection(params=_labels(root.params))

    def take(controls: Iterable[files.Control], parent: str) -> None:
        for each in controls:
            found.params.update(_labels(each.params))
            ours = _own_props(each.props)
            if any(prop.name == "status" and prop.value.lower() == "withdrawn" for prop in each.props):
                reading.add_finding(NO_EQUAL, each.id, "it is withdrawn", "", reading.where(file, each.id))
            elif each.id in found.controls:
                reading.problems.append(
                    Problem(
                        f"the control {each.id} is there twice",
                        "import_oscal",
                        "Give one another id.",
                        reading.where(file, each.id),
                    )
                )
            else:
                needs = tuple(ours.get("need", ())) or (DOCUMENT,)
                own = ours.get("id", [""])[0]
                found.controls[each.id] = SelectedControl(
                    each.id, each.title, file, own, needs, each.class_ == "shipped", parent
                )
            take(each.controls, each.id)

    def enter(groups: Iterable[files.Group]) -> None:
        for group in groups:
            found.params.update(_labels(group.params))
            take(group.controls, "")
            enter(group.groups)

    take(root.controls, "")
    enter(root.groups)
    return found


def _select_profile(reading: _Reading, file: str, root: files.Profile, path: tuple[str, ...]) -> _Selection:
    found = _Selection()
    parts = len(root.imports) + sum(len(each.include_controls) + len(each.exclude_controls) for each in root.imports)
    if parts > MAX_PARTS:
        raise TooLarge(f"{file} selects in {parts} parts", code="import_large", hint=_SPLIT_HINT)
    for each in root.imports:
        source = _source(reading, file, each.href, root.back_matter)
        if source is None:
            what = f"it imports {_name_of(each.href, root.back_matter)}, which is not among the files"
            hint = "Name that document, too, in JSON; nothing is fetched."
            reading.problems.append(Problem(what, "import_oscal", hint, reading.where(file, each.href)))
            continue
        if source in path:
            what, hint = f"it imports {source}, which imports it", "Take one of them out."
            reading.problems.append(Problem(what, "import_oscal", hint, reading.where(file, each.href)))
            continue
        reading.used.add(source)
        known = _select(reading, source, path)
        every = each.include_all is not None or not each.include_controls
        taken = (
            set(known.controls) if every else set(_selected_ids(reading, file, source, each.include_controls, known))
        )
        taken -= set(_selected_ids(reading, file, source, each.exclude_controls, known)) - _declared_exclusions(
            root.metadata, known
        )
        found.controls.update(
            (id, one) for id, one in known.controls.items() if id in taken and id not in found.controls
        )
        found.params.update(known.params)
    found.params.update(_parameter_values(root.modify.set_parameters))
    return found


def _declared_exclusions(metadata: files.Metadata, known: _Selection) -> set[str]:
    """Controls that our own export excludes with a reason: the declaration lists them, as `excluded`."""
    ours = set(_own_props(metadata.props).get("control", ()))
    return {id for id, one in known.controls.items() if one.own in ours}


def _selected_ids(
    reading: _Reading, file: str, source: str, selected: Sequence[files.Selected], known: _Selection
) -> Iterator[str]:
    """Ids that a selection names or matches; adds a problem for ids that the source does not have."""
    for each in selected:
        found = list(each.with_ids)
        for id in found:
            if id not in known.controls:
                what, hint = f"{source} has no control {id[:80]}", "Mend the id, or leave it out."
                reading.problems.append(Problem(what, "import_oscal", hint, reading.where(file, id)))
        patterns = [one.pattern for one in each.matching]
        found += [id for id in known.controls if any(fnmatchcase(id, pattern) for pattern in patterns)]
        yield from found
        if each.with_child_controls == "yes":
            inside = set(found)
            for one in known.controls.values():  # a control precedes those that it contains
                if one.parent in inside:
                    inside.add(one.id)
                    yield one.id


def _select_components(
    reading: _Reading, file: str, root: files.ComponentDefinition, path: tuple[str, ...]
) -> _Selection:
    found = _Selection()
    for component in (*root.components, *root.capabilities):
        for each in component.control_implementations:
            source = _source(reading, file, each.source, root.back_matter)
            known = _Selection()
            if source is None:
                name = _name_of(each.source, root.back_matter)
                todo = (
                    f"Name {name} beside it for the titles of its controls; here what it says of them stands instead."
                )
                reading.add_finding(
                    NEEDED, name[:200], "it is not among the files", todo, reading.where(file, each.source)
                )
            elif source not in path:
                reading.used.add(source)
                known = _select(reading, source, path)
            found.params.update(known.params)
            found.params.update(_parameter_values(each.set_parameters))
            for one in each.implemented_requirements:
                found.params.update(_parameter_values(one.set_parameters))
                if source is not None and one.control_id not in known.controls:
                    what, hint = f"{source} has no control {one.control_id[:80]}", "Mend the id, or leave it out."
                    reading.problems.append(Problem(what, "import_oscal", hint, reading.where(file, one.control_id)))
                made = known.controls.get(one.control_id) or _untitled_control(
                    reading, file, one.control_id, one.description, one.props
                )
                found.controls.setdefault(one.control_id, made)
    return found


def _untitled_control(reading: _Reading, file: str, id: str, says: str, props: Sequence[Prop] = ()) -> SelectedControl:
    """A control for which this document has no title."""
    ours = _own_props(props)
    first = re.split(r"(?<=[.!?])\s", " ".join(says.split()), maxsplit=1)[0]
    if not says:
        reading.add_finding(NEEDED, id[:80], "its title is not in the document", "Write one.", reading.where(file, id))
    return SelectedControl(id, first or id, file, ours.get("id", [""])[0], tuple(ours.get("need", ())) or (DOCUMENT,))


def _source(reading: _Reading, file: str, href: str, back: files.BackMatter) -> str | None:
    """The file that a link refers to: by its name without extension, or by the id of its document."""
    hrefs = [href]
    if href.startswith("#"):
        for name, root in reading.roots.items():
            if root.uuid == href[1:] and name != file:
                return name
        hrefs = [link.href for each in back.resources if each.uuid == href[1:] for link in each.rlinks]
    stems = {PurePosixPath(urlsplit(each).path).stem for each in hrefs}
    return next((name for name in reading.roots if PurePosixPath(name).stem in stems and name != file), None)


def _name_of(href: str, back: files.BackMatter) -> str:
    links = [link.href for each in back.resources if f"#{each.uuid}" == href for link in each.rlinks]
    return links[0] if links else href


def _labels(params: Iterable[files.Param]) -> dict[str, str]:
    return {each.id: ", ".join(each.values) or each.label for each in params}


def _parameter_values(params: Iterable[files.SetParam]) -> dict[str, str]:
    return {each.param_id: ", ".join(each.values) or each.label for each in params}


def _own_props(props: Iterable[Prop]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in props:
        if each.ns == NAMESPACE:
            found.setdefault(each.name, []).append(each.value)
    return found


def _line(text: str, params: Mapping[str, str]) -> str:
    """A text as one line of at most 200 characters, with its parameters replaced."""
    replaced = _INSERT.sub(lambda match: f"[{params.get(match[1]) or match[1]}]", text)
    line = " ".join("".join(c if c.isprintable() else " " for c in replaced).split())
    return line if len(line) <= _TITLE else line[: _TITLE - 1].rstrip() + "…"
