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
    """The differences in words, and the problems of the workspace; empty if there is no folder. Callers must hold
    no connection: the first ones wait for each other."""
    folder = services.folder()
    if folder is None or blueprint is None or not folder.is_dir():
        return []
    stamp = (blueprint.number, _stamp(folder))
    with _cache_lock:
        cached = _cached.get(folder)
    if cached is not None and cached[0] == stamp:
        return cached[1]
    # one thread makes the plan, which takes many seconds for thousands of workloads; others see the former differences
    if not _plan_lock.acquire(blocking=cached is None):
        return cached[1] if cached is not None else []
    try:
        with _cache_lock:
            cached = _cached.get(folder)
        if cached is None or cached[0] != stamp:
            with services.release_turn() as conn:
                cached = (stamp, _differences(conn, services, folder, blueprint.number))
            with _cache_lock:
                _cached[folder] = cached
    finally:
        _plan_lock.release()
    return cached[1]


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (path.relative_to(folder).as_posix(), status.st_mtime_ns, status.st_size)
        for path in yaml_files(folder)
        for status in [path.stat()]
    )


def yaml_files(folder: Path) -> list[Path]:
    """The sorted YAML files of a workspace, without hidden folders. Fast, since every page calls it and many thousands
    of documents may lie beside them."""
    paths = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yaml_names = (name for name in names if name.endswith((".yaml", ".yml")) and not name.startswith("."))
        paths += [path for name in yaml_names if (path := Path(base, name)).is_file()]
    return sorted(paths)


def _differences(conn: Connection[Any], services: Services, folder: Path, number: int) -> list[str]:
    applied = dict(store.blueprint(conn, number)["sources"])
    try:
        files = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in yaml_files(folder)}
        if files == applied:
            return []
        served_lines = set(_plan_lines(services.releases.plan(conn, applied)))
        planned = services.releases.plan(conn, files)
    except GroundplanError as error:
        return [str(problem) for problem in error.problems] or [str(error)]
    except (OSError, UnicodeDecodeError) as error:
        return [f"the workspace cannot be read: {error.__class__.__name__}"]
    return [line for line in _plan_lines(planned) if line not in served_lines] or ["comments or layout of the files"]


def _plan_lines(planned: dict[str, Any]) -> list[str]:
    """Differences, warnings and refusals of a plan in words. Pending changes are among the differences."""
    lines = [_difference_line(item) for item in planned["differences"]]
    lines += [f"without effect: {problem['message']}" for problem in planned["warnings"]]
    return lines + [f"refused: {problem['message']}" for problem in planned["refusals"]]


def _difference_line(item: dict[str, Any]) -> str:
    fields = ", ".join(field["field"] for field in item["fields"])
    return f"{item['type']} {item['subject']}" + (f" ({fields})" if fields else "")
