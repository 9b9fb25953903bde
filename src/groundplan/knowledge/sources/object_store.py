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
        self._place: FileSystem | None = None
        self._found: dict[str, Mapping[str, Any]] = {}
        self._sidecars = Sidecars(self._read_sidecar)

    def close(self) -> None:
        """Drop the file system, and with it the library's connections."""
        self._place = None

    def _open(self) -> FileSystem:
        if self._place is None:
            self._place = open_file_system(self._url, self._options)
        return self._place

    def tables(self) -> Sequence[Table]:
        return ()

    def orphan_sidecars(self) -> Sequence[str]:
        return orphan_sidecars(self._found.keys())

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every object below the address; its version is its tag, or time, and its size. Raises `Unavailable`."""
        place = self._open()
        place.system.invalidate_cache()
        self._pace.wait()
        try:
            self._found = place.files()
        except place.failures as error:
            raise self._unavailable(error) from error
        self._sidecars, self._ignores_public = Sidecars(self._read_sidecar), None
        if not self._found and not self._exists(place):
            raise self._unavailable(FileNotFoundError("there is no such place"))
        for key in sorted(self._found):
            if not is_hidden(key):
                yield Change(key, self._version(key))

    def _version(self, key: str) -> str:
        beside = sidecar_of(key)
        marks = [_version_of(self._found[key])]
        if beside in self._found:
            marks.append(_version_of(self._found[beside]))
        return "+".join(marks)

    def read(self, key: str) -> Content:
        about = self._found.get(key)
        if about is None:
            raise document_gone()
        if int(about.get("size") or 0) > MAX_BYTES:
            raise TooLarge(
                f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
            )
        return Content(
            self._bytes(key), modified_at=_modified_at(about), governed_values=self._sidecars.document_values(key)
        )

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        """The rules of the folders, then those of the object's own access list in S3, if it is read."""
        folders = self._sidecars.folder_rules(key)
        return folders if self._names is None else (*folders, self._s3_rules(key, self._names))

    def _s3_rules(self, key: str, names: Mapping[str, str]) -> FolderRules:
        """The rules of an object's access list. Raises `Invalid` if S3 refuses to return it, `Unavailable` if it does
        not answer."""
        place = self._open()
        bucket, _, path = f"{place.root.rstrip('/')}/{key}".partition("/")
        if self._ignores_public is None:
            self._ignores_public = self._ignores(place, bucket)
        try:
            acl = self._call_s3(place, "get_object_acl", Bucket=bucket, Key=path)
        except FileNotFoundError as error:
            raise document_gone() from error
        except PermissionError as error:
            raise s3_acl.unreadable(error) from error
        except place.failures as error:
            raise self._unavailable(error) from error
        return s3_acl.access_rules(acl, names, ignores_public=self._ignores_public)

    def _ignores(self, place: FileSystem, bucket: str) -> bool:
        """Whether the bucket ignores public grants; True if that is not known."""
        try:
            return s3_acl.ignores_public_grants(self._call_s3(place, "get_public_access_block", Bucket=bucket))
        except place.failures as error:
            return not s3_acl.is_not_configured(error)

    def _call_s3(self, place: FileSystem, method: str, **arguments: str) -> Mapping[str, Any]:
        self._pace.wait()
        found: Mapping[str, Any] = place.system.call_s3(method, **arguments)
        return found

    def _read_sidecar(self, path: str) -> bytes | None:
        about = self._found.get(path)
        if about is None:
            return None
        if int(about.get("size") or 0) > MAX_SIDECAR:
            raise too_large(path.rpartition("/")[2])
        return self._bytes(path)

    def _bytes(self, key: str) -> bytes:
        place = self._open()
        self._pace.wait()
        try:
            return bytes(place.system.cat_file(f"{place.root.rstrip('/')}/{key}"))
        except FileNotFoundError as error:
            raise document_gone() from error
        except place.failures as error:
            raise self._unavailable(error) from error

    def _exists(self, place: FileSystem) -> bool:
        try:
            return bool(place.system.exists(place.root))
        except place.failures:
            return False

    def _unavailable(self, error: Exception) -> Unavailable:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return Unavailable(
            f"{self._url} cannot be read: {said}", code="source_missing",
            hint="Check its address and key; its documents stay as they were.",
        )  # fmt: skip


def _version_of(about: Mapping[str, Any]) -> str:
    tag = about.get("ETag") or about.get("etag")
    stamp = tag or about.get("LastModified") or about.get("mtime") or about.get("modified") or about.get("created")
    return f"{str(stamp).strip(chr(34))}.{about.get('size')}"


def _modified_at(about: Mapping[str, Any]) -> datetime | None:
    for name in ("LastModified", "mtime", "modified", "last_modified"):
        value = about.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return None
