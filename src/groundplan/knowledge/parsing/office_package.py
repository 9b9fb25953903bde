"""Parts of an Office archive and their relations, in the form of `python-docx` and `python-pptx`, for XLSX, whose
library skips drawings when it reads rows one by one. Missing parts are left out.
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
        """The relations of this part to others, by id."""
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
