"""Parses YAML 1.2 text into plain documents that keep the line and column of every key and value.

Built on the event parser of ruamel.yaml, so that only text, numbers, booleans, null, lists and mappings are
constructed: `NO` is Norway and `2026-01-01` is text. Size, depth and expanded aliases are bounded. This module does not
know the kinds of documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)
from ruamel.yaml.reader import ReaderError

from groundplan.core.errors import Problem, Where

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 50_000
HIDDEN = "[hidden]"
"""Replaces a value that looks like a secret."""

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None

_SECRET = re.compile(
    r"sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|gp_[A-Za-z0-9]{40,}|xox[abprs]-[\w-]{10,}"
    r"|AIza[\w-]{35}|-----BEGIN [A-Z ]*PRIVATE KEY|eyJ[\w-]{10,400}\.eyJ[\w-]{10}|\bBearer\s+\S{12,}",
    re.ASCII,
)
_INT = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?", re.ASCII)
_KEYWORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Positions of a value and of its key (for a list item: the item itself)."""

    key: Where
    value: Where


@dataclass(slots=True)
class Document:
    """One YAML document. `places` has an entry for every path in the document; `()` is its start."""

    value: Any
    places: dict[Path, Place] = field(default_factory=dict)

    def where(self, path: Path = (), *, key: bool = False) -> Where:
        """Place of the value at `path`, or of its key; for mappings and lists the place of their key. List positions
        that do not exist are skipped; for a missing value, the place of the nearest existing parent is returned."""
        found_path: Path = ()
        node = self.value
        for part in path:
            if (*found_path, part) in self.places:
                found_path, node = (*found_path, part), node[part]
            elif not isinstance(part, int):
                key = True
                break
        place = self.places[found_path]
        return place.key if key or isinstance(node, dict | list) else place.value


