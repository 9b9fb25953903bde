"""Loads a folder or files into a `Workspace`, and reports all syntax and schema problems at once, each with its place.

Checks form only: kinds, keys, units, duplicate names. `check` checks whether documents fit together. Files are read
within the folder and never through symbolic links; folders that a source names hold documents, not declarations.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from pydantic import ValidationError

from groundplan.catalog import validation_errors
from groundplan.catalog.model import KINDS, CompanyDoc, SourceDoc, Strict
from groundplan.catalog.reader import MAX_BYTES, Document, read_documents
from groundplan.catalog.workspace import Workspace, frozen_documents
from groundplan.core.errors import Invalid, Problem, Where

__all__ = ["ReadResult", "Workspace", "load", "load_files", "load_served", "read_files", "read_folder"]

MAX_FILES = 10_000
"""Limit of declaration files: room for thousands of workloads with a file each, but not for a home folder by
mistake."""
Documents = dict[tuple[str, str], tuple[Strict, Document]]


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The readable part of a workspace, and the problems found."""

    workspace: Workspace
    """The valid documents, with a placeholder company if none is declared."""
    problems: tuple[Problem, ...]
    broken: frozenset[tuple[str, str]]
    """(kind, name) of invalid documents, so that references to them are not reported as unknown."""
    has_unreadable_text: bool
    """Whether some text could not be read at all, so that documents that seem missing may be in it."""
    salvaged: Mapping[tuple[str, str], tuple[Strict, Document]] = field(default_factory=dict)
    """Broken documents without their invalid values, so that the names in them are checked in the same run."""


def load(folder: Path) -> Workspace:
    """Read the workspace in `folder`. Raises `Invalid` with all problems of form."""
    return _require_valid(read_folder(folder))


def load_files(files: Mapping[str, str]) -> Workspace:
    """Read the workspace in `files` (relative path -> YAML text). Raises `Invalid` with all problems of form."""
    return _require_valid(read_files(files))


_served_lock = Lock()


def load_served(files: Mapping[str, str]) -> Workspace:
    """Read the workspace from which a blueprint was made.

    It was valid by the rules of its release. Values that today's rules refuse are left out: nobody could correct them,
    and every comparison with that workspace would fail for ever. The most recent few workspaces are cached, since they
    are read repeatedly. Concurrent callers wait for each other: thousands of workloads take seconds, and concurrent
    reads would multiply that.
    """
    with _served_lock:
        return _load_served(tuple(sorted(files.items())))


@lru_cache(maxsize=4)
def _load_served(files: tuple[tuple[str, str], ...]) -> Workspace:
    reading = read_files(dict(files))
    workspace = reading.workspace
    if not reading.salvaged:
        return workspace
    company = next((doc for doc, _ in reading.salvaged.values() if isinstance(doc, CompanyDoc)), workspace.company)
    return replace(workspace, company=company, documents=frozen_documents({**reading.salvaged, **workspace.documents}))


def _require_valid(reading: ReadResult) -> Workspace:
    if reading.problems:
        raise validation_errors.error_with_problems(reading.problems)
    return reading.workspace


def read_folder(folder: Path) -> ReadResult:
    """Read all `*.yaml` and `*.yml` files below `folder`, except in hidden folders. Raises `Invalid` if it is not a
    folder."""
    if not folder.is_dir():
        raise Invalid(
            f"there is no folder {folder}", code="workspace_missing", hint="Make one with: groundplan init DIR"
        )
    files: dict[str, str] = {}
    problems: list[Problem] = []
    for path in _find_declaration_files(folder, problems):
        name = path.relative_to(folder).as_posix()
        if len(files) >= MAX_FILES:
            # has no place: problems with a place in a source's folder are dropped, but this one must be reported
            message = f"more than {MAX_FILES:,} files: {name} and what follows is not read"
            problems.append(Problem(message, "too_many_files", "Is this the right folder?"))
            break
        text = _read_file(path, name, problems)
        if text is not None:
            files[name] = text
    reading = read_files(files, root=folder)
    outside = [p for s in reading.workspace.sources.values() for p in _source_problems(folder, s, reading.workspace)]
    problems = _outside_sources(problems, reading.workspace)
    # what cannot be read may well declare the company
    found = [each for each in reading.problems if not (problems and each.code == "company_missing")]
    return ReadResult(
        reading.workspace,
        validation_errors.sort_problems([*problems, *found, *outside]),
        reading.broken,
        reading.has_unreadable_text or bool(problems),
        reading.salvaged,
    )


