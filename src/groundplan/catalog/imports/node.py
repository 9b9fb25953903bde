"""Reading another tool's YAML for an import: values with their place, typed access that collects what is wrong.

Files, `include` and merge keys (`<<`) are resolved here; what a key means is the business of each import. Reads no file
itself: texts are given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from groundplan.catalog.reader import HIDDEN, Document, Path, read_documents
from groundplan.catalog.validation_errors import error_with_problems, sort_problems
from groundplan.core.errors import Problem, Where

ENVIRONMENT = "os.environ/"
_TRUE = frozenset({"true", "yes", "on", "1"})
_MOST = 10**9
_PUT_IN = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,127})\}", re.ASCII)


@dataclass(slots=True)
class Notes:
    """What all nodes of one import share."""

    wrong: list[Problem] = field(default_factory=list)
    """What has the wrong form."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Of variables, as far as they are known."""
    unknown: list[Node] = field(default_factory=list)
    """Where a number was asked for and a variable stands that is not known."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document, with the way to it."""

    document: Document
    path: Path
    value: Any
    notes: Notes

    @property
    def where(self) -> Where:
        """Place of the value."""
        return self.document.where(self.path)

    @property
    def where_key(self) -> Where:
        """Place of the key before it."""
        return self.document.where(self.path, key=True)

    @property
    def name(self) -> str:
        """The way to it."""
        return ".".join(str(part) for part in self.path)

    @property
    def empty(self) -> bool:
        return self.value is None

    def complain(self, what: str) -> None:
        """Note that the value is not `what`."""
        name = self.name or "the file"
        self.notes.wrong.append(Problem(f"{name[:120]} is not {what}", "import_form", f"Write {what}.", self.where))

    def get(self, key: str) -> Node | None:
        """The value below `key`, None where it is missing or null."""
        if not isinstance(self.value, dict):
            return None
        for way, mapping in _layers(self.value):
            if mapping.get(key) is not None:
                return Node(self.document, (*self.path, *way, key), mapping[key], self.notes)
        return None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping, merged ones included; none and a problem where it is something else."""
        if self.value is None:
            return
        if not isinstance(self.value, dict):
            self.complain("a mapping of keys and values")
            return
        seen: set[str] = set()
        for way, mapping in _layers(self.value):
            for key, value in mapping.items():
                if key != "<<" and key not in seen:
                    seen.add(key)
                    yield key, Node(self.document, (*self.path, *way, key), value, self.notes)

    def entries(self) -> Iterator[Node]:
        """Items of a list; a single value counts as a list of itself."""
        if isinstance(self.value, list):
            for i, value in enumerate(self.value):
                yield Node(self.document, (*self.path, i), value, self.notes)
        elif self.value is not None:
            yield self

    def text(self) -> str | None:
        """Text, numbers as written; None and a problem for a list or mapping."""
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, bool | int | float):
            return str(self.value)
        if self.value is not None:
            self.complain("text")
        return None

    def number(self) -> Decimal | None:
        """An exact number from zero on, None and a problem for anything else. Exact as long as its YAML was. None, and
        noted, where it stands in a variable that is not known."""
        value = self.value if self.variable is None else self.notes.values.get(self.variable)
        if value is None and self.variable is not None:
            self.notes.unknown.append(self)
            return None
        if isinstance(value, float):
            value = repr(value) if math.isfinite(value) else "none"
        try:
            amount = Decimal(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or amount < 0 or amount > _MOST or amount.adjusted() < -40:
            self.complain("a number from 0 on")
            return None
        return amount

    def truth(self) -> bool:
        """Whether it switches something on, in the words of YAML 1.1 too."""
        return self.value is True or str(self.value).lower() in _TRUE

    @property
    def hidden(self) -> bool:
        """Whether the reader recognised a secret and took it out."""
        return bool(self.value == HIDDEN)

    @property
    def variable(self) -> str | None:
        """`NAME` of `os.environ/NAME`, or of `${NAME}`, which is put in before the tool reads its file."""
        if isinstance(self.value, str) and self.value.startswith(ENVIRONMENT):
            return self.value.removeprefix(ENVIRONMENT)
        found = _PUT_IN.fullmatch(self.value) if isinstance(self.value, str) else None
        return found[1] if found else None


def _layers(value: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A mapping, then what it merges with `<<`, nearest first, each with the way to it."""
    yield (), value
    merged = value.get("<<")
    for i, more in enumerate(merged) if isinstance(merged, list) else [(None, merged)]:
        if isinstance(more, dict):
            for way, mapping in _layers(more):
                yield (*(("<<",) if i is None else ("<<", i)), *way), mapping


@dataclass(slots=True)
class Config:
    """Sections of the main file and of those it includes, as the tool itself puts them together."""

    sections: dict[str, list[Node]] = field(default_factory=dict)
    """Name -> its node in each file. Of a list all hold, of anything else the last."""
    notes: Notes = field(default_factory=Notes)
    main: str = ""

    def items(self, section: str) -> Iterator[Node]:
        """Items of a list section over all files."""
        for node in self.sections.get(section, ()):
            yield from node.entries()

    def mapping(self, section: str) -> Iterator[tuple[str, Node]]:
        """Keys of a mapping section: the last file wins."""
        if nodes := self.sections.get(section):
            yield from nodes[-1].items()

    def get(self, section: str, key: str) -> Node | None:
        return self.sections[section][-1].get(key) if section in self.sections else None

    def check(self) -> None:
        """Raises `Invalid` with every problem that was noted so far."""
        if self.notes.wrong:
            raise error_with_problems(sort_problems(self.notes.wrong))


def included(text: str) -> tuple[str, ...]:
    """Files that a configuration names in `include`, as written. Empty where it cannot be read."""
    documents, _ = read_documents("-", text)
    if not documents or not isinstance(documents[0].value, dict):
        return ()
    names = documents[0].value.get("include")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def read_config(files: Mapping[str, str], main: str) -> Config:
    """The configuration in `files` (name -> text) that begins in `main`. What looks like a secret is not a problem
    here: its value is taken out. Raises `Invalid` with every other problem of form and its place."""
    config = Config(main=main)
    for name in (main, *(name for name in files if name != main)):
        documents, problems = read_documents(name, files[name])
        config.notes.wrong += [problem for problem in problems if problem.code != "secret_in_file"]
        if len(documents) > 1:
            where = documents[1].where()
            config.notes.wrong.append(
                Problem("there are two YAML documents", "import_form", "Keep one in a file.", where)
            )
        for document in documents[:1]:
            for key, node in Node(document, (), document.value, config.notes).items():
                config.sections.setdefault(key, []).append(node)
    config.check()
    return config
