"""Checks whether the documents of a workspace fit together: pure rules that return problems with places.

Prices are looked up through a function argument. Rules of governance and placement that refuse a release are not
checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from groundplan.catalog import model, validation_errors
from groundplan.catalog.fields import is_email
from groundplan.catalog.loader import ReadResult, read_files, read_folder
from groundplan.catalog.model import EVERYONE, PUBLIC
from groundplan.catalog.reader import Path as Place
from groundplan.catalog.rules.allocations import allocation_problems
from groundplan.catalog.rules.currencies import currency_problems
from groundplan.catalog.rules.index import index_problems
from groundplan.catalog.rules.kinds import (
    budget_problems,
    deployment_problems,
    grant_problems,
    limit_problems,
    workload_problems,
)
from groundplan.catalog.rules.places import placement_problems
from groundplan.catalog.workspace import Workspace, person_references
from groundplan.core.errors import Problem
from groundplan.core.words import closest_name

KnownPrice = Callable[[str], bool]
"""Returns whether the price list has a model, by its canonical name."""

ExtraRules = Callable[[Workspace], Iterable[Problem]]
"""Further rules, for content that the catalog itself cannot parse, such as Cedar."""

Broken = frozenset[tuple[str, str]]


def validate(
    folder: Path, *, known_price: KnownPrice | None = None, extra_rules: ExtraRules | None = None
) -> Workspace:
    """Read and check the workspace in `folder`. Raises `Invalid` with all problems of form and rules."""
    return _require_valid(read_folder(folder), known_price, extra_rules)


def validate_files(files: Mapping[str, str], *, known_price: KnownPrice | None = None) -> Workspace:
    """As `validate`, for files given as text (relative path -> YAML)."""
    return _require_valid(read_files(files), known_price)


def _require_valid(
    reading: ReadResult, known_price: KnownPrice | None, extra_rules: ExtraRules | None = None
) -> Workspace:
    problems = list(reading.problems)
    if extra_rules is not None:
        problems += extra_rules(reading.workspace)
    if not reading.has_unreadable_text:
        problems += check(reading.workspace, known_price=known_price, broken=reading.broken)
        problems += _salvaged_reference_problems(reading)
    if problems:
        raise validation_errors.error_with_problems(validation_errors.sort_problems(problems))
    return reading.workspace


def _salvaged_reference_problems(reading: ReadResult) -> Iterator[Problem]:
    """Unknown names in broken documents, to be reported together with the problems of form."""
    if not reading.salvaged:
        return
    with_salvaged = replace(reading.workspace, documents={**reading.workspace.documents, **reading.salvaged})
    for rule in (_unknown_references, _unknown_people):
        reported = set(rule(reading.workspace, reading.broken))
        yield from (problem for problem in rule(with_salvaged, reading.broken) if problem not in reported)


def check(
    workspace: Workspace, *, known_price: KnownPrice | None = None, broken: Broken = frozenset()
) -> tuple[Problem, ...]:
    """Check every rule between documents; returns the problems ordered by place.

    `broken` documents exist but are invalid: references to them are not reported as unknown. Without `known_price`,
    prices are not checked.
    """
    problems: list[Problem] = []
    for rule in (_unknown_references, _unknown_people, _group_cycles, _ambiguous_names):
        problems += rule(workspace, broken)
    problems += deployment_problems(workspace, known_price)
    problems += budget_problems(workspace)
    problems += limit_problems(workspace, broken)
    problems += allocation_problems(workspace)
    problems += currency_problems(workspace)
    problems += grant_problems(workspace)
    problems += workload_problems(workspace, broken)
    problems += placement_problems(workspace)
    problems += index_problems(workspace, broken)
    return validation_errors.sort_problems(problems)


def _document_references(doc: model.Strict) -> Iterator[tuple[Place, tuple[str, ...], str]]:
    """(path, kinds that may be named, name) of each reference to a document other than a person."""
    for path, kind in (("site", "site"), ("team", "team"), ("workflow", "workflow"), ("prompt", "prompt")):
        name = getattr(doc, path, None)
        if isinstance(name, str) and path in type(doc).model_fields:
            yield (path,), (kind,), name.partition("@")[0]
    lists = {
        "sources": ("source",),
        "deployments": ("deployment",),
        "fallbacks": ("deployment",),
        "embeddings": ("deployment",),
        "also": ("deployment",),
        "integrations": ("integration",),
        "includes": ("group", "team"),
        "workloads": ("workload",),
    }
    for path, kinds in lists.items():
        for i, name in enumerate(getattr(doc, path, ())):
            yield (path, i), kinds, name
    for path in ("covers", "on"):
        kind, _, name = getattr(doc, path, "").partition("/")
        if name and kind not in ("key", "model", "user"):
            yield (path,), (kind,), name
    for path, undeclared in (("readers", {EVERYONE, PUBLIC}), ("to", {EVERYONE})):
        for i, name in enumerate(getattr(doc, path, ())):
            if name not in undeclared and not is_email(name.lower()):
                yield (path, i), ("group", "team", "person"), name


def _names_by_kind(workspace: Workspace, broken: Broken) -> dict[str, set[str]]:
    """Kind -> names of the documents that exist, valid or broken."""
    names: dict[str, set[str]] = {kind: set() for kind in model.KINDS}
    for kind, name in (*workspace.documents, *broken):
        names[kind].add(name)
    return names


def _unknown_references(workspace: Workspace, broken: Broken) -> Iterator[Problem]:
    by_kind = _names_by_kind(workspace, broken)
    for (kind, name), (doc, _) in workspace.documents.items():
        for path, kinds, target in _document_references(doc):
            if not any(target in by_kind[each] for each in kinds):
                names = set().union(*(by_kind[each] for each in kinds), {EVERYONE} if "person" in kinds else ())
                label = " or ".join(kinds)
                yield Problem(
                    f"{label} {target} is not declared",
                    f"unknown_{kinds[0]}",
                    validation_errors.suggestion(target, names, label),
                    workspace.where(kind, name, *path),
                )


def _unknown_people(workspace: Workspace, broken: Broken) -> Iterator[Problem]:
    by_kind = _names_by_kind(workspace, broken)
    person_names, groups = by_kind["person"], by_kind["group"] | by_kind["team"]
    for (kind, name), (doc, _) in workspace.documents.items():
        for path, ref in person_references(doc).items():
            if "@" in ref or ref in person_names:
                continue
            where = workspace.where(kind, name, *path)
            if ref in groups or ref == EVERYONE:
                advice = "Name it under `includes`." if kind == "group" else "Name a person."
                yield Problem(f"{ref} is a group, and {path[0]} must be people", "not_a_person", advice, where)
            else:
                hint = closest_name(ref, person_names)
                yield Problem(
                    f"person {ref} is not declared",
                    "unknown_person",
                    f"Did you mean {hint}?" if hint else "Write an e-mail address, or declare kind: person.",
                    where,
                )
        yield from _duplicate_people(workspace, kind, name, doc)


def _duplicate_people(workspace: Workspace, kind: str, name: str, doc: model.Strict) -> Iterator[Problem]:
    """A person named twice in one duty or one list of members."""
    seen: set[tuple[Place, str]] = set()
    for path, ref in person_references(doc).items():
        person = workspace.people.get(ref)
        key = (path[:-1] if isinstance(path[-1], int) else path, person.email if person else ref)
        if key in seen:
            label = ".".join(str(part) for part in key[0])
            yield Problem(
                f"the same person is there twice in {label}",
                "person_twice",
                "Keep one.",
                workspace.where(kind, name, *path),
            )
        seen.add(key)


def _group_cycles(workspace: Workspace, _broken: Broken) -> Iterator[Problem]:
    """Groups and teams that include themselves: one problem per cycle, at the entry that closes it."""
    docs: dict[str, model.GroupDoc | model.TeamDoc] = {**workspace.groups, **workspace.teams}
    graph = {name: [other for other in docs[name].includes if other in docs] for name in sorted(docs)}
    while (cycle := _find_cycle(graph)) is not None:
        name, other = cycle[-2], cycle[-1]
        yield Problem(
            f"{docs[name].kind} {name} includes itself: {' -> '.join((name, *cycle[:-1]))}",
            "cyclic_group",
            "Remove one of these from includes.",
            workspace.where(docs[name].kind, name, "includes", docs[name].includes.index(other)),
        )
        graph[name].remove(other)


def _find_cycle(graph: dict[str, list[str]]) -> tuple[str, ...] | None:
    """A cycle, as names that each include the next; the first name is repeated at the end."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return tuple(reversed(error.args[1]))
    return None


