"""Differences between the workspace folder and the served blueprint, a line each; cached until either changes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.api.context import Services
from groundplan.blueprint.model import Blueprint
from groundplan.core.errors import GroundplanError

WorkspaceStamp = tuple[int, tuple[tuple[str, int, int], ...]]
_cache_lock, _plan_lock = threading.Lock(), threading.Lock()
_cached: dict[Path, tuple[WorkspaceStamp, list[str]]] = {}


def workspace_differences(services: Services, blueprint: Blueprint | None) -> list[str]:
    """The differences in words, and the problems of the workspace; empty where there is no folder. Callers must hold
    no connection: the first ones wait for each other."""
    folder = services.folder()
    if folder is None or blueprint is None or not folder.is_dir():
        return []
    stamp = (blueprint.number, _stamp(folder))
    with _cache_lock:
        known = _cached.get(folder)
    if known is not None and known[0] == stamp:
        return known[1]
    # one thread makes the plan, which takes many seconds for thousands of workloads; others see the former differences
    if not _plan_lock.acquire(blocking=known is None):
        return known[1] if known is not None else []
    try:
        with _cache_lock:
            known = _cached.get(folder)
        if known is None or known[0] != stamp:
            with services.release_turn() as conn:
                known = (stamp, _differences(conn, services, folder, blueprint.number))
            with _cache_lock:
                _cached[folder] = known
    finally:
        _plan_lock.release()
    return known[1]


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (path.relative_to(folder).as_posix(), status.st_mtime_ns, status.st_size)
        for path in yaml_files(folder)
        for status in [path.stat()]
    )


def yaml_files(folder: Path) -> list[Path]:
    """The sorted YAML files of a workspace, without hidden folders. Fast, since every page calls it and many thousands
    of documents may lie beside them."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        named = (name for name in names if name.endswith((".yaml", ".yml")) and not name.startswith("."))
        found += [path for name in named if (path := Path(base, name)).is_file()]
    return sorted(found)


def _differences(conn: Connection[Any], services: Services, folder: Path, number: int) -> list[str]:
    applied = dict(store.blueprint(conn, number)["sources"])
    try:
        files = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in yaml_files(folder)}
        if files == applied:
            return []
        known = set(_plan_lines(services.releases.plan(conn, applied)))
        planned = services.releases.plan(conn, files)
    except GroundplanError as error:
        return [str(problem) for problem in error.problems] or [str(error)]
    except (OSError, UnicodeDecodeError) as error:
        return [f"the workspace cannot be read: {error.__class__.__name__}"]
    return [line for line in _plan_lines(planned) if line not in known] or ["comments or layout of the files"]


def _plan_lines(planned: dict[str, Any]) -> list[str]:
    """Differences, warnings and refusals of a plan in words. Pending changes are among the differences."""
    lines = [_difference_line(item) for item in planned["differences"]]
    lines += [f"without effect: {problem['message']}" for problem in planned["warnings"]]
    return lines + [f"refused: {problem['message']}" for problem in planned["refusals"]]


def _difference_line(item: dict[str, Any]) -> str:
    fields = ", ".join(field["field"] for field in item["fields"])
    return f"{item['type']} {item['subject']}" + (f" ({fields})" if fields else "")
