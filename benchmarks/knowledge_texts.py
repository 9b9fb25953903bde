"""Real texts that exist on any machine: passages of Python's own documentation, and their embeddings.

The embeddings are computed once by the product's own model and kept beside the model store.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from groundplan.core.settings import load_settings
from groundplan.knowledge.embedding.openvino_encoder import load_encoder
from groundplan.runtime.models import MINILM, ensure

_NOT_ASKED = frozenset({"antigravity", "this", "idlelib", "turtledemo"})
_PACKAGES = (
    "asyncio", "collections", "concurrent", "dbm", "email", "html", "http", "importlib", "json", "logging",
    "multiprocessing", "sqlite3", "unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zoneinfo",
)  # fmt: skip
"""Packages whose modules are documented separately."""


def passages() -> list[str]:
    """Paragraphs of 80 to 700 characters from the language reference and the docstrings of the standard library."""
    found: dict[str, None] = {}
    for text in _texts():
        for paragraph in re.split(r"\n\s*\n", text):
            joined = " ".join(paragraph.split())
            if 80 <= len(joined) <= 700:
                found[joined] = None
    return list(found)


def _texts() -> Iterator[str]:
    yield from topics.values()
    for module in modules():
        yield module.__doc__ or ""
        yield from _docstrings(module)


def modules() -> Iterator[ModuleType]:
    """The public modules of the standard library."""
    for name in sorted(sys.stdlib_module_names - _NOT_ASKED):
        module = None if name.startswith("_") else _module(name)
        if module is not None:
            yield module
    for name in _PACKAGES:
        package = _module(name)
        if package is not None:
            yield from _parts(package)


def _parts(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        part = None if found.name.rpartition(".")[2].startswith("__") else _module(found.name)
        if part is not None:
            yield part
            if found.ispkg:
                yield from _parts(part)


def _module(name: str) -> ModuleType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def _docstrings(module: ModuleType) -> Iterator[str]:
    for one in vars(module).values():
        if inspect.isclass(one) or inspect.isroutine(one):
            yield inspect.getdoc(one) or ""
        if inspect.isclass(one):
            for member in vars(one).values():
                told = getattr(member, "__doc__", None)
                if isinstance(told, str):
                    yield told


def embedded(texts: list[str]) -> NDArray[np.float32]:
    """One unit-length row of 384 per text."""
    settings = load_settings()
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    kept: Path = settings.models.parent / "benchmarks" / f"embedded-{digest}.npy"
    if kept.exists():
        found: NDArray[np.float32] = np.load(kept)
        return found
    vectors = load_encoder(ensure(settings.models, MINILM.name)).embed(texts)
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, vectors)
    return vectors
