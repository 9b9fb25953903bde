"""Budgets of a call's receipt by names that people know: those of keys and experiments are called by an id."""

from __future__ import annotations

import re
from typing import Any

from psycopg import Connection

from groundplan.api import store

_BY_ID = re.compile(r"(?:key|experiment)/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def titled(conn: Connection[Any], receipt: dict[str, Any]) -> dict[str, Any]:
    """A receipt whose charges have the `title` of their budget, and whose `refusal` names it so."""
    texts = [str(receipt["refusal"] or ""), *(charge["budget"] for charge in receipt["charges"])]
    ids = {found[1] for text in texts for found in _BY_ID.finditer(text)}
    names = store.names(conn, ids) if ids else {}

    def told(text: str) -> str:
        return _BY_ID.sub(lambda found: names.get(found[1], found[0]), text)

    for charge in (*receipt["charges"], *(each for one in receipt["attempts"] for each in one["charges"])):
        charge["title"] = told(charge["budget"])
    return {**receipt, "refusal": told(receipt["refusal"]) if receipt["refusal"] else receipt["refusal"]}
