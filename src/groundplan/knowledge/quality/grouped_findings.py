"""One task for what is the same in many documents: personal data in a folder, told once to its owner. Pure.

Each message of an archive of e-mail has addresses in it. What the documents are worth does not change by it.
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
"""Documents of one folder that are told one by one, each with a fix of its own."""


def group_findings(source: str, found: Iterable[Finding]) -> tuple[list[Finding], list[str]]:
    """The findings with those of personal data told once for each folder in which the same people answer for many, and
    the subjects of those that are in such a one."""
    kept: list[Finding] = []
    folders: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for each in found:
        if each.kind == PERSONAL:
            folders[folder_of(each.subject), *each.detail["whose"]].append(each)
        else:
            kept.append(each)
    covered: list[str] = []
    for (folder, *_), several in folders.items():
        if len(several) <= MAX_SINGLE:
            kept += several
        else:
            kept.append(_group_finding(source, folder, several))
            covered += [each.subject for each in several]
    return kept, covered


def folder_of(subject: str) -> str:
    """The subject of the finding about all documents of a document's folder: of the source itself for those that are in
    none, else it ends with a slash, as no document does."""
    source, _, path = subject.removeprefix("source/").partition("/")
    folder = PurePosixPath(path).parent.as_posix()
    return f"source/{source}" if folder in (".", "") else f"source/{source}/{folder}/"


def is_grouped(finding: Finding) -> bool:
    """Whether it is about all documents of a folder."""
    return finding.kind == PERSONAL and "holds" in finding.detail


def _group_finding(source: str, folder: str, several: Sequence[Finding]) -> Finding:
    first, counts = several[0], Counter[str]()
    for each in several:
        counts.update(each.detail["counts"])
    place = folder.removeprefix(f"source/{source}").strip("/")
    where = f"{place} of {source}" if place else source
    return Finding(
        kind=PERSONAL, subject=folder, severity=KINDS[PERSONAL].severity, owner=first.owner,
        mark=" ".join(first.detail["whose"]),
        message=f"{quantity(len(several), 'document')} in {where} are public or internal and hold personal data: "
        f"{counts_text(counts)}",
        hint="Take it out, or raise the `sensitivity` of the folder (`.governed.yaml`) or of the source to "
        f"confidential. `groundplan knowledge documents --source {source} --holds personal_data` lists them.",
        detail={
            "documents": len(several), "counts": dict(counts), "source": source, "holds": "personal_data",
            "whose": first.detail["whose"],
        },
    )  # fmt: skip
