"""One document: a template filled from facts, with what is missing marked. Pure.

A section that no fact answers, or that only people can answer, is filled by evidence that was given for it
(`annex-iv/8`), and is missing otherwise. Nothing is made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from groundplan.governance.documents.facts import Said, Shown, json_of
from groundplan.governance.documents.template import Section, Template

MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Filled:
    """One section. `missing`: names of facts that are not there; empty `said`: the whole section is missing."""

    section: Section
    said: tuple[Said, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A document about one workload on one day."""

    template: Template
    workload: str
    company: str
    blueprint: int
    on: date
    sections: tuple[Filled, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Numbers of the sections that say nothing yet."""
        return tuple(each.section.id for each in self.sections if not each.said)

    def to_json(self) -> dict[str, Any]:
        made = self.template
        return {
            "document": made.name, "title": made.title, "law": made.law, "source": made.source, "as_of": made.as_of,
            "note": made.note, "workload": self.workload, "company": self.company, "blueprint": self.blueprint,
            "on": self.on, "missing": list(self.missing),
            "sections": [_json(made.name, each) for each in self.sections],
        }  # fmt: skip


def fill(
    template: Template,
    known: Mapping[str, Sequence[Said]],
    evidence: Sequence[Shown],
    *,
    workload: str,
    company: str,
    blueprint: int,
    on: date,
) -> Document:
    """`known`: sentences by name of fact (`facts.facts`); `evidence` what stands for the workload."""
    sections = tuple(_filled(template.name, section, known, evidence) for section in template.sections)
    return Document(template, workload, company, blueprint, on, sections)


def _filled(document: str, section: Section, known: Mapping[str, Sequence[Said]], evidence: Sequence[Shown]) -> Filled:
    said: list[Said] = []
    for name in section.facts:
        said += [each for each in known.get(name, ()) if each not in said]
    for each in evidence:
        if each.what == f"{document}/{section.id}":
            link = f" ({each.link})" if each.link else ""
            said.append(Said(f"{each.says}{link}", f"evidence {each.id}"))
    return Filled(section, tuple(said), tuple(name for name in section.facts if not known.get(name)))


def _json(document: str, each: Filled) -> dict[str, Any]:
    return {
        "id": each.section.id, "title": each.section.title, "asks": each.section.asks, "said": json_of(each.said),
        "missing": list(each.missing), "state": MISSING if not each.said else "partly" if each.missing else "filled",
        "evidence": f"{document}/{each.section.id}",
    }  # fmt: skip


def markdown(made: Document) -> str:
    """The document as Markdown; whatever comes from outside is escaped."""
    template = made.template
    lines = [
        f"# {template.title}: {_escaped(made.workload)}",
        "",
        f"{_escaped(made.company)}, {made.on.isoformat()}, blueprint {made.blueprint}. {template.law}.",
        "",
        f"*{template.note}* Source: {template.source}, read {template.as_of.isoformat()}.",
        "",
    ]
    if made.missing:
        lines += [f"**Missing: {', '.join(made.missing)}.**", ""]
    for each in made.sections:
        lines += [f"## {each.section.id} {each.section.title}", "", f"*{each.section.asks}*", ""]
        lines += [f"- {_escaped(said.text)} <sub>{_escaped(said.origin)}</sub>" for said in each.said]
        if not each.said:
            lines.append(f"**Missing.** Give it: `groundplan evidence add {template.name}/{each.section.id} "
                         f"--workload {made.workload} --says ...`")  # fmt: skip
        elif each.missing:
            lines.append(f"- Not declared: {', '.join(name.replace('_', ' ') for name in each.missing)}")
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    for char in "\\`*_[]|<":
        text = text.replace(char, "&lt;" if char == "<" else f"\\{char}")
    return text.replace("\n", " ")