def _outside_sources(problems: list[Problem], workspace: Workspace) -> list[Problem]:
    return [p for p in problems if p.where is None or not _is_in_source(p.where.file, workspace)]


def _find_declaration_files(folder: Path, problems: list[Problem]) -> list[Path]:
    def add_problem(error: OSError) -> None:
        name = os.path.relpath(error.filename or folder, folder)
        reason = error.strerror or error.__class__.__name__
        message = f"{name} cannot be read: {reason}"
        problems.append(Problem(message, "unreadable", "Check its permissions.", Where(name, 1)))

    paths: list[Path] = []
    for base, folders, names in os.walk(folder, onerror=add_problem):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base_path = Path(base)
        for name in list(folders):
            if (base_path / name).is_symlink():
                problems.append(_link_problem((base_path / name).relative_to(folder).as_posix()))
        paths += [base_path / name for name in names if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
    return sorted(paths)


def _link_problem(name: str) -> Problem:
    return Problem(f"{name} is a symbolic link", "symlink", "Put the file itself into the workspace.", Where(name, 1))


def _read_file(path: Path, name: str, problems: list[Problem]) -> str | None:
    """Text of one file; None, with an added problem, if the file is unreadable, a link or not a regular file."""
    where = Where(name, 1)
    try:
        if path.is_symlink():
            problems.append(_link_problem(name))
            return None
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            problems.append(Problem(f"{name} is not a file", "not_a_file", "Remove it.", where))
            return None
        if status.st_size > MAX_BYTES:
            problems.append(Problem(f"{name} is larger than 1 MiB", "file_too_large", "Split it.", where))
            return None
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.append(Problem(f"{name} is not UTF-8", "not_utf8", "Save it as UTF-8.", Where(name, line)))
    except OSError as error:
        reason = error.strerror or error.__class__.__name__
        problems.append(Problem(f"{name} cannot be read: {reason}", "unreadable", "Check its permissions.", where))
    return None


def _source_problems(folder: Path, source: SourceDoc, workspace: Workspace) -> list[Problem]:
    if source.path is None:
        return []
    where = workspace.where("source", source.name, "path")
    target = folder / source.path
    if not target.exists():
        return [Problem(f"there is no folder {source.path}", "source_path", "Make it, or correct the path.", where)]
    if not target.resolve().is_relative_to(folder.resolve()):
        return [
            Problem(
                f"{source.path} leads out of the workspace", "source_path", "Put the documents themselves here.", where
            )
        ]
    return []


def read_files(files: Mapping[str, str], root: Path | None = None) -> ReadResult:
    """Parse the documents of all files. Never raises for the contents of the texts."""
    raw: list[tuple[str, Document]] = []
    problems: list[Problem] = []
    for name, text in sorted(files.items()):
        if not _is_inside_workspace(name):
            where = Where(ascii(name)[1:-1], 1)
            problems.append(
                Problem("a file is outside the workspace", "file_path", "Use paths inside the folder.", where)
            )
            continue
        documents, found_problems = read_documents(name, text)
        raw += [(name, document) for document in documents]
        problems += found_problems
    paths = {path for _, d in raw if _is_source_with_path(d) and (path := d.value["path"].strip("./"))}
    skipped = {name for name in files if any(_is_below(name, path) for path in paths)}
    problems = [problem for problem in problems if problem.where is None or problem.where.file not in skipped]
    problems += [
        _misplaced_problem(document) for name, document in raw if name in skipped and _is_declaration(document)
    ]
    has_unreadable_text = any(problem.code.startswith(("yaml", "file")) for problem in problems)
    documents_by_name: Documents = {}
    salvaged: Documents = {}
    broken: set[tuple[str, str]] = set()
    for name, document in raw:
        if name not in skipped:
            found_problems = _add_document(document, documents_by_name, broken)
            problems += found_problems
            if found_problems:
                _salvage(document, salvaged)
    company = _find_company(
        documents_by_name, broken, problems, None if has_unreadable_text else min(files, default="groundplan.yaml")
    )
    texts = {name: text for name, text in sorted(files.items()) if name not in skipped}
    workspace = Workspace(company, frozen_documents(documents_by_name), texts, root)
    salvaged = {key: entry for key, entry in salvaged.items() if key in broken}
    return ReadResult(
        workspace, validation_errors.sort_problems(problems), frozenset(broken), has_unreadable_text, salvaged
    )


def _is_inside_workspace(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name.isprintable()


def _is_source_with_path(document: Document) -> bool:
    value = document.value
    return isinstance(value, dict) and value.get("kind") == "source" and isinstance(value.get("path"), str)


def _is_declaration(document: Document) -> bool:
    value = document.value
    return isinstance(value, dict) and value.get("kind") in KINDS and "name" in value


def _misplaced_problem(document: Document) -> Problem:
    return Problem(
        "a declaration among the documents of a source is not read",
        "declaration_in_source",
        "Move it out of that folder.",
        document.where(("kind",)),
    )


def _is_below(file: str, folder: str) -> bool:
    return file.startswith(folder.rstrip("/") + "/")


def _is_in_source(file: str, workspace: Workspace) -> bool:
    return any(
        source.path not in (None, ".") and _is_below(file, source.path or "") for source in workspace.sources.values()
    )


def _add_document(document: Document, documents: Documents, broken: set[tuple[str, str]]) -> list[Problem]:
    """Validate one document and add it to `documents`, or to `broken`; returns its problems."""
    value = document.value
    if not isinstance(value, dict):
        return [Problem("a document must be a mapping", "document", "Begin it with kind: ...", document.where())]
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return [validation_errors.unknown_kind_problem(document)]
    key = (kind, str(value.get("name", "")))
    typed = _validate(kind, value, document)
    earlier = documents.get(key)
    if earlier is not None:
        duplicate = validation_errors.duplicate_problem(*key, document.where(("name",)), earlier[1].where(("name",)))
        return [duplicate, *typed] if isinstance(typed, list) else [duplicate]
    if isinstance(typed, list):
        broken.add(key)
        return typed
    documents[key] = (typed, document)
    return []


def _validate(kind: str, value: dict[str, Any], document: Document) -> Strict | list[Problem]:
    try:
        return KINDS[kind].model_validate(_drop_empty_keys(value))
    except ValidationError as error:
        return validation_errors.problems_from_pydantic(KINDS[kind], error, document)


def _salvage(document: Document, salvaged: Documents) -> None:
    """Add a broken document without its invalid values to `salvaged`, if the rest is valid."""
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return
    values = _drop_empty_keys(value)
    try:
        KINDS[kind].model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            _remove_value(values, detail["loc"])
    try:
        typed = KINDS[kind].model_validate(values)
    except ValidationError:
        return
    salvaged.setdefault((kind, str(value.get("name", ""))), (typed, document))


def _remove_value(value: dict[str, Any], path: tuple[str | int, ...]) -> None:
    """Remove the value at `path`, or the value of the nearest mapping that contains it."""
    for part in path[:-1]:
        inner = value.get(str(part))
        if not isinstance(inner, dict):
            value.pop(str(part), None)
            return
        value = inner
    if path:
        value.pop(str(path[-1]), None)


def _drop_empty_keys(value: Any) -> Any:
    """Drop keys without a value, which count as absent."""
    if isinstance(value, dict):
        return {key: _drop_empty_keys(item) for key, item in value.items() if item is not None}
    return [_drop_empty_keys(item) for item in value] if isinstance(value, list) else value


def _find_company(
    documents: Documents, broken: set[tuple[str, str]], problems: list[Problem], file: str | None
) -> CompanyDoc:
    companies = [(doc, document) for (kind, _), (doc, document) in sorted(documents.items()) if kind == "company"]
    for _, document in companies[1:]:
        first = companies[0][1].where(("name",))
        problems.append(
            Problem(
                f"a second company, the first is at {first}",
                "company_twice",
                "One workspace declares one company.",
                document.where(("name",)),
            )
        )
    if companies and isinstance(companies[0][0], CompanyDoc):
        return companies[0][0]
    if file is not None and not any(kind == "company" for kind, _ in broken):
        hint = "Add a document: kind: company, name: acme, format: 1."
        problems.append(Problem("no company is declared", "company_missing", hint, Where(file, 1)))
    return CompanyDoc(name="unknown")
