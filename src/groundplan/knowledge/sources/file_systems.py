"""Opens and lists the file systems behind the addresses of stores, and knows the errors of each.

S3 comes with `groundplan[knowledge]`, SFTP and WebDAV with `groundplan[stores]`; any other that fsspec knows needs its
own library. No documents are read here, and no connection outlives the file system object.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from groundplan.core.errors import Unavailable

S3: Final = ("s3", "s3a")
SFTP: Final = ("sftp", "ssh")
WEBDAV: Final = ("webdav+https", "webdav+http")
MAX_FOLDERS: Final = 100_000
"""Most folders that are listed: a server that follows links makes a circle of links endless."""
_TIMEOUT_SECONDS: Final = 15
_LIBRARY_ERRORS: Final = (
    ("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"), ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"), ("azure.core.exceptions", "AzureError"),
    ("requests.exceptions", "RequestException"), ("google.api_core.exceptions", "GoogleAPIError"),
)  # fmt: skip
"""(module, class) of the errors of stores besides `OSError`, if that module is imported."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system of fsspec, the root path in it, and the errors that mean it does not answer."""

    system: Any
    root: str
    failures: tuple[type[Exception], ...]

    def files(self) -> dict[str, Mapping[str, Any]]:
        """Every file below the root, by its path below it. A folder that cannot be listed fails the whole listing: else
        its documents would be taken for deleted."""
        # S3 lists by prefix; for others, `find` would leave out folders below the first that cannot be listed
        listed = self._find_by_prefix() if "s3" in _protocols(self.system) else self._walk_folders()
        prefix = f"{self.root.rstrip('/')}/"
        return {path.removeprefix(prefix): details for path, details in listed.items() if _is_file(path, details)}

    def _find_by_prefix(self) -> Mapping[str, Mapping[str, Any]]:
        try:
            found: Mapping[str, Mapping[str, Any]] = self.system.find(self.root, detail=True)
        except KeyError as error:  # some stores know the first version of the listing only
            raise OSError(f"a page of its listing does not say {error}, which leads to the next one") from error
        return found

    def _walk_folders(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        folders = [self.root]
        for folder in folders:
            if len(folders) > MAX_FOLDERS:
                raise OSError(f"it has more than {MAX_FOLDERS} folders, or a link in it leads back")
            for details in self.system.ls(folder, detail=True):
                name = str(details["name"]).rstrip("/")
                if name not in found:
                    found[name] = details
                    if details.get("type") == "directory":
                        folders.append(name)
        return found


def _is_file(path: str, details: Mapping[str, Any]) -> bool:
    """Whether it is a file, and not the empty object with a final slash that some programs keep for a folder."""
    return details.get("type") == "file" and (not path.endswith("/") or bool(details.get("size")))


def open_file_system(url: str, options: Mapping[str, Any]) -> FileSystem:
    """Open the file system at the address of a store. Raises `Unavailable`."""
    scheme = urlsplit(url).scheme
    try:
        if scheme in SFTP:
            return _open_sftp(url, options)
        if scheme in WEBDAV:
            return _open_webdav(url, options)
        return _open_fsspec(url, options)
    except ModuleNotFoundError as error:
        extra = "stores" if scheme in (*SFTP, *WEBDAV) else "knowledge"
        raise Unavailable(
            f"stores at {scheme}:// need a library that is not installed ({error.name})",
            code="extra_missing",
            hint=f"pip install 'groundplan[{extra}]'",
        ) from error
    except Exception as error:
        if not isinstance(error, (ImportError, ValueError, OSError, *_library_errors())):
            raise
        raise Unavailable(
            f"{url} cannot be opened: {error}", code="source_missing",
            hint="Check its address; some stores need a library of their own, such as adlfs.",
        ) from error  # fmt: skip


def _open_sftp(url: str, options: Mapping[str, Any]) -> FileSystem:
    import asyncssh  # noqa: PLC0415 -- heavy, of an extra
    from sshfs.spec import SSHFileSystem  # noqa: PLC0415 -- heavy, of an extra

    parts = urlsplit(url)
    failures = (OSError, ValueError, asyncssh.Error)
    where: dict[str, Any] = {} if parts.port is None else {"port": parts.port}
    try:
        system = SSHFileSystem(parts.hostname or "", **where, **options)
    except asyncssh.Error as error:
        raise ConnectionError(error.reason) from error
    return FileSystem(system, unquote(parts.path) or "/", failures)


def _open_webdav(url: str, options: Mapping[str, Any]) -> FileSystem:
    import httpx  # noqa: PLC0415 -- heavy
    from webdav4.client import Client, ClientError  # noqa: PLC0415 -- of an extra
    from webdav4.fsspec import WebdavFileSystem  # noqa: PLC0415 -- of an extra

    class EscapingClient(Client):  # type: ignore[misc]
        """Escapes `#`, `?` and `%` in names, which the client would otherwise take for the end of the path or for an
        escape."""

        def join_url(self, path: str, add_trailing_slash: bool = False) -> httpx.URL:
            plain = path.replace("%", "%25").replace("#", "%23").replace("?", "%3F")
            joined: httpx.URL = super().join_url(plain, add_trailing_slash)
            return joined

    parts = urlsplit(url)
    base = f"{parts.scheme.removeprefix('webdav+')}://{parts.netloc}/"
    # files are read whole, never in ranges
    system = WebdavFileSystem(base, client=EscapingClient(base, **options), skip_instance_cache=True)
    failures = (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL, ClientError)
    return FileSystem(system, unquote(parts.path).strip("/"), failures)


def _open_fsspec(url: str, options: Mapping[str, Any]) -> FileSystem:
    import fsspec  # noqa: PLC0415 -- heavy

    system, root = fsspec.core.url_to_fs(url, **options)
    return FileSystem(system, root, (OSError, ValueError, *_library_errors()))


def _library_errors() -> tuple[type[Exception], ...]:
    """The errors in `_ERRORS` whose modules are imported."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _LIBRARY_ERRORS)
    return tuple(each for each in found if isinstance(each, type) and issubclass(each, Exception))


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def options_for(url: str, endpoint: str | None, key: str | None, host_key: str | None = None) -> dict[str, Any]:
    """The options to open an address with. `key` is `ID:SECRET` for S3, `USER:PASSWORD` for SFTP and WebDAV; `host_key`
    is the public key of an SFTP server, which otherwise must be in this user's known_hosts."""
    scheme = urlsplit(url).scheme
    user, _, password = (key or "").partition(":")
    if scheme in S3:
        return _s3_options(endpoint, user, password)
    if scheme in SFTP:
        known_hosts: Any = () if host_key is None else f"* {host_key}\n".encode()
        credentials = {"username": user, "password": password, "client_keys": None, "agent_path": None} if key else {}
        timeouts = {
            "connect_timeout": _TIMEOUT_SECONDS,
            "login_timeout": _TIMEOUT_SECONDS,
            "keepalive_interval": _TIMEOUT_SECONDS,
        }
        # a broken connection must not be reused by the next run
        return {"known_hosts": known_hosts, "skip_instance_cache": True, **timeouts, **credentials}
    if scheme in WEBDAV:
        return {"auth": (user, password) if key else None, "timeout": _TIMEOUT_SECONDS}
    if key and scheme in ("http", "https"):
        return {"auth": (user, password)}
    return {}


def _s3_options(endpoint: str | None, user: str, password: str) -> dict[str, Any]:
    """The options of an S3 service: its own endpoint, and its key or anonymous access."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    if endpoint is not None:
        options["client_kwargs"] = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return options | ({"key": user, "secret": password} if user else {"anon": True})
