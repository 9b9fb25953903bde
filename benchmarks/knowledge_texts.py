"""Real texts that exist on any machine: passages of Python's own documentation, and their embeddings.

The embeddings are computed once by the product's own model and stored next to the model store.
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

_SKIPPED = frozenset({"antigravity", "this", "idlelib", "turtledemo"})
_PACKAGES = (
    "asyncio", "collections", "concurrent", "dbm", "email", "html", "http", "importlib", "json", "logging",
    "multiprocessing", "sqlite3", "unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zoneinfo",
)  # fmt: skip
"""Packages whose modules are documented separately."""


def passages() -> list[str]:
    """Paragraphs of 80 to 700 characters from the language reference and the docstrings of the standard library."""
    paragraphs: dict[str, None] = {}
    for text in _documentation_texts():
        for paragraph in re.split(r"\n\s*\n", text):
            joined = " ".join(paragraph.split())
            if 80 <= len(joined) <= 700:
                paragraphs[joined] = None
    return list(paragraphs)


def _documentation_texts() -> Iterator[str]:
    yield from topics.values()
    for module in modules():
        yield module.__doc__ or ""
        yield from _docstrings(module)


def modules() -> Iterator[ModuleType]:
    """The public modules of the standard library."""
    for module_name in sorted(sys.stdlib_module_names - _SKIPPED):
        module = None if module_name.startswith("_") else _import_module(module_name)
        if module is not None:
            yield module
    for module_name in _PACKAGES:
        package = _import_module(module_name)
        if package is not None:
            yield from _submodules(package)


def _submodules(package: ModuleType) -> Iterator[ModuleType]:
    for entry in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        submodule = None if entry.name.rpartition(".")[2].startswith("__") else _import_module(entry.name)
        if submodule is not None:
            yield submodule
            if entry.ispkg:
                yield from _submodules(submodule)


def _import_module(name: str) -> ModuleType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def _docstrings(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        if inspect.isclass(value) or inspect.isroutine(value):
            yield inspect.getdoc(value) or ""
        if inspect.isclass(value):
            for member in vars(value).values():
                docstring = getattr(member, "__doc__", None)
                if isinstance(docstring, str):
                    yield docstring


def embed_texts(texts: list[str]) -> NDArray[np.float32]:
    """One unit-length row of 384 per text."""
    settings = load_settings()
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    cache_file: Path = settings.models.parent / "benchmarks" / f"embedded-{digest}.npy"
    if cache_file.exists():
        cached: NDArray[np.float32] = np.load(cache_file)
        return cached
    vectors = load_encoder(ensure(settings.models, MINILM.name)).embed(texts)
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache_file, vectors)
    return vectors
