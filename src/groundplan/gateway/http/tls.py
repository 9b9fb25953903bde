"""TLS contexts for both sides, made from files that may be replaced while the process runs.

A context is made anew when one of its files has changed, so that a renewed certificate is used for the next handshake.
Never turns verification off, and knows no protocol above TLS.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from groundplan.blueprint.model import Tls
from groundplan.core.errors import Invalid

Stamp = tuple[tuple[int, int, int], ...]


def _no_passphrase() -> str:
    # otherwise OpenSSL would ask the terminal
    return ""


def file_path(reference: str) -> Path:
    """The path in `file:/path` (or a bare path). Raises `Invalid` (`tls_reference`) for anything else."""
    scheme, colon, name = reference.partition(":")
    if colon and scheme != "file":
        raise Invalid(
            f"{scheme}: does not name a file with a certificate or key", code="tls_reference", hint="Write file:/path."
        )
    return Path(name if colon else reference)


def file_stamp(files: tuple[Path, ...]) -> Stamp:
    """A value that changes whenever one of the files is replaced or rewritten. Raises `Invalid` (`tls_unreadable`)."""
    try:
        found = [file.stat() for file in files]
    except OSError as error:
        raise _unreadable(error) from error
    return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in found)


def _unreadable(error: Exception) -> Invalid:
    name = getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error.__class__.__name__
    return Invalid(
        f"a certificate or key cannot be used{f' ({name})' if name else ''}: {reason}",
        code="tls_unreadable",
        hint="It must be PEM, readable by this user, without a passphrase, and the key must belong to the certificate.",
    )


def _load_cert_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _unreadable(error) from error


def has_revocation_list(context: ssl.SSLContext) -> bool:
    """Whether a certificate revocation list was loaded into the context."""
    return context.cert_store_stats()["crl"] > 0


def _check_revocation(context: ssl.SSLContext) -> None:
    """Make the context check revocation if a list is declared: OpenSSL reads lists, but uses them only if told to. A
    certificate is then accepted only if its authority's list is there, in force, and does not contain it."""
    if has_revocation_list(context):
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


class ClientContexts:
    """The client contexts for upstreams, one for each declaration."""

    def __init__(self) -> None:
        self._contexts: dict[Tls | None, tuple[Stamp, ssl.SSLContext]] = {}

    def context(self, tls: Tls | None) -> ssl.SSLContext:
        """The context for a declaration, from its files as they are now. Raises `Invalid` if they cannot be used."""
        wanted = None if tls is None else Tls(ca=tls.ca, cert=tls.cert, key=tls.key)
        named = () if wanted is None else (wanted.ca, wanted.cert, wanted.key)
        now = file_stamp(tuple(file_path(reference) for reference in named if reference is not None))
        known = self._contexts.get(wanted)
        if known is None or known[0] != now:
            known = self._contexts[wanted] = (now, _client_context(wanted))
        return known[1]


def _client_context(tls: Tls | None) -> ssl.SSLContext:
    ca = file_path(tls.ca) if tls is not None and tls.ca is not None else None
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable(error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Private authorities often lack an extension that Python 3.13 began to require, and other clients do not. That a
    # declared authority may be an intermediate one is new in the same version.
    context.verify_flags = context.verify_flags & ~ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    _check_revocation(context)
    context.set_alpn_protocols(["http/1.1"])
    if tls is not None and tls.cert is not None:
        _load_cert_chain(context, file_path(tls.cert), file_path(tls.key) if tls.key is not None else None)
    return context


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The files of the server side: certificate chain, key, and, if clients must show a certificate, the CAs that may
    have issued it."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> Stamp:
        return file_stamp(tuple(file for file in (self.cert, self.key, self.client_ca) if file is not None))

    def context(self) -> ssl.SSLContext:
        """A server context; TLS 1.2 at least. Raises `Invalid` (`tls_unreadable`)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        _load_cert_chain(context, self.cert, self.key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.num_tickets = 0  # a resumed session would go on after its certificate, or its list, has expired
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise _unreadable(error) from error
            _check_revocation(context)
        return context

    def client_ca_stamp(self) -> Stamp:
        """A value that changes whenever the accepted client CAs change."""
        return file_stamp(() if self.client_ca is None else (self.client_ca,))
