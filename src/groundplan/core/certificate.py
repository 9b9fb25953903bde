"""When certificates and revocation lists in PEM files expire. Does not check that a certificate fits its key."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

SOON_DAYS: Final = 14
"""A certificate that expires within this many days should have been renewed."""


def expires_at(file: Path) -> datetime:
    """When the first certificate in a PEM file expires. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc


_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def crl_expires_at(file: Path) -> datetime | None:
    """The earliest `nextUpdate` of the certificate revocation lists in a PEM file; None where there is none. Raises
    OSError, ValueError."""
    lists = [x509.load_pem_x509_crl(found).next_update_utc for found in _LIST.findall(file.read_bytes())]
    return min((end for end in lists if end is not None), default=None)


def problem(file: Path, now: datetime) -> str:
    """The problem with the gateway's certificate at this time; empty where there is none."""
    try:
        end = expires_at(file)
    except (OSError, ValueError) as error:
        return f"the gateway's certificate {file} cannot be read: {error.__class__.__name__}"
    if (end - now).days >= SOON_DAYS:
        return ""
    return f"the gateway's certificate {file} {'ended' if end <= now else 'ends'} on {end:%Y-%m-%d at %H:%M} UTC"
