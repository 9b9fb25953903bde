"""What the libraries of stores say when a store does not answer is a store that is away, whatever class it has."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import fsspec
import pytest
from azure.core.exceptions import ServiceRequestError
from fsspec.spec import AbstractFileSystem

from groundplan.core.errors import Unavailable
from groundplan.knowledge.sources.object_store import ObjectStoreConnector


class Failing(AbstractFileSystem):  # type: ignore[misc]
    """A store with one document, which fails as told."""

    protocol = "failing"
    cachable = False
    error: Exception
    at = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._fails("opened")

    def _fails(self, what: str) -> None:
        if Failing.at == what:
            raise Failing.error

    def ls(self, path: str, *_: Any, **__: Any) -> Any:
        self._fails("listed")
        return [{"name": f"{path.rstrip('/')}/a.md", "size": 1, "type": "file"}]

    def cat_file(self, *_: Any, **__: Any) -> bytes:
        self._fails("read")
        return b"A"


class HttpError(Exception):
    """As the store of Google says it; it is no `OSError`."""


@pytest.mark.parametrize("at", ["opened", "listed", "read"])
@pytest.mark.parametrize("error", [ServiceRequestError("no answer"), HttpError("no answer")], ids=["adlfs", "gcsfs"])
def test_a_store_that_does_not_answer_is_away(error: Exception, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    google = ModuleType("gcsfs.retry")
    google.HttpError = HttpError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gcsfs.retry", google)
    fsspec.register_implementation("failing", Failing, clobber=True)
    monkeypatch.setattr(Failing, "error", error, raising=False)
    monkeypatch.setattr(Failing, "at", "")
    connector = ObjectStoreConnector("failing://docs", {}, 1000)
    assert [change.key for change in connector.changes(None)] == ["a.md"]
    assert connector.read("a.md").data == b"A"
    monkeypatch.setattr(Failing, "at", at)
    if at == "opened":
        connector = ObjectStoreConnector("failing://docs", {}, 1000)
    with pytest.raises(Unavailable, match="no answer") as caught:
        list(connector.changes(None))
        connector.read("a.md")
    assert caught.value.code == "source_missing"
