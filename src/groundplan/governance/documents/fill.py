"""Fills the template of a document from facts, and marks what is missing. Pure.

A section that no fact answers, or that only people can answer, is filled from evidence for it (`annex-iv/8`), or else
missing. Nothing is invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from groundplan.governance.documents.facts import DocumentEvidence, Statement, statements_json
from groundplan.governance.documents.template import Section, Template

MISSING = "missing"


@dataclass(frozen=True, slots=True)
class FilledSection:
    """One section. `missing`: names of facts that are not known; without `statements` the whole section is missing."""

    section: Section
    statements: tuple[Statement, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A document about one workload on one day."""

    template: Template
    workload: str
    company: str
    blueprint: int
    on: date
    sections: tuple[FilledSection, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Numbers of the sections without statements."""
        return tuple(each.section.id for each in self.sections if not each.statements)

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
    known: Mapping[str, Sequence[Statement]],
    evidence: Sequence[DocumentEvidence],
    *,
    workload: str,
    company: str,
    blueprint: int,
    on: date,
) -> Document:
    """Fill a template. `known`: sentences by name of fact (`facts.facts`); `evidence`: that of the workload."""
    sections = tuple(_fill_section(template.name, section, known, evidence) for section in template.sections)
    return Document(template, workload, company, blueprint, on, sections)


def _fill_section(
    document: str, section: Section, known: Mapping[str, Sequence[Statement]], evidence: Sequence[DocumentEvidence]
) -> FilledSection:
    statements: list[Statement] = []
    for name in section.facts:
        statements += [each for each in known.get(name, ()) if each not in statements]
    for each in evidence:
        if each.what == f"{document}/{section.id}":
            link = f" ({each.link})" if each.link else ""
            statements.append(Statement(f"{each.says}{link}", f"evidence {each.id}"))
    return FilledSection(section, tuple(statements), tuple(name for name in section.facts if not known.get(name)))


def _json(document: str, each: FilledSection) -> dict[str, Any]:
    section = each.section
    return {
        "id": section.id,
        "title": section.title,
        "asks": section.asks,
        "said": statements_json(each.statements),
        "missing": list(each.missing),
        "state": MISSING if not each.statements else "partly" if each.missing else "filled",
        "evidence": f"{document}/{section.id}",
    }


def markdown(made: Document) -> str:
    """The document as Markdown; texts from outside are escaped."""
    template = made.template
    lines = [
        f"# {template.title}: {_escape(made.workload)}",
        "",
        f"{_escape(made.company)}, {made.on.isoformat()}, blueprint {made.blueprint}. {template.law}.",
        "",
        f"*{template.note}* Source: {template.source}, read {template.as_of.isoformat()}.",
        "",
    ]
    if made.missing:
        lines += [f"**Missing: {', '.join(made.missing)}.**", ""]
    for each in made.sections:
        lines += [f"## {each.section.id} {each.section.title}", "", f"*{each.section.asks}*", ""]
        lines += [
            f"- {_escape(statement.text)} <sub>{_escape(statement.origin)}</sub>" for statement in each.statements
        ]
        if not each.statements:
            lines.append(f"**Missing.** Give it: `groundplan evidence add {template.name}/{each.section.id} "
                         f"--workload {made.workload} --says ...`")  # fmt: skip
        elif each.missing:
            lines.append(f"- Not declared: {', '.join(name.replace('_', ' ') for name in each.missing)}")
        lines.append("")
    return "\n".join(lines)


def _escape(text: str) -> str:
    for char in "\\`*_[]|<":
        text = text.replace(char, "&lt;" if char == "<" else f"\\{char}")
    return text.replace("\n", " ")
