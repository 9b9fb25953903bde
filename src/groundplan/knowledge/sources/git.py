"""The connector of a Git repository: the documents of a branch, by the differences between two commits.

The repository is fetched into a local mirror and never checked out; nothing in it is executed. A mirror is cloned again
if it is incomplete, if the history of the branch was rewritten, or after many fetches. Sidecars are those of `folder`.
The library is that of `groundplan[knowledge]`.
"""

from __future__ import annotations

import gc
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from groundplan.core.errors import Invalid, TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_BYTES, Table
from groundplan.knowledge.sources.errors import document_gone
from groundplan.knowledge.sources.git_history import History, read_history
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules
from groundplan.knowledge.sources.sidecars import GOVERNED_FILE, Sidecars, is_hidden, orphan_sidecars

MAX_FILES: Final = 1_000_000
MAX_PACKS: Final = 150
"""Most packs of a mirror. Each fetch adds one, and a reader holds two file descriptors per pack: after some hundreds
the process has none left. Repacking by the library would load all of them into memory."""


class GitConnector:
    """The connector of a repository. Keys are paths below `folder`.

    `url` is any address that Git can fetch; `folder` is a folder in the repository; `mirror` is the folder of mirrors;
    `key` is `USER:PASSWORD` for an HTTP server, `USER` for an SSH server.
    """

    def __init__(
        self, url: str, mirror: Path, *, branch: str | None = None, folder: str = "", key: str | None = None
    ) -> None:
        self._url, self._branch, self._prefix, self._key = url, branch, folder.strip("/"), key
        if url.startswith("ssh:") and ":" in (key or ""):
            raise Invalid(
                "SSH does not use a password here", code="source_key",
                hint="Write the user alone into the secret; the keys are those of this user.",
            )  # fmt: skip
        self._ref = f"refs/sources/{branch or 'HEAD'}".encode()  # sources of one repository share its mirror
        self._mirror = mirror / _mirror_name(url)
        self._repository: Any = None
        self._files: dict[str, bytes] = {}
        self._head = ""
        self._reported: set[str] = set()
        self._history: History | None = None
        self._sidecars = Sidecars(self._read_sidecar)
        self.is_complete = False

    def close(self) -> None:
        if self._repository is None:
            return
        try:
            self._repository.close()
        except BufferError:  # the library still references a part of a mapped file
            gc.collect()
            self._repository.close()
        self._repository = None

    def tables(self) -> Sequence[Table]:
        return ()

    def orphan_sidecars(self) -> Sequence[str]:
        return orphan_sidecars(self._files.keys())

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """The differences from the commit of the cursor, or all files without one. Raises `Unavailable`."""
        self._fetch()
        before = (
            self._list_files(cursor["at"]) if cursor and cursor.get("at") and self._has_commit(cursor["at"]) else None
        )
        same_target = cursor is not None and cursor.get("to") == self._head
        after = str(cursor["after"]) if cursor is not None and same_target else ""
        # a first run that is continued does not list the files before the cursor
        self.is_complete = before is None and not after
        self._reported, self._history = self._changed_keys(before), None
        changed = sorted(self._reported)
        step = {"at": cursor.get("at") if cursor and before is not None else None, "to": self._head}
        for number, key in enumerate(changed, 1):
            if key <= after:
                continue
            next_cursor = {"at": self._head} if number == len(changed) else {**step, "after": key}
            if key in self._files:
                yield Change(key, self._files[key].decode() + self._sidecar_version(key), cursor=next_cursor)
            else:
                yield Change(key, "", is_deleted=True, cursor=next_cursor)

    def _changed_keys(self, before: Mapping[str, bytes] | None) -> set[str]:
        documents = {key for key in self._files if not is_hidden(key)}
        if before is None:
            return documents
        differing = {key for key in before.keys() | self._files.keys() if before.get(key) != self._files.get(key)}
        changed = {key for key in differing if not is_hidden(key)}
        for key in differing - changed:
            # a sidecar changed: the rules of all documents below its folder may have changed
            folder, _, name = key.rpartition("/")
            if name.startswith("."):
                changed |= {each for each in documents if not folder or each.startswith(f"{folder}/")}
        return changed

    def _sidecar_version(self, key: str) -> str:
        folder, _, name = key.rpartition("/")
        other = self._files.get(f"{folder}/.{name}{GOVERNED_FILE}" if folder else f".{name}{GOVERNED_FILE}")
        return f"+{other.decode()}" if other else ""

    def read(self, key: str) -> Content:
        identity = self._files.get(key)
        if identity is None:
            raise document_gone()
        return Content(
            self._read_blob(identity),
            modified_at=self._changed_at(key),
            governed_values=self._sidecars.document_values(key),
        )

    def _changed_at(self, key: str) -> datetime | None:
        """The time of the last commit that changed the file; the history is read once for all reported files."""
        if self._history is None or key not in self._reported:
            self._reported = (
                self._reported if key in self._reported else {each for each in self._files if not is_hidden(each)}
            )
            self._history = read_history(
                self._repository, self._head, map(self._repository_path, self._reported & self._files.keys())
            )
        return self._history.time_of(self._repository_path(key))

    def _repository_path(self, key: str) -> bytes:
        """The path of a document in the repository."""
        return (f"{self._prefix}/{key}" if self._prefix else key).encode("utf-8", "surrogateescape")

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        return self._sidecars.folder_rules(key)

    def _read_sidecar(self, path: str) -> bytes | None:
        identity = self._files.get(path)
        return None if identity is None else self._read_blob(identity)

    def _read_blob(self, identity: bytes) -> bytes:
        from dulwich.objects import Blob  # noqa: PLC0415 -- heavy

        found = self._repository[identity]
        if not isinstance(found, Blob):
            raise Invalid("it is not a file", code="document_type", hint="Nothing needs to be done.")
        data = found.data
        if len(data) > MAX_BYTES:
            raise TooLarge(
                f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
            )
        return bytes(data)

    def _fetch(self) -> None:
        try:
            from dulwich.client import (  # noqa: PLC0415 -- heavy
                HTTPProxyUnauthorized,
                HTTPUnauthorized,
                get_transport_and_path,
            )
            from dulwich.errors import GitProtocolError, NotGitRepository  # noqa: PLC0415
            from dulwich.refs import Ref  # noqa: PLC0415
            from dulwich.repo import Repo  # noqa: PLC0415
            from urllib3.exceptions import HTTPError  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise missing_extra("git", error) from error
        user, _, password = (self._key or "").partition(":")
        try:
            client, path = get_transport_and_path(self._url, username=user or None, password=password or None)
            wanted = f"refs/heads/{self._branch}".encode() if self._branch else b"HEAD"
            for is_recloned in (False, True):
                self._repository = self._open_mirror(Repo, NotGitRepository)
                head = dict(_fetch_refs(client, path, self._repository)).get(Ref(wanted))
                if head is None or is_recloned or not (self._is_rewritten(head) or self._pack_count() > MAX_PACKS):
                    break
                self._close_mirror(True)  # contents that were removed from the history must not stay in the mirror
            if head is not None:
                self._repository.refs[self._ref] = head
                self._head, self._files = head.decode(), self._list_files(head.decode())
        except (HTTPUnauthorized, HTTPProxyUnauthorized) as error:
            raise Unavailable(
                f"the repository {self._url} does not let this user in", code="source_missing",
                hint="Name who asks: `key: env:NAME`, of USER:PASSWORD or USER:TOKEN; the documents stay as they were.",
            ) from error  # fmt: skip
        except (OSError, GitProtocolError, NotGitRepository, HTTPError) as error:
            self._close_mirror(str(self._mirror) in str(getattr(error, "filename", "")))
            raise Unavailable(
                f"the repository {self._url} cannot be fetched: {error or type(error).__name__}", code="source_missing",
                hint="Check its address and whether it can be read; the documents stay as they were.",
            ) from error  # fmt: skip
        except Unavailable:
            raise
        except Exception as error:
            self._close_mirror(True)
            raise Unavailable(
                f"the mirror of {self._url} is damaged: {error or type(error).__name__}", code="source_missing",
                hint="It is made anew at the next look; the documents stay as they were.",
            ) from error  # fmt: skip
        if head is None:
            raise Unavailable(
                f"the repository has no branch {self._branch or 'by default'}", code="source_missing",
                hint="Correct `branch` of the connector; the documents stay as they were.",
            )  # fmt: skip
        self._sidecars = Sidecars(self._read_sidecar)

    def _is_rewritten(self, head: Any) -> bool:
        """Whether the history of the branch was rewritten since the last fetch."""
        from dulwich.graph import can_fast_forward  # noqa: PLC0415 -- heavy

        before = self._repository.refs.as_dict().get(self._ref)
        return before not in (None, head) and not can_fast_forward(self._repository, before, head)

    def _pack_count(self) -> int:
        return sum(1 for _ in self._mirror.glob("objects/pack/*.pack"))

    def _close_mirror(self, damaged: bool) -> None:
        """Close the mirror, and delete it if it is damaged: it is a copy that can be fetched again."""
        self.close()
        if damaged:
            shutil.rmtree(self._mirror, ignore_errors=True)

    def _open_mirror(self, repo: Any, broken: type[Exception]) -> Any:
        """Open the mirror, or create it elsewhere and move it into place, so that a killed process leaves none or a
        complete one."""
        if (self._mirror / "HEAD").exists():
            for lock in list(self._mirror.rglob("*.lock")):
                lock.unlink(missing_ok=True)  # left by a killed process: only one uses the mirror at a time
            with suppress(broken, OSError, ValueError):
                return repo(self._mirror)
        temporary = self._mirror.with_suffix(".new")
        for leftover in (temporary, self._mirror):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True, mode=0o700)
        repo.init_bare(temporary).close()
        temporary.replace(self._mirror)
        return repo(self._mirror)

    def _has_commit(self, commit: str) -> bool:
        return commit.encode() in self._repository.object_store

    def _list_files(self, commit: str) -> dict[str, bytes]:
        """Path below the folder -> id of the blob, for ordinary files only: no links, no submodules. Raises
        `Unavailable` above `MAX_FILES`: a few kilobytes of nested folders can list files without end."""
        tree = self._repository[commit.encode()].tree
        found = {}
        for number, entry in enumerate(self._repository.object_store.iter_tree_contents(tree)):
            if number >= MAX_FILES:
                raise Unavailable(
                    f"{self._url} has more than {MAX_FILES} files", code="source_too_large",
                    hint="Name a repository that has the documents alone; those that were read stay as they were.",
                )  # fmt: skip
            if entry.mode & 0o170000 != 0o100000:
                continue
            path = entry.path.decode("utf-8", "surrogateescape")
            if not self._prefix:
                found[path] = entry.sha
            elif path.startswith(f"{self._prefix}/"):
                found[path.removeprefix(f"{self._prefix}/")] = entry.sha
        return found


def _mirror_name(url: str) -> str:
    """The name of the folder of a repository's mirror."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def remove_other_mirrors(mirrors: Path, urls: Iterable[str]) -> None:
    """Delete the mirrors of all repositories except these."""
    wanted = set(map(_mirror_name, urls))
    for each in mirrors.iterdir() if mirrors.is_dir() else ():
        if each.name.removesuffix(".new") not in wanted:
            shutil.rmtree(each, ignore_errors=True)


def _fetch_refs(client: Any, path: str, repository: Any) -> Mapping[Any, Any]:
    """Fetch into the repository and return the remote's branches; no connection stays open."""
    try:
        refs: Mapping[Any, Any] = client.fetch(path, repository).refs
        return refs
    finally:
        pool = getattr(client, "pool_manager", None)
        if pool is not None:
            pool.clear()


def missing_extra(what: str, error: ModuleNotFoundError) -> Unavailable:
    return Unavailable(
        f"sources of type {what} need a library that is not installed ({error.name})",
        code="extra_missing",
        hint="pip install 'groundplan[knowledge]'",
    )
