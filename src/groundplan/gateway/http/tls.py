"""TLS contexts for both sides, made from files that may be replaced while we run.

A context is made anew when one of its files has changed, so that a renewed certificate serves the next handshake. Never
turns verification off, and knows no protocol above TLS.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from groundplan.blueprint.model import Tls
from groundplan.core.errors import Invalid

Stamp = tuple[tuple[int, int, int], ...]


def _no_passphrase() -> str:
    # without this, OpenSSL would ask the terminal
    return ""


def path_of(reference: str) -> Path:
    """The file behind `file:/path` (or a bare path). Raises `Invalid` (`tls_reference`) for anything else."""
    scheme, colon, name = reference.partition(":")
    if colon and scheme != "file":
        raise Invalid(
            f"{scheme}: does not name a file with a certificate or key", code="tls_reference", hint="Write file:/path."
        )
    return Path(name if colon else reference)


def stamp(files: tuple[Path, ...]) -> Stamp:
    """Changes whenever one of the files is replaced or rewritten. Raises `Invalid` (`tls_unreadable`)."""
    try:
        found = [file.stat() for file in files]
    except OSError as error:
        raise _unreadable(error) from error
    return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in found)


def _unreadable(error: Exception) -> Invalid:
    name = getattr(error, "filename", None)
    told = getattr(error, "strerror", None) or getattr(error, "reason", None) or error.__class__.__name__
    return Invalid(
        f"a certificate or key cannot be used{f' ({name})' if name else ''}: {told}",
        code="tls_unreadable",
        hint="It must be PEM, readable by this user, without a passphrase, and the key must belong to the certificate.",
    )


def _load(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _unreadable(error) from error


def names_revoked(context: ssl.SSLContext) -> bool:
    """Whether beside the authorities of a context there is a list of the certificates that one of them revoked."""
    return context.cert_store_stats()["crl"] > 0


def _look_at_revoked(context: ssl.SSLContext) -> None:
    """Where such a list is declared, a certificate counts only if the list of its authority is there, in force, and
    does not have it: OpenSSL reads lists, and heeds them only where it is told to."""
    if names_revoked(context):
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


class ClientContexts:
    """The contexts with which upstreams are called, one for each declaration."""

    def __init__(self) -> None:
        self._made: dict[Tls | None, tuple[Stamp, ssl.SSLContext]] = {}

    def of(self, tls: Tls | None) -> ssl.SSLContext:
        """The context for a declaration, as its files are now. Raises `Invalid` where they cannot be used."""
        wanted = None if tls is None else Tls(ca=tls.ca, cert=tls.cert, key=tls.key)
        named = () if wanted is None else (wanted.ca, wanted.cert, wanted.key)
        now = stamp(tuple(path_of(reference) for reference in named if reference is not None))
        known = self._made.get(wanted)
        if known is None or known[0] != now:
            known = self._made[wanted] = (now, _client_context(wanted))
        return known[1]


def _client_context(tls: Tls | None) -> ssl.SSLContext:
    ca = path_of(tls.ca) if tls is not None and tls.ca is not None else None
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable(error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Private authorities often lack an extension that Python 3.13 began to ask for, and other clients do not. That an
    # authority that is declared may be an intermediate one is as new.
    context.verify_flags = context.verify_flags & ~ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    _look_at_revoked(context)
    context.set_alpn_protocols(["http/1.1"])
    if tls is not None and tls.cert is not None:
        _load(context, path_of(tls.cert), path_of(tls.key) if tls.key is not None else None)
    return context


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The files of our own side: certificate chain, key, and, where callers must show a certificate, whose they may
    be."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> Stamp:
        return stamp(tuple(file for file in (self.cert, self.key, self.client_ca) if file is not None))

    def context(self) -> ssl.SSLContext:
        """For a server; TLS 1.2 at least. Raises `Invalid` (`tls_unreadable`)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        _load(context, self.cert, self.key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise _unreadable(error) from error
            _look_at_revoked(context)
        return context

    def callers(self) -> Stamp:
        """Changes whenever it is told anew whose certificates callers may show."""
        return stamp(() if self.client_ca is None else (self.client_ca,))
