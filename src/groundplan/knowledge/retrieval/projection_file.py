"""The projection on disk, so that a start reads only what changed meanwhile. Discarded where anything is inconsistent.

Written to a temporary folder and then renamed, so that a kill leaves the old or the new one. Damage by a loss of power
is found by checksums: syncing would make the journal on the same disk wait. It is a copy of data in PostgreSQL without
the texts: losing it costs time, nothing else.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import numpy as np

from groundplan.core.logger import get_logger
from groundplan.knowledge.retrieval import vectors, words
from groundplan.knowledge.retrieval.columns import Columns
from groundplan.knowledge.retrieval.documents import DocumentRegistry
from groundplan.knowledge.retrieval.projection import Projection, View

FORMAT: Final = 7
"""Changes with the analyzer, the arrays or their meaning; another format is not read."""
_MIN_CHANGES: Final = 1000
PURGE_SECONDS: Final = 3600.0
"""How long deleted documents may still be in the copy, as numbers and terms."""
RETRY_SECONDS: Final = 60.0

_log = get_logger("groundplan.knowledge")


class ProjectionFile:
    """The saved projection below a folder of this installation. One process uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / f"projection-{FORMAT}"
        self._index = Projection()
        self._saved_cursor = 0
        self._purged_count = 0
        self._purged_at = -PURGE_SECONDS
        self._is_due = False
        """The saved copy contains deleted documents, or is of another edition."""
        self._not_before = 0.0

    def load(self) -> Projection:
        """The saved projection; an empty one where there is none or it is damaged. Copies in other formats are deleted,
        since documents deleted from this one would stay in them."""
        for other in self._folder.parent.glob("projection-*"):
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)
        try:
            self._index = self._restore()
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            self._index = Projection()
        self._saved_cursor = self._index.cursor
        return self._index

    def save_if_due(self, index: Projection) -> None:
        """Save if a tenth, and at least a thousand changes, have changed since the last time, or if another edition is
        serving now. Deleted documents are purged at the first call and then within an hour. If the disk fails, the
        previous copy stays, and saving is retried a minute later."""
        if index is not self._index:
            self._index, self._saved_cursor, self._purged_count, self._is_due = index, index.cursor, 0, True
        if index.forgotten_count != self._purged_count and time.monotonic() - self._purged_at > PURGE_SECONDS:
            self._purged_at, self._purged_count, self._is_due = time.monotonic(), index.forgotten_count, True
            index.purge()
        changed = self._index.cursor - self._saved_cursor
        if time.monotonic() < self._not_before:
            return
        if self._is_due or changed >= max(_MIN_CHANGES, self._index.count // 10):
            try:
                self.save()
            except OSError as error:
                shutil.rmtree(self._temporary_folder, ignore_errors=True)  # others need the room
                self._not_before = time.monotonic() + RETRY_SECONDS
                _log.warning("knowledge.index_not_kept", reason=str(error))

    def save(self) -> None:
        """Save now."""
        state = self._index.snapshot()
        fresh = self._temporary_folder
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        for name, array in _arrays(state["view"]).items():
            np.save(fresh / name, array)
        (fresh / "terms").write_text("\n".join(state["view"].terms), encoding="utf-8")
        (fresh / "state.json").write_text(json.dumps({**_describe(state), "sums": _checksums(fresh)}))
        shutil.rmtree(self._folder, ignore_errors=True)
        fresh.rename(self._folder)
        self._saved_cursor, self._is_due = state["view"].cursor, False

    @property
    def _temporary_folder(self) -> Path:
        return self._folder.with_suffix(".new")

    def _restore(self) -> Projection:
        state = json.loads((self._folder / "state.json").read_bytes())
        if state.get("sums", sums := _checksums(self._folder)) != sums:
            raise ValueError("not what was saved")
        arrays = {path.stem: np.load(path) for path in self._folder.glob("*.npy")}
        columns = Columns(
            arrays["chunks"],
            arrays["classes"],
            arrays["lengths"],
            arrays["documents"],
            arrays["embedded"],
            vectors.EncodedVectors(
                arrays["bits"],
                vectors.transpose_signs(arrays["bits"]),
                arrays["small"],
                arrays["rest"],
                arrays["scale"],
            ),
        )
        size = int(state["size"])
        if {len(one) for one in (columns.chunks, columns.classes, columns.lengths, columns.encoded.scale)} != {size}:
            raise ValueError("arrays of different lengths")
        segments = tuple(
            words.Segment(*(arrays[f"segment{number}_{name}"] for name in _SEGMENT_ARRAYS))
            for number in range(state["segments"])
        )
        terms = (self._folder / "terms").read_text(encoding="utf-8").split("\n") if state["terms"] else []
        if len(terms) != state["terms"]:
            raise ValueError("another number of terms")
        names = [(str(source), int(acl)) for source, acl in state["names"]]
        documents = {UUID(id).bytes: (first, count) for id, first, count in state["documents"]}
        index = Projection(int(state["edition"]))
        index.restore(
            columns, segments, names, int(state["cursor"]), terms, documents, _restore_documents(arrays, state)
        )
        return index


_SEGMENT_ARRAYS: Final = ("terms", "starts", "rows", "counts")
_METADATA_ARRAYS: Final = ("first", "count", "numbers", "modified")


def _restore_documents(arrays: Mapping[str, Any], state: Mapping[str, Any]) -> DocumentRegistry:
    """The saved attributes of documents."""
    every, ends = arrays["paths"].tobytes(), arrays["path_ends"].tolist()
    paths = [every[start:end] for start, end in pairwise([0, *ends])]
    book = DocumentRegistry()
    first, count, numbers, modified = (arrays[f"metadata_{name}"] for name in _METADATA_ARRAYS)
    book.restore(first, count, numbers, modified, [str(one) for one in state["metadata"]], paths)
    return book


def _arrays(view: View) -> dict[str, Any]:
    columns = view.columns
    arrays: dict[str, Any] = {
        "chunks": columns.chunks,
        "classes": columns.classes,
        "lengths": columns.lengths,
        "documents": columns.documents,
        "embedded": columns.embedded,
        "bits": columns.encoded.bits,
        "small": columns.encoded.small,
        "rest": columns.encoded.rest,
        "scale": columns.encoded.scale,
    }
    documents = view.documents
    arrays |= {f"metadata_{name}": getattr(documents, name) for name in _METADATA_ARRAYS}
    # only those of this view: the sequence may grow meanwhile
    paths = documents.paths[: len(documents.first)]
    arrays["paths"] = np.frombuffer(b"".join(paths), np.uint8)
    arrays["path_ends"] = np.cumsum([len(path) for path in paths], dtype=np.int64)
    for number, segment in enumerate(view.segments):
        arrays |= {f"segment{number}_{name}": getattr(segment, name) for name in _SEGMENT_ARRAYS}
    return arrays


def _checksums(folder: Path) -> dict[str, int]:
    """Name -> CRC-32 of each file except state.json."""
    return {path.name: _checksum(path) for path in folder.iterdir() if path.name != "state.json"}


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


def _describe(state: dict[str, Any]) -> dict[str, Any]:
    view: View = state["view"]
    return {
        "edition": state["edition"],
        "cursor": view.cursor,
        "size": view.size,
        "segments": len(view.segments),
        "terms": len(view.terms),
        "names": view.classes.keys(),
        "metadata": list(view.documents.names),
        "documents": [(str(UUID(bytes=id)), first, count) for id, (first, count) in state["documents"].items()],
    }
