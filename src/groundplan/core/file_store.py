"""Durable files in a folder or any store that `fsspec` knows. Does not know their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.home import remove_stale_temporaries, temporary_path


def resolve_store(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it. Raises `Invalid` (`store_unknown`,
    `extra_missing`)."""
    try:
        import fsspec  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise Invalid(
            "archives need an optional package", code="extra_missing", hint="pip install 'groundplan[economics]'"
        ) from error

    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise Invalid(
            f"'{url[:80]}' is not a store: {error}",
            code="store_unknown",
            hint="Name a folder, or a URL that fsspec knows, such as s3://bucket/facts.",
        ) from error
    return found


def put_file(url: str, name: str, file: Path) -> None:
    """Copy `file` to `name` in a store, durably where the store is a folder, and compare what is read back. Raises
    `Invalid` (`store_unwritable`), `Conflict` (`archive_differs`)."""
    store, root = resolve_store(url)
    place = f"{root.rstrip('/')}/{name}"
    try:
        store.makedirs(place.rpartition("/")[0], exist_ok=True)
        if is_local(store):
            # an existing file stays until the new one is complete
            made = temporary_path(Path(place))
            remove_stale_temporaries(Path(place))
            try:
                store.put_file(str(file), str(made))
                _sync(made)
                made.replace(place)
            finally:
                made.unlink(missing_ok=True)  # an incomplete copy would take up space
            for each in (Path(place), *list(Path(place).parents)[: 2 + name.count("/")]):
                _sync(each)
        else:
            store.put_file(str(file), place)
        with file.open("rb") as sent, store.open(place, "rb") as kept:
            same = hashlib.file_digest(sent, "sha256").digest() == hashlib.file_digest(kept, "sha256").digest()
    except Exception as error:  # each store raises its own errors, which are no OSError
        raise Invalid(
            f"{url} cannot be written: {type(error).__name__}",
            code="store_unwritable",
            hint="Check the rights of this process there. Nothing was deleted.",
        ) from error
    if not same:
        raise Conflict(
            f"{name} at {url} is not what was sent there",
            code="archive_differs",
            hint="Nothing was deleted. Try again; if it stays so, look at the store.",
        )


@contextmanager
def open_file(url: str, name: str) -> Iterator[IO[bytes]]:
    """Open a file of a store for reading. Raises `NotFound` (`file_missing`), `Invalid` (`store_unreadable`)."""
    store, root = resolve_store(url)
    try:
        with store.open(f"{root.rstrip('/')}/{name}", "rb") as file:
            yield file
    except GroundplanError:
        raise
    except FileNotFoundError as error:
        raise NotFound(
            f"{name} at {url} is missing", code="file_missing", hint="Restore it from a copy of that store."
        ) from error
    except Exception as error:  # every store has errors of its own, which are no OSError
        raise unreadable_error(name, url, error) from error


def unreadable_error(name: str, url: str, error: Exception) -> Invalid:
    """The error for a file of a store that cannot be read."""
    return Invalid(
        f"{name} at {url} cannot be read: {type(error).__name__}",
        code="store_unreadable",
        hint="Look at its address, and at the rights and credentials of this process there.",
    )


def is_local(store: Any) -> bool:
    """Whether a store is this machine's file system."""
    return bool(store.protocol == "file" or "file" in store.protocol)


def _sync(place: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
