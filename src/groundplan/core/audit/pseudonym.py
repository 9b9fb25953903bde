"""Names under which the log speaks of addresses that are nobody's here: keyed, so that only this installation can tell.

An address is looked for by making its pseudonym again; without the installation's key nothing can be guessed, as it
could be from a plain hash. People who are here are named by random ids instead.
"""

from __future__ import annotations

import hashlib
import hmac

from groundplan.core.audit.keys import load_wrapping
from groundplan.core.home import Home

_LABEL = b"groundplan audit pseudonym v1"
CHARACTERS = 32


def pseudonym(home: Home, value: str) -> str:
    """The same for the same address in whatever case. Raises `Unavailable` where the key is missing."""
    key = hmac.new(load_wrapping(home), _LABEL, hashlib.sha256).digest()
    return hmac.new(key, value.strip().casefold().encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:CHARACTERS]
