"""Controls of others in OSCAL -> `kind: framework`: catalogs, the profiles and component definitions that select of
them, and assessments that name what they look at.

Identifiers and titles come along, texts of norms do not. What a maker says of its component proves nothing here, so
every control needs evidence that a person gives (`document`), unless the document says otherwise in our own words, as
our own exports do. Nothing is fetched: what a profile imports has to be among the files.
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
from groundplan.catalog.imports.verdict import CHANGED, NEEDED, NO_EQUAL, Finding, in_order
from groundplan.catalog.imports.yaml_text import Value, block, document
from groundplan.core.errors import Invalid, Problem, TooLarge, Where

DOCUMENT = "document"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}", re.ASCII)
_INSERT = re.compile(r"\{\{\s*insert:\s*param,\s*([^\s}]+)\s*\}\}")
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"|\n')
_TITLE = 200
MOST_CONTROLS = 20_000
MOST_PARTS = 1_000
_PART = "Import a part of it."


@dataclass(frozen=True, slots=True)
class One:
    """A control that was selected."""

    id: str
    """As OSCAL writes it"""
    title: str
    file: str
    own: str = ""
    """Our identifier, where it is our export."""
    needs: tuple[str, ...] = (DOCUMENT,)
    shipped: bool = False
    """Of a framework that comes with Groundplan, so that it is not declared again."""
    parent: str = ""
    """Of a control in another one"""


@dataclass(slots=True)
class _Selection:
    """What a document selects, by id, and what stands for parameters in titles."""

    controls: dict[str, One] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frameworks:
    """What an import has to say."""

    text: str
    """YAML of documents"""
    findings: tuple[Finding, ...]
    frameworks: Mapping[str, int]
    """Name -> how many controls"""

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
    """Files that another one selects of."""
    selections: dict[str, _Selection] = field(default_factory=dict)
    """Of each file that was read to its end, once: profiles may import each other many times."""
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    """File -> text in quotes -> the line on which it first stands"""

    def at(self, name: str, text: str) -> Where:
        if name not in self.lines:
            self.lines[name] = _lines(self.texts[name])
        return Where(name, self.lines[name].get(text, 1))

    def tell(self, state: str, what: str, here: str, todo: str, where: Where) -> None:
        self.findings.append(Finding(state, what, here, todo, where))


def import_oscal(texts: Mapping[str, str], owner: str, name: str | None = None) -> Frameworks:
    """A framework for each document that no other one of `texts` (file name -> JSON) selects of. Raises `Invalid` with
    every control and file that is missing, `TooLarge`."""
    reading = _Reading(texts, files.read(texts))
    made = {file: _selected(reading, file, ()) for file in reading.roots}
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
    return Frameworks("".join(parts), in_order(reading.findings), counts)


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
    """The controls as they are declared. Raises `Invalid` where two have one identifier."""
    found: dict[str, dict[str, Value]] = {}
    for each in selection.controls.values():
        written = each.own or each.id
        if not _ID.fullmatch(written):
            written = re.sub(r"[^A-Za-z0-9._-]+", "-", each.id).strip("-._")[:40] or "control"
            place = reading.at(each.file, each.id)
            reading.tell(CHANGED, each.id[:80], written, "An id has at most 40 letters, digits, dots, hyphens.", place)
        if written in found:
            raise Invalid(
                f"two controls are {written} here", code="import_oscal", where=reading.at(each.file, each.id),
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


def _selected(reading: _Reading, file: str, path: tuple[str, ...]) -> _Selection:
    """Raises `TooLarge`."""
    if file not in reading.selections:
        made = _selected_of(reading, file, path)
        if len(made.controls) > MOST_CONTROLS:
            raise TooLarge(f"{file} has {len(made.controls)} controls", code="import_large", hint=_PART)
        reading.selections[file] = made
    return reading.selections[file]


def _selected_of(reading: _Reading, file: str, path: tuple[str, ...]) -> _Selection:
    root = reading.roots[file]
    if isinstance(root, files.Catalog):
        return _of_catalog(reading, file, root)
    if isinstance(root, files.Profile):
        return _of_profile(reading, file, root, (*path, file))
    if isinstance(root, files.ComponentDefinition):
        return _of_components(reading, file, root, (*path, file))
    reviewed = [root.reviewed_controls] if isinstance(root, files.Plan) else [r.reviewed_controls for r in root.results]
    named = [each.control_id for one in reviewed for part in one.control_selections for each in part.include_controls]
    return _Selection({id: _untitled(reading, file, id, "") for id in named})


def _of_catalog(reading: _Reading, file: str, root: files.Catalog) -> _Selection:
    found = _Selection(params=_labels(root.params))

    def take(controls: Iterable[files.Control], parent: str) -> None:
        for each in controls:
            found.params.update(_labels(each.params))
            ours = _ours(each.props)
            if any(prop.name == "status" and prop.value.lower() == "withdrawn" for prop in each.props):
                reading.tell(NO_EQUAL, each.id, "it is withdrawn", "", reading.at(file, each.id))
            elif each.id in found.controls:
                reading.problems.append(
                    Problem(
                        f"the control {each.id} is there twice",
                        "import_oscal",
                        "Give one another id.",
                        reading.at(file, each.id),
                    )
                )
            else:
                needs = tuple(ours.get("need", ())) or (DOCUMENT,)
                own = ours.get("id", [""])[0]
                found.controls[each.id] = One(each.id, each.title, file, own, needs, each.class_ == "shipped", parent)
            take(each.controls, each.id)

    def enter(groups: Iterable[files.Group]) -> None:
        for group in groups:
            found.params.update(_labels(group.params))
            take(group.controls, "")
            enter(group.groups)

    take(root.controls, "")
    enter(root.groups)
    return found


def _of_profile(reading: _Reading, file: str, root: files.Profile, path: tuple[str, ...]) -> _Selection:
    found = _Selection()
    parts = len(root.imports) + sum(len(each.include_controls) + len(each.exclude_controls) for each in root.imports)
    if parts > MOST_PARTS:
        raise TooLarge(f"{file} selects in {parts} parts", code="import_large", hint=_PART)
    for each in root.imports:
        source = _source(reading, file, each.href, root.back_matter)
        if source is None:
            what = f"it imports {_name_of(each.href, root.back_matter)}, which is not among the files"
            hint = "Name that document, too, in JSON; nothing is fetched."
            reading.problems.append(Problem(what, "import_oscal", hint, reading.at(file, each.href)))
            continue
        if source in path:
            what, hint = f"it imports {source}, which imports it", "Take one of them out."
            reading.problems.append(Problem(what, "import_oscal", hint, reading.at(file, each.href)))
            continue
        reading.used.add(source)
        known = _selected(reading, source, path)
        every = each.include_all is not None or not each.include_controls
        taken = set(known.controls) if every else set(_named(reading, file, source, each.include_controls, known))
        taken -= set(_named(reading, file, source, each.exclude_controls, known)) - _declared_out(root.metadata, known)
        found.controls.update(
            (id, one) for id, one in known.controls.items() if id in taken and id not in found.controls
        )
        found.params.update(known.params)
    found.params.update(_set(root.modify.set_parameters))
    return found


def _declared_out(metadata: files.Metadata, known: _Selection) -> set[str]:
    """What our own export leaves out with a reason: here it is declared with its control, as `excluded`."""
    ours = set(_ours(metadata.props).get("control", ()))
    return {id for id, one in known.controls.items() if one.own in ours}


def _named(
    reading: _Reading, file: str, source: str, selected: Sequence[files.Selected], known: _Selection
) -> Iterator[str]:
    """Ids that a selection means; one that the source has not is a problem."""
    for each in selected:
        found = list(each.with_ids)
        for id in found:
            if id not in known.controls:
                what, hint = f"{source} has no control {id[:80]}", "Mend the id, or leave it out."
                reading.problems.append(Problem(what, "import_oscal", hint, reading.at(file, id)))
        patterns = [one.pattern for one in each.matching]
        found += [id for id in known.controls if any(fnmatchcase(id, pattern) for pattern in patterns)]
        yield from found
        if each.with_child_controls == "yes":
            inside = set(found)
            for one in known.controls.values():  # a control stands before those in it
                if one.parent in inside:
                    inside.add(one.id)
                    yield one.id


def _of_components(reading: _Reading, file: str, root: files.ComponentDefinition, path: tuple[str, ...]) -> _Selection:
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
                reading.tell(NEEDED, name[:200], "it is not among the files", todo, reading.at(file, each.source))
            elif source not in path:
                reading.used.add(source)
                known = _selected(reading, source, path)
            found.params.update(known.params)
            found.params.update(_set(each.set_parameters))
            for one in each.implemented_requirements:
                found.params.update(_set(one.set_parameters))
                if source is not None and one.control_id not in known.controls:
                    what, hint = f"{source} has no control {one.control_id[:80]}", "Mend the id, or leave it out."
                    reading.problems.append(Problem(what, "import_oscal", hint, reading.at(file, one.control_id)))
                made = known.controls.get(one.control_id) or _untitled(
                    reading, file, one.control_id, one.description, one.props
                )
                found.controls.setdefault(one.control_id, made)
    return found


def _untitled(reading: _Reading, file: str, id: str, says: str, props: Sequence[Prop] = ()) -> One:
    """A control of which this document says no title."""
    ours = _ours(props)
    first = re.split(r"(?<=[.!?])\s", " ".join(says.split()), maxsplit=1)[0]
    if not says:
        reading.tell(NEEDED, id[:80], "its title is not in the document", "Write one.", reading.at(file, id))
    return One(id, first or id, file, ours.get("id", [""])[0], tuple(ours.get("need", ())) or (DOCUMENT,))


def _source(reading: _Reading, file: str, href: str, back: files.BackMatter) -> str | None:
    """The file that is meant: by its name, whatever form it has there, or by its document's own id."""
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


def _set(params: Iterable[files.SetParam]) -> dict[str, str]:
    return {each.param_id: ", ".join(each.values) or each.label for each in params}


def _ours(props: Iterable[Prop]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in props:
        if each.ns == NAMESPACE:
            found.setdefault(each.name, []).append(each.value)
    return found


def _line(text: str, params: Mapping[str, str]) -> str:
    """A text as one line of at most 200 characters, with what its parameters stand for."""
    said = _INSERT.sub(lambda match: f"[{params.get(match[1]) or match[1]}]", text)
    line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return line if len(line) <= _TITLE else line[: _TITLE - 1].rstrip() + "…"
