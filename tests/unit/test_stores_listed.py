"""How stores are listed whole, and that a listing has an end."""

from __future__ import annotations

from typing import Any

import pytest

from groundplan.knowledge.sources import file_systems
from groundplan.knowledge.sources.file_systems import FileSystem


class Circle:
    """A server that follows a link of a folder to itself."""

    protocol = "webdav"

    def ls(self, folder: str, detail: bool) -> list[dict[str, Any]]:
        assert detail
        return [{"name": f"{folder}/again", "type": "directory"}, {"name": f"{folder}/a.md", "type": "file"}]


def test_a_circle_of_folders_is_an_error_and_no_endless_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "MAX_FOLDERS", 50)
    with pytest.raises(OSError, match="leads back"):
        FileSystem(Circle(), "root", (OSError,)).files()
