"""Whose a stored answer is, and the SQL condition by which only its owner finds it.

An answer belongs to a key and to the person for whom that key acted. The person is the subject under whose key the
answer is sealed (`core.audit.subject`); an answer that was made for nobody is sealed under the id of its key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

_SUBJECT: Final[LiteralString] = "substr(sealed, 8, 36)"
"""The subject's id in `sealed:ID:...`; reads the beginning of a long text only."""
OWNED: Final[LiteralString] = f"""owner = %(owner)s AND workload = %(workload)s AND expires_at > now()
    AND CASE WHEN %(person)s::text <> '' THEN {_SUBJECT} = %(person)s::text
        ELSE EXISTS (SELECT FROM api_key WHERE api_key.id = {_SUBJECT}::uuid) END"""
"""Condition: the row, of a table with `owner`, `workload`, `expires_at` and `sealed`, is this owner's and has not
expired."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of stored answers. `key` is the first key from which the caller's was rotated; `person` is the id of
    the person for whom it acts, empty for nobody."""

    key: UUID
    workload: str
    person: str

    def parameters(self, **more: Any) -> dict[str, Any]:
        """Parameters of a statement with `OWNED`."""
        return {"owner": self.key, "workload": self.workload, "person": self.person, **more}
