"""Until when the certificate in a file holds. Whether it can be used with its key is told by whoever loads both."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

SOON_DAYS: Final = 14
"""A certificate that ends within so many days should have been renewed."""


def ends(file: Path) -> datetime:
    """Of the first certificate in a file of PEM. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc


def problem(file: Path, now: datetime) -> str:
    """What is wrong with it at this moment; empty where nothing is."""
    try:
        end = ends(file)
    except (OSError, ValueError) as error:
        return f"the gateway's certificate {file} cannot be read: {error.__class__.__name__}"
    if (end - now).days >= SOON_DAYS:
        return ""
    return f"the gateway's certificate {file} {'ended' if end <= now else 'ends'} on {end:%Y-%m-%d at %H:%M} UTC"