def _ambiguous_names(workspace: Workspace, broken: Broken) -> Iterator[Problem]:
    """Names and e-mail addresses with two meanings."""
    for name in workspace.teams:
        if name in workspace.groups:
            first = workspace.where("group", name, "name")
            yield Problem(
                f"{name} is a group (at {first}) and a team",
                "duplicate_name",
                "Rename one; permissions name both alike.",
                workspace.where("team", name, "name"),
            )
    for kind, docs in (("group", workspace.groups), ("team", workspace.teams), ("person", workspace.people)):
        for name in (EVERYONE, PUBLIC):
            if name in docs:
                where = workspace.where(kind, name, "name")
                yield Problem(f"{name} exists without being declared", "reserved_name", "Choose another name.", where)
    emails: dict[str, str] = {}
    for name, person in workspace.people.items():
        first_name = emails.setdefault(person.email, name)
        if first_name != name:
            first = workspace.where("person", first_name, "email")
            yield Problem(
                f"the e-mail address belongs to {first_name} (at {first})",
                "duplicate_email",
                "One person has one document.",
                workspace.where("person", name, "email"),
            )
    if workspace.company.separation == "solo" and len(workspace.names_by_email()) > 1 and not broken:
        yield Problem(
            "separation is solo, yet more than one person is named",
            "solo_with_others",
            "Write separation: enforced, so that nobody approves their own change.",
            workspace.where("company", workspace.company.name, "separation"),
        )
