"""Another tool's YAML for an import: values with their places, and typed access that collects problems.

Included files and merge keys (`<<`) are resolved here; the meaning of keys is known to each import. Reads no files:
texts are passed in.
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
_MAX_NUMBER = 10**9
_SUBSTITUTION = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,127})\}", re.ASCII)


@dataclass(slots=True)
class ImportNotes:
    """State that all nodes of one import share."""

    problems: list[Problem] = field(default_factory=list)
    """Values of the wrong form."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Known values of environment variables."""
    unknown_numbers: list[Node] = field(default_factory=list)
    """Numbers that are in variables without a known value."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document, with its path."""

    document: Document
    path: Path
    value: Any
    notes: ImportNotes

    @property
    def where(self) -> Where:
        """Place of the value."""
        return self.document.where(self.path)

    @property
    def where_key(self) -> Where:
        """Place of the value's key."""
        return self.document.where(self.path, key=True)

    @property
    def name(self) -> str:
        """The path, joined by dots."""
        return ".".join(str(part) for part in self.path)

    @property
    def is_empty(self) -> bool:
        return self.value is None

    def add_problem(self, what: str) -> None:
        """Add the problem that the value is not `what`."""
        name = self.name or "the file"
        self.notes.problems.append(Problem(f"{name[:120]} is not {what}", "import_form", f"Write {what}.", self.where))

    def get(self, key: str) -> Node | None:
        """The value at `key`; None if it is missing or null."""
        if not isinstance(self.value, dict):
            return None
        for way, mapping in _layers(self.value):
            if mapping.get(key) is not None:
                return Node(self.document, (*self.path, *way, key), mapping[key], self.notes)
        return None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping, merged ones included; adds a problem if it is something else."""
        if self.value is None:
            return
        if not isinstance(self.value, dict):
            self.add_problem("a mapping of keys and values")
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
        """The value as text, numbers as written; for a list or mapping None, with a problem."""
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, bool | int | float):
            return str(self.value)
        if self.value is not None:
            self.add_problem("text")
        return None

    def number(self) -> Decimal | None:
        """The exact number, 0 or more; None with a problem for anything else. For a variable without a known value:
        None, added to `unknown_numbers`."""
        value = self.value if self.variable is None else self.notes.values.get(self.variable)
        if value is None and self.variable is not None:
            self.notes.unknown_numbers.append(self)
            return None
        if isinstance(value, float):
            value = repr(value) if math.isfinite(value) else "none"
        try:
            amount = Decimal(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or amount < 0 or amount > _MAX_NUMBER or amount.adjusted() < -40:
            self.add_problem("a number from 0 on")
            return None
        return amount

    @property
    def is_hidden(self) -> bool:
        """Whether the reader recognised a secret and removed it."""
        return bool(self.value == HIDDEN)

    @property
    def variable(self) -> str | None:
        """`NAME` of `os.environ/NAME`, or of `${NAME}`, which is substituted before the tool reads its file."""
        if isinstance(self.value, str) and self.value.startswith(ENVIRONMENT):
            return self.value.removeprefix(ENVIRONMENT)
        found = _SUBSTITUTION.fullmatch(self.value) if isinstance(self.value, str) else None
        return found[1] if found else None


def _layers(value: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The mapping, then those that it merges with `<<`, nearest first, each with its path."""
    yield (), value
    merged = value.get("<<")
    for i, more in enumerate(merged) if isinstance(merged, list) else [(None, merged)]:
        if isinstance(more, dict):
            for way, mapping in _layers(more):
                yield (*(("<<",) if i is None else ("<<", i)), *way), mapping


@dataclass(slots=True)
class Config:
    """Sections of the main file and of the files it includes, combined as the tool does."""

    sections: dict[str, list[Node]] = field(default_factory=dict)
    """Name -> its node in each file. Lists are concatenated; of anything else the last one counts."""
    notes: ImportNotes = field(default_factory=ImportNotes)
    main: str = ""

    def items(self, section: str) -> Iterator[Node]:
        """Items of a list section over all files."""
        for node in self.sections.get(section, ()):
            yield from node.entries()

    def mapping(self, section: str) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping section: the last file wins."""
        if nodes := self.sections.get(section):
            yield from nodes[-1].items()

    def get(self, section: str, key: str) -> Node | None:
        return self.sections[section][-1].get(key) if section in self.sections else None

    def check(self) -> None:
        """Raise `Invalid` with every problem so far, if there is any."""
        if self.notes.problems:
            raise error_with_problems(sort_problems(self.notes.problems))


def included_files(text: str) -> tuple[str, ...]:
    """Files that a configuration names in `include`, as written; empty if it cannot be read."""
    documents, _ = read_documents("-", text)
    if not documents or not isinstance(documents[0].value, dict):
        return ()
    names = documents[0].value.get("include")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def read_config(files: Mapping[str, str], main: str) -> Config:
    """The configuration in `files` (name -> text), beginning with `main`. Literal secrets are no problem here: their
    values are removed. Raises `Invalid` with every other problem of form."""
    config = Config(main=main)
    for name in (main, *(name for name in files if name != main)):
        documents, problems = read_documents(name, files[name])
        config.notes.problems += [problem for problem in problems if problem.code != "secret_in_file"]
        if len(documents) > 1:
            where = documents[1].where()
            config.notes.problems.append(
                Problem("there are two YAML documents", "import_form", "Keep one in a file.", where)
            )
        for document in documents[:1]:
            for key, node in Node(document, (), document.value, config.notes).items():
                config.sections.setdefault(key, []).append(node)
    config.check()
    return config