class _ReadError(Exception):
    """Stops the reading of a file with a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class _Node:
    value: Any
    places: dict[Path, Place]


def _resolve_scalar(text: str) -> Scalar:
    """Resolve a plain scalar by the YAML 1.2 core schema: null, booleans, numbers, text."""
    if text in _KEYWORDS:
        return _KEYWORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Reader:
    """Builds the documents of one file from parser events."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.problems: list[Problem] = []
        self.anchors: dict[str, _Node] = {}
        self.nodes = 0
        yaml: Any = YAML(typ="safe", pure=True)
        self.events: Iterator[Any] = iter(yaml.parse(text))

    def documents(self) -> list[Document]:
        documents: list[Document] = []
        try:
            for event in self.events:
                if isinstance(event, DocumentStartEvent):
                    self.anchors = {}
                    node = self._node(next(self.events), 0)
                    if node.value is not None:
                        documents.append(Document(node.value, node.places))
        except _ReadError as refused:
            self.problems.append(refused.problem)
        except (YAMLError, ValueError, AttributeError, IndexError) as error:
            self.problems.append(_syntax_problem(self.file, self.text, error))
        return documents

    def _where(self, event: Any) -> Where:
        mark = event.start_mark
        return Where(self.file, mark.line + 1, mark.column + 1)

    def _error(self, event: Any, message: str, code: str, hint: str) -> _ReadError:
        return _ReadError(Problem(message, code, hint, self._where(event)))

    def _count_nodes(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self._error(
                event, "the file holds too many values", "yaml_too_many", "Split it, and write out what aliases repeat."
            )

    def _node(self, event: Any, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} deep", "yaml_too_deep", "Nothing here is so deep.")
        if isinstance(event, AliasEvent):
            return self._alias(event)
        self._count_nodes(event, 1)
        if getattr(event, "tag", None) not in (None, "!"):
            raise self._error(event, "YAML tags are not read", "yaml_tag", "Remove the word that begins with !.")
        if isinstance(event, ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            node = self._mapping(event, depth)
        else:
            node = self._sequence(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> _Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            raise self._error(
                event, "the alias has no anchor before it", "yaml_alias", "Define the anchor first, outside itself."
            )
        self._count_nodes(event, len(node.places))
        where = self._where(event)
        return _Node(node.value, dict.fromkeys(node.places, Place(where, where)))

    def _scalar(self, event: Any) -> _Node:
        where = self._where(event)
        value = _resolve_scalar(event.value) if event.implicit[0] else event.value
        if isinstance(value, str) and _SECRET.search(value):
            self.problems.append(
                Problem(
                    "this looks like a secret",
                    "secret_in_file",
                    "Take it out, let its issuer replace it, and write key: env:NAME or file:/path.",
                    where,
                )
            )
            value = HIDDEN
        return _Node(value, {(): Place(where, where)})

    def _mapping(self, start: Any, depth: int) -> _Node:
        where = self._where(start)
        value: dict[str, Any] = {}
        places: dict[Path, Place] = {(): Place(where, where)}
        for event in self.events:
            if isinstance(event, MappingEndEvent):
                break
            if not isinstance(event, ScalarEvent) or event.tag not in (None, "!"):
                raise self._error(event, "a key must be plain text", "yaml_key", "Write name: value.")
            key, key_where = event.value, self._where(event)
            node = self._node(next(self.events), depth + 1)
            if key in value:
                earlier = places[(key,)].key
                hint = "Keep one of them."
                if key == "kind":
                    hint = "Write a line --- before it: each document declares one thing."
                self.problems.append(
                    Problem(f"the key is there twice, first at {earlier}", "duplicate_key", hint, key_where)
                )
                continue
            value[key] = node.value
            _add_nested_places(places, key, node.places, key_where)
        return _Node(value, places)

    def _sequence(self, start: Any, depth: int) -> _Node:
        where = self._where(start)
        value: list[Any] = []
        places: dict[Path, Place] = {(): Place(where, where)}
        for event in self.events:
            if isinstance(event, SequenceEndEvent):
                break
            node = self._node(event, depth + 1)
            _add_nested_places(places, len(value), node.places, None)
            value.append(node.value)
        return _Node(value, places)


def _add_nested_places(
    places: dict[Path, Place], part: str | int, nested: dict[Path, Place], key: Where | None
) -> None:
    for path, place in nested.items():
        places[(part, *path)] = place
    if key is not None:
        places[(part,)] = Place(key, nested[()].value)


_SYNTAX_HINTS = (
    ("'\\t'", "Indent with spaces, since YAML knows no tabs"),
    ("that cannot start any token", "Put a value that begins with this character into quotes"),
    (
        "mapping values are not allowed",
        "Put a value with a colon and a space in it into quotes; a reference has no space: env:NAME",
    ),
    ("could not find expected ':'", "Write a space after each colon, also in the line before"),
)
"""(words of the parser's reason, hint)"""


def _syntax_problem(file: str, text: str, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file, 1, 1)
    if isinstance(error, ReaderError):
        text_before = text[: error.position]
        return Problem(
            "YAML syntax: an unprintable character", "yaml_syntax", "Remove it; the rest of the file is unread.",
            Where(file, text_before.count("\n") + 1, len(text_before) - text_before.rfind("\n")),
        )  # fmt: skip
    reason = error.problem if isinstance(error, MarkedYAMLError) and error.problem else "it is not readable as YAML"
    if "\n" in reason or _SECRET.search(reason):
        reason = "it is not readable as YAML"
    hint = next((hint for words, hint in _SYNTAX_HINTS if words in reason), "Check indentation, colons and quotes")
    return Problem(f"YAML syntax: {reason}", "yaml_syntax", f"{hint}; the rest is unread.", where)


def read_documents(file: str, text: str) -> tuple[list[Document], list[Problem]]:
    """Parse one file; returns (readable documents, problems). Never raises for the contents of `text`."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return [], [Problem("the file is larger than 1 MiB", "file_too_large", "Split it.", Where(file, 1))]
    reader = _Reader(file, text)
    return reader.documents(), reader.problems
