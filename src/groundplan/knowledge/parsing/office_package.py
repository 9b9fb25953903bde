"""Parts of an Office archive and what they lead to, as `python-docx` and `python-pptx` have them, for XLSX: its library
passes over what is drawn when it reads rows one by one. Parts that are not there are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from zipfile import ZipFile


@dataclass(frozen=True, slots=True)
class Part:
    archive: ZipFile
    path: str

    @property
    def blob(self) -> bytes:
        return self.archive.read(self.path)

    @property
    def rels(self) -> dict[str, Relation]:
        """By their id."""
        from openpyxl.packaging.relationship import get_dependents, get_rels_path  # noqa: PLC0415 -- heavy

        path, names = get_rels_path(self.path), set(self.archive.namelist())
        found = get_dependents(self.archive, path) if path in names else ()
        return {
            each.Id: Relation(each.Type, each.TargetMode == "External", Part(self.archive, each.target))
            for each in found
            if each.TargetMode == "External" or each.target in names
        }


@dataclass(frozen=True, slots=True)
class Relation:
    reltype: str
    is_external: bool
    target_part: Part
