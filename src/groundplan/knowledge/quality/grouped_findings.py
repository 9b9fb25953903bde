"""Groups findings about personal data by folder: one finding for many documents with the same owners. Pure.

Each message of an e-mail archive has addresses in it. The scores of the documents do not change by grouping.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from groundplan.core.words import quantity
from groundplan.knowledge.quality.documents import counts_text
from groundplan.knowledge.quality.model import KINDS
from groundplan.ledger.finding import Finding

PERSONAL: Final = "knowledge.personal_data"
MAX_SINGLE: Final = 20
"""Most documents of one folder that keep findings of their own, each with its fix."""


def group_findings(source: str, found: Iterable[Finding]) -> tuple[list[Finding], list[str]]:
    """(findings, subjects of grouped documents): findings about personal data are replaced by one for each folder in
    which the same people answer for more than `MAX_SINGLE` documents."""
    kept: list[Finding] = []
    folders: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for each in found:
        if each.kind == PERSONAL:
            folders[folder_of(each.subject), *each.detail["whose"]].append(each)
        else:
            kept.append(each)
    covered: list[str] = []
    for (folder, *_), group in folders.items():
        if len(group) <= MAX_SINGLE:
            kept += group
        else:
            kept.append(_group_finding(source, folder, group))
            covered += [each.subject for each in group]
    return kept, covered


def folder_of(subject: str) -> str:
    """The subject of a grouped finding for a document: the source itself for documents at its top, else the folder with
    a final slash, which no document has."""
    source, _, path = subject.removeprefix("source/").partition("/")
    folder = PurePosixPath(path).parent.as_posix()
    return f"source/{source}" if folder in (".", "") else f"source/{source}/{folder}/"


def is_grouped(finding: Finding) -> bool:
    """Whether a finding is about all documents of a folder."""
    return finding.kind == PERSONAL and "holds" in finding.detail


def _group_finding(source: str, folder: str, findings: Sequence[Finding]) -> Finding:
    first, counts = findings[0], Counter[str]()
    for each in findings:
        counts.update(each.detail["counts"])
    place = folder.removeprefix(f"source/{source}").strip("/")
    location = f"{place} of {source}" if place else source
    return Finding(
        kind=PERSONAL, subject=folder, severity=KINDS[PERSONAL].severity, owner=first.owner,
        mark=" ".join(first.detail["whose"]),
        message=f"{quantity(len(findings), 'document')} in {location} are public or internal and hold personal data: "
        f"{counts_text(counts)}",
        hint="Take it out, or raise the `sensitivity` of the folder (`.governed.yaml`) or of the source to "
        f"confidential. `groundplan knowledge documents --source {source} --holds personal_data` lists them.",
        detail={
            "documents": len(findings), "counts": dict(counts), "source": source, "holds": "personal_data",
            "whose": first.detail["whose"],
        },
    )  # fmt: skip
