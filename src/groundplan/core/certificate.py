"""Until when the certificate in a file holds. Whether it can be used with its key is told by whoever loads both."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

SOON_DAYS: Final = 14
"""A certificate that ends within so many days should have been renewed."""


def expires_at(file: Path) -> datetime:
    """Of the first certificate in a file of PEM. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc


_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def crl_expires_at(file: Path) -> datetime | None:
    """When the first of the lists of revoked certificates in a file of PEM is to be replaced; None: it has none that
    is. Raises OSError, ValueError."""
    lists = [x509.load_pem_x509_crl(found).next_update_utc for found in _LIST.findall(file.read_bytes())]
    return min((end for end in lists if end is not None), default=None)


def problem(file: Path, now: datetime) -> str:
    """What is wrong with it at this moment; empty where nothing is."""
    try:
        end = expires_at(file)
    except (OSError, ValueError) as error:
        return f"the gateway's certificate {file} cannot be read: {error.__class__.__name__}"
    if (end - now).days >= SOON_DAYS:
        return ""
    return f"the gateway's certificate {file} {'ended' if end <= now else 'ends'} on {end:%Y-%m-%d at %H:%M} UTC"
