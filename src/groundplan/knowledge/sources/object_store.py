"""The connector of any store that fsspec knows: S3, SFTP, WebDAV, Azure, Google Cloud, another folder. Sidecars are
those of `folder`.

`file_systems` opens the stores; `s3_acl` interprets S3's access lists, if they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from groundplan.core.errors import TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_BYTES, Table
from groundplan.knowledge.sources import s3_acl
from groundplan.knowledge.sources.errors import document_gone
from groundplan.knowledge.sources.file_systems import FileSystem, open_file_system
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules
from groundplan.knowledge.sources.pace import RateLimiter
from groundplan.knowledge.sources.sidecars import MAX_BYTES as MAX_SIDECAR
from groundplan.knowledge.sources.sidecars import Sidecars, is_hidden, orphan_sidecars, sidecar_of, too_large


class ObjectStoreConnector:
    """The connector of a store. Keys are paths below its address."""

    is_complete = True

    def __init__(
        self, url: str, options: Mapping[str, Any], rate: float = 50.0, names: Mapping[str, str] | None = None
    ) -> None:
        """`url` as fsspec writes it; `options` are those of its file system; `rate` in requests per second. `names`
        maps grantees of S3's access lists to readers; None: the lists are not read."""
        self._url, self._options, self._pace, self._names = url, dict(options), RateLimiter(rate), names
        self._ignores_public: bool | None = None
        self._file_system: FileSystem | None = None
        self._objects: dict[str, Mapping[str, Any]] = {}
        self._sidecars = Sidecars(self._read_sidecar)

    def close(self) -> None:
        """Drop the file system, and with it the library's connections."""
        self._file_system = None

    def _open(self) -> FileSystem:
        if self._file_system is None:
            self._file_system = open_file_system(self._url, self._options)
        return self._file_system

    def tables(self) -> Sequence[Table]:
        return ()

    def orphan_sidecars(self) -> Sequence[str]:
        return orphan_sidecars(self._objects.keys())

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every object below the address; its version is its tag, or time, and its size. Raises `Unavailable`."""
        file_system = self._open()
        file_system.system.invalidate_cache()
        self._pace.wait()
        try:
            self._objects = file_system.files()
        except file_system.failures as error:
            raise self._unavailable(error) from error
        self._sidecars, self._ignores_public = Sidecars(self._read_sidecar), None
        if not self._objects and not self._exists(file_system):
            raise self._unavailable(FileNotFoundError("there is no such place"))
        for key in sorted(self._objects):
            if not is_hidden(key):
                yield Change(key, self._version(key))

    def _version(self, key: str) -> str:
        beside = sidecar_of(key)
        marks = [_version_of(self._objects[key])]
        if beside in self._objects:
            marks.append(_version_of(self._objects[beside]))
        return "+".join(marks)

    def read(self, key: str) -> Content:
        details = self._objects.get(key)
        if details is None:
            raise document_gone()
        if int(details.get("size") or 0) > MAX_BYTES:
            raise TooLarge(
                f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
            )
        return Content(
            self._read_bytes(key),
            modified_at=_modified_at(details),
            governed_values=self._sidecars.document_values(key),
        )

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        """The rules of the folders, then those of the object's own access list in S3, if it is read."""
        folders = self._sidecars.folder_rules(key)
        return folders if self._names is None else (*folders, self._s3_rules(key, self._names))

    def _s3_rules(self, key: str, names: Mapping[str, str]) -> FolderRules:
        """The rules of an object's access list. Raises `Invalid` if S3 refuses to return it, `Unavailable` if it does
        not answer."""
        file_system = self._open()
        bucket, _, path = f"{file_system.root.rstrip('/')}/{key}".partition("/")
        if self._ignores_public is None:
            self._ignores_public = self._bucket_ignores_public(file_system, bucket)
        try:
            acl = self._call_s3(file_system, "get_object_acl", Bucket=bucket, Key=path)
        except FileNotFoundError as error:
            raise document_gone() from error
        except PermissionError as error:
            raise s3_acl.unreadable(error) from error
        except file_system.failures as error:
            raise self._unavailable(error) from error
        return s3_acl.access_rules(acl, names, ignores_public=self._ignores_public)

    def _bucket_ignores_public(self, file_system: FileSystem, bucket: str) -> bool:
        """Whether the bucket ignores public grants; True if that is not known."""
        try:
            return s3_acl.ignores_public_grants(self._call_s3(file_system, "get_public_access_block", Bucket=bucket))
        except file_system.failures as error:
            return not s3_acl.is_not_configured(error)

    def _call_s3(self, file_system: FileSystem, method: str, **arguments: str) -> Mapping[str, Any]:
        self._pace.wait()
        found: Mapping[str, Any] = file_system.system.call_s3(method, **arguments)
        return found

    def _read_sidecar(self, path: str) -> bytes | None:
        details = self._objects.get(path)
        if details is None:
            return None
        if int(details.get("size") or 0) > MAX_SIDECAR:
            raise too_large(path.rpartition("/")[2])
        return self._read_bytes(path)

    def _read_bytes(self, key: str) -> bytes:
        file_system = self._open()
        self._pace.wait()
        try:
            return bytes(file_system.system.cat_file(f"{file_system.root.rstrip('/')}/{key}"))
        except FileNotFoundError as error:
            raise document_gone() from error
        except file_system.failures as error:
            raise self._unavailable(error) from error

    def _exists(self, file_system: FileSystem) -> bool:
        try:
            return bool(file_system.system.exists(file_system.root))
        except file_system.failures:
            return False

    def _unavailable(self, error: Exception) -> Unavailable:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return Unavailable(
            f"{self._url} cannot be read: {reason}", code="source_missing",
            hint="Check its address and key; its documents stay as they were.",
        )  # fmt: skip


def _version_of(details: Mapping[str, Any]) -> str:
    tag = details.get("ETag") or details.get("etag")
    stamp = (
        tag or details.get("LastModified") or details.get("mtime") or details.get("modified") or details.get("created")
    )
    return f"{str(stamp).strip(chr(34))}.{details.get('size')}"


def _modified_at(details: Mapping[str, Any]) -> datetime | None:
    for name in ("LastModified", "mtime", "modified", "last_modified"):
        value = details.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return None
