"""Which steps of the schema a database missed, since a step with a greater number came to it before they were there.

It knows that of steps that have a sign (see migrations/signs.py), and runs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psycopg

from groundplan import migrations
from groundplan.migrations.signs import LAST, SIGNS

RENAMED = {"0359_grants_by_join": "0355_long_prompts"}
"""A step that was renamed, and the one before it: it runs again under its name of now, as it may."""


_SCRIPTS: Final = Path(migrations.__file__).parent
_TABLE: Final = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)


def made_late() -> set[str]:
    """Tables that a database may lack, since steps that have a sign made them."""
    texts = (_SCRIPTS.joinpath(f"{step}.sql").read_text(encoding="utf-8") for step in SIGNS)
    return {name for text in texts for name in _TABLE.findall(text)}


def overtaken(connection: psycopg.Connection[Any], known: Iterable[str], found: str) -> list[str]:
    """Those that a database at the step `found` lacks and may still have, in their order."""
    asked = {step: SIGNS[step] for step in sorted(known) if step in SIGNS and step < found <= LAST.get(step, found)}
    rows = connection.execute(
        """SELECT sign FROM unnest(%s::text[]) sign, LATERAL (SELECT split_part(sign, '=', 1) AS name) n,
             LATERAL (SELECT split_part(name, '.', 1) AS first, split_part(name, '.', 2) AS second,
               substr(sign, strpos(sign || '=', '=') + 1) AS part) s
           WHERE EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.' || quote_ident(name))
               AND strpos(coalesce(relacl::text, ''), part) > 0)
             OR EXISTS (SELECT FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conname = name
               AND strpos(pg_get_constraintdef(oid), part) > 0)
             OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname || '()' = name
               AND strpos(pg_get_functiondef(oid), part) > 0)
             OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('public.' || quote_ident(first))
               AND attname = second AND NOT attisdropped)""",
        (sorted(set(asked.values())),),
    ).fetchall()
    there = {sign for (sign,) in rows}
    return [step for step, sign in asked.items() if sign not in there]
