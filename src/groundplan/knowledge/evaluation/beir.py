"""Reading a folder in the shape of the BEIR benchmark: corpus.jsonl, queries.jsonl, qrels/*.tsv. Measures nothing."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.knowledge.parsing.text import clean

MAX_ID_CHARS = 500
_SPLITS = ("test", "dev", "train")
_SCORE = re.compile(r"[+-]?[0-9]{1,6}(?:\.0*)?")


@dataclass(frozen=True, slots=True)
class Item:
    """A document of the corpus; its text is what is searched, title included."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class LabelledCorpus:
    """A folder that was read. `relevant`: query -> document -> grade, of the queries that have any."""

    items: list[Item]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    split: str
    digest: str
    """Of the corpus alone: the same documents need not be taken over again."""
    unknown_documents: int = 0
    """Judgements above 0 about documents that the corpus does not have: nothing can find them."""
    unknown_queries: int = 0
    """Judged queries that queries.jsonl does not have: they are not asked."""


def read_corpus(folder: Path) -> LabelledCorpus:
    """Raises `Invalid` (evaluation_folder) with file and line where something is missing or not understood."""
    corpus, asked = folder / "corpus.jsonl", folder / "queries.jsonl"
    items = list(_items(corpus))
    if not any(item.text.strip() for item in items):
        raise _invalid(corpus, 0, "no document has a text", 'Write {"_id": "1", "title": "…", "text": "…"} a line.')
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.title, item.text]).encode())
    file = _judgements(folder / "qrels")
    relevant = _relevant(file)
    queries = {id: text for id, text in _queries(asked, relevant.keys()) if id in relevant}
    judged = {id: grades for id, grades in relevant.items() if id in queries}
    if not judged:
        raise _invalid(file, 0, f"it has no judged queries of {asked.name}", "Name an `_id` of it, a score above 0.")
    documents = {item.id for item in items}
    found = [document in documents for grades in judged.values() for document, grade in grades.items() if grade > 0]
    if not any(found):
        raise _invalid(file, 0, f"it names no document of {corpus.name}", "Name an `_id` of it as corpus-id.")
    return LabelledCorpus(
        items, queries, judged, file.stem, digest.hexdigest(),
        unknown_documents=found.count(False), unknown_queries=len(relevant) - len(judged),
    )  # fmt: skip


def _items(file: Path) -> Iterator[Item]:
    for number, id, row in _rows_with_ids(file):
        title, text = _text(file, number, row, "title").strip(), _text(file, number, row, "text")
        yield Item(id, title, f"{title}\n{text}" if title else text)


def _queries(file: Path, judged: Collection[str]) -> Iterator[tuple[str, str]]:
    """Raises where one that is judged asks nothing."""
    for number, id, row in _rows_with_ids(file):
        text = _text(file, number, row, "text")
        if id in judged and not text.strip():
            raise _invalid(file, number, "`text` is missing", "Give `text` as a text.")
        yield id, text


def _rows_with_ids(file: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line, id, row) of each."""
    seen: set[str] = set()
    for number, row in _rows(file):
        value = row.get("_id")
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise _invalid(file, number, "`_id` is missing", "Give `_id` as a text or a whole number.")
        id = str(value)
        if len(id) > MAX_ID_CHARS:
            raise _invalid(file, number, f"`_id` is longer than {MAX_ID_CHARS} characters", "Give it a shorter `_id`.")
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in id):
            raise _invalid(file, number, "`_id` has a control character, or half of one", "Leave it out of `_id`.")
        if id in seen:
            raise _invalid(file, number, f"'{id}' is there twice", "Give each an `_id` of its own.")
        seen.add(id)
        yield number, id, row


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"it is no JSON: {error.msg} (character {error.colno})"
            raise _invalid(file, number, what, "Write one JSON object a line.") from error
        except (ValueError, RecursionError) as error:
            raise _invalid(file, number, "it has a number or a nesting without end", "Correct it there.") from error
        if not isinstance(row, dict):
            raise _invalid(file, number, "it is no JSON object", 'Write {"_id": "1", "text": "…"}.')
        yield number, row


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of those that have something."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise _invalid(file, number, f"it is not UTF-8 (byte {error.start + 1})", "Save it as UTF-8.") from error
    except OSError as error:
        raise _invalid(file, 0, f"it cannot be read: {error.strerror}", "Give a folder in BEIR's shape.") from error


def _text(file: Path, number: int, row: dict[str, Any], name: str) -> str:
    """Of a row, as it can be searched and stored; empty where there is none."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _invalid(file, number, f"`{name}` is no text", f"Give `{name}` as a text.")
    return clean(str(value))


def _judgements(folder: Path) -> Path:
    found = sorted(folder.glob("*.tsv"))
    if not found:
        raise _invalid(folder, 0, "it has no .tsv file", "Add test.tsv: query-id, corpus-id, score.")
    by_name = {file.stem: file for file in found}
    return next((by_name[split] for split in _SPLITS if split in by_name), found[0])


def _relevant(file: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    head = True
    for number, line in _lines(file):
        cells, headed, head = line.split("\t"), head, False
        score = cells[-1].strip()
        if len(cells) in (3, 4) and _SCORE.fullmatch(score):
            grade = int(float(score))
            if found.setdefault(cells[0], {}).setdefault(cells[-2], grade) != grade:
                raise _invalid(file, number, "it was judged otherwise above", "Leave one of the two.")
        elif not (headed and len(cells) in (3, 4) and score[:1].isalpha()):
            hint = "Write query-id, corpus-id and a whole score, with a tab between them."
            raise _invalid(file, number, "it is no judgement", hint)
    return {query: grades for query, grades in found.items() if any(grade > 0 for grade in grades.values())}


def _invalid(file: Path, line: int, what: str, hint: str) -> Invalid:
    place = f"{file}:{line}" if line else str(file)
    return Invalid(f"{place}: {what}", code="evaluation_folder", hint=hint)
