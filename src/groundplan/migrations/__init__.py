"""The schema of the database as SQL files, applied in the order of their numbers: `NNN_area.sql`.

The first sixteen, up to `BASELINE`, create everything, one file per area. A later change is one more file. Each file is
one step with its own transaction; there is no way back from a step: a backup is restored instead. Runs nothing:
`runtime.upgrade` does, with Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, LiteralString

FOLDER: Final = Path(__file__).parent
BASELINE: Final = "016_economics"
"""The revision of a database that has all areas, and no later step."""


def revisions(folder: Path = FOLDER) -> list[str]:
    """All steps in their order. A revision is the name of its file without `.sql`."""
    return sorted(path.stem for path in folder.glob("[0-9]*.sql"))


def statements(revision: str, database: str, folder: Path = FOLDER) -> LiteralString:
    """The SQL of a step. In a file `%(db)s` stands for the name of the database, after which its roles are named, and
    `%%` for a percent sign."""
    text = (folder / f"{revision}.sql").read_text(encoding="utf-8")
    return text % {"db": database}
