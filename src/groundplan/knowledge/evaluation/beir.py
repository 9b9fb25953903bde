"""Reading a folder in the shape of the BEIR benchmark: corpus.jsonl, queries.jsonl, qrels/*.tsv. Measures nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundplan.core.errors import Invalid

_SPLITS = ("test", "dev", "train")


@dataclass(frozen=True, slots=True)
class Item:
    """A document of the corpus; its text is what is searched, title included."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """A folder that was read. `relevant`: query -> document -> grade, of the queries that have any."""

    items: list[Item]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    split: str
    digest: str
    """Of the corpus alone: the same documents need not be taken over again."""


def read(folder: Path) -> Labelled:
    """Raises `Invalid` (evaluation_folder) with file and line where something is missing or not understood."""
    items = list(_items(folder / "corpus.jsonl"))
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.title, item.text]).encode())
    file = _judgements(folder / "qrels")
    relevant = _relevant(file)
    queries = {id: text for id, text in _queries(folder / "queries.jsonl") if id in relevant}
    if not items or not queries:
        raise _invalid(
            folder, 0, "it has no documents or no judged queries", "Add corpus.jsonl, queries.jsonl, qrels/test.tsv."
        )
    judged = {id: grades for id, grades in relevant.items() if id in queries}
    return Labelled(items, queries, judged, file.stem, digest.hexdigest())


def _items(file: Path) -> Iterator[Item]:
    seen: set[str] = set()
    for number, row in _rows(file):
        id = _text(file, number, row, "_id")
        if id in seen:
            raise _invalid(file, number, f"'{id}' is there twice", "Give each document an id of its own.")
        seen.add(id)
        title, text = str(row.get("title") or "").strip(), str(row.get("text") or "")
        yield Item(id, title, f"{title}\n{text}" if title else text)


def _queries(file: Path) -> Iterator[tuple[str, str]]:
    for number, row in _rows(file):
        yield _text(file, number, row, "_id"), _text(file, number, row, "text")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise _invalid(file, number, "it is no JSON object", 'Write {"_id": "1", "text": "…"}.')
                yield number, row
    except OSError as error:
        raise _invalid(file, 0, f"it cannot be read: {error.strerror}", "Give a folder in BEIR's shape.") from error
    except ValueError as error:
        raise _invalid(file, 0, f"it is no JSON in UTF-8: {error}", "Write a JSON object a line.") from error


def _text(file: Path, number: int, row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, (str, int)) or not str(value):
        raise _invalid(file, number, f"`{name}` is missing", f"Give `{name}` as a text.")
    return str(value)


def _judgements(folder: Path) -> Path:
    found = sorted(folder.glob("*.tsv"))
    if not found:
        raise _invalid(folder, 0, "it has no .tsv file", "Add test.tsv: query-id, corpus-id, score.")
    by_name = {file.stem: file for file in found}
    return next((by_name[split] for split in _SPLITS if split in by_name), found[0])


def _relevant(file: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(file, 0, f"it cannot be read: {error}", "Save it as UTF-8.") from error
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if number == 1 and len(cells) == 3 and not _whole(cells[2]):
            continue
        if not line.strip():
            continue
        if len(cells) not in (3, 4) or not _whole(cells[-1]):
            raise _invalid(file, number, "it is no judgement", "Write query-id, corpus-id and score between tabs.")
        found.setdefault(cells[0], {})[cells[-2]] = int(cells[-1])
    return {query: grades for query, grades in found.items() if any(grade > 0 for grade in grades.values())}


def _whole(text: str) -> bool:
    return text.strip().lstrip("-").isdigit()


def _invalid(file: Path, line: int, what: str, hint: str) -> Invalid:
    place = f"{file}:{line}" if line else str(file)
    return Invalid(f"{place}: {what}", code="evaluation_folder", hint=hint)
