"""Any store that fsspec knows: S3, SFTP, WebDAV, Azure, Google Cloud, another folder. Sidecars are those of a folder.

The library is that of `groundplan[knowledge]`; some stores need one of their own, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from groundplan.core.errors import NotFound, TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_BYTES, Table
from groundplan.knowledge.sources.git import missing_extra
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor
from groundplan.knowledge.sources.pace import Pace
from groundplan.knowledge.sources.sidecars import Sidecars, is_hidden, sidecar_of


class ObjectStore:
    """`url` as fsspec writes it; `options` are those of its file system, `rate` requests a second."""

    whole = True

    def __init__(self, url: str, options: Mapping[str, Any], rate: float = 50.0) -> None:
        self._url, self._options, self._pace = url, dict(options), Pace(rate)
        self._system: Any = None
        self._root = ""
        self._found: dict[str, Mapping[str, Any]] = {}
        self._sidecars = Sidecars(self._beside)

    def close(self) -> None:
        """Connections are the library's own."""

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every object below the address, by its tag or time and size. Raises `Unavailable`."""
        self._open()
        self._pace.wait()
        try:
            listed = self._system.find(self._root, detail=True)
        except (OSError, ValueError) as error:
            raise self._away(error) from error
        prefix = f"{self._root.rstrip('/')}/"
        self._found = {path.removeprefix(prefix): about for path, about in listed.items() if about["type"] == "file"}
        self._sidecars = Sidecars(self._beside)
        if not self._found and not self._exists():
            raise self._away(FileNotFoundError("there is no such place"))
        for key in sorted(self._found):
            if not is_hidden(key):
                yield Change(key, self._version(key))

    def _version(self, key: str) -> str:
        beside = sidecar_of(key)
        marks = [_mark(self._found[key])]
        if beside in self._found:
            marks.append(_mark(self._found[beside]))
        return "+".join(marks)

    def read(self, key: str) -> Content:
        about = self._found.get(key)
        if about is None:
            raise _gone()
        if int(about.get("size") or 0) > MAX_BYTES:
            raise TooLarge(
                f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
            )
        return Content(self._bytes(key), modified_at=_time(about), told=self._sidecars.beside(key))

    def around(self, key: str) -> Sequence[Around]:
        return self._sidecars.around(key)

    def _beside(self, path: str) -> bytes | None:
        return self._bytes(path) if path in self._found else None

    def _bytes(self, key: str) -> bytes:
        self._pace.wait()
        try:
            return bytes(self._system.cat_file(f"{self._root.rstrip('/')}/{key}"))
        except FileNotFoundError as error:
            raise _gone() from error
        except OSError as error:
            raise self._away(error) from error

    def _exists(self) -> bool:
        try:
            return bool(self._system.exists(self._root))
        except OSError:
            return False

    def _open(self) -> None:
        if self._system is not None:
            self._system.invalidate_cache()
            return
        try:
            import fsspec  # noqa: PLC0415 -- heavy

            self._system, self._root = fsspec.core.url_to_fs(self._url, **self._options)
        except ModuleNotFoundError as error:
            raise missing_extra("store", error) from error
        except (ImportError, ValueError, OSError) as error:
            raise Unavailable(
                f"{self._url} cannot be opened: {error}", code="source_missing",
                hint="Check its address; some stores need a library of their own, such as sftp or adlfs.",
            ) from error  # fmt: skip

    def _away(self, error: Exception) -> Unavailable:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return Unavailable(
            f"{self._url} cannot be read: {said}", code="source_missing",
            hint="Check its address and key; its documents stay as they were.",
        )  # fmt: skip


def s3_options(endpoint: str | None, key: str | None) -> dict[str, Any]:
    """Options of an S3 service: its own address, and `ID:SECRET` or neither (public)."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    if endpoint is not None:
        options["client_kwargs"] = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    if key is None:
        options["anon"] = True
    else:
        options["key"], _, options["secret"] = key.partition(":")
    return options


def options_for(url: str, endpoint: str | None, key: str | None) -> dict[str, Any]:
    """What fsspec needs for an address. SFTP and WebDAV take `USER:PASSWORD`."""
    scheme = urlsplit(url).scheme
    if scheme in ("s3", "s3a"):
        return s3_options(endpoint, key)
    if key and scheme in ("sftp", "ssh"):
        user, _, password = key.partition(":")
        return {"username": user, "password": password}
    if key and scheme in ("webdav", "http", "https"):
        user, _, password = key.partition(":")
        return {"auth": (user, password)}
    return {}


def _mark(about: Mapping[str, Any]) -> str:
    tag = about.get("ETag") or about.get("etag")
    stamp = tag or about.get("LastModified") or about.get("mtime") or about.get("modified") or about.get("created")
    return f"{str(stamp).strip(chr(34))}.{about.get('size')}"


def _time(about: Mapping[str, Any]) -> datetime | None:
    for name in ("LastModified", "mtime", "modified", "last_modified"):
        value = about.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return None


def _gone() -> NotFound:
    return NotFound("it went away meanwhile", code="document_gone", hint="Nothing needs to be done.")
