"""Who is named in documents: what is looked for, and the SQL of it, as role control.

A name is found where a word begins with it, in any case, however its letters are typed (`core/letters.py`), also across
the ends of lines, passages and cells. Other spellings of it, and what is only meant, are not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.core.letters import name_pattern, normalize_letters
from groundplan.knowledge.governance.inherit import DOCUMENT_KEYS
from groundplan.knowledge.writing_systems import RUN

Conn = Connection[Any]
_APART: Final = re.compile(r"[\s|*_`]+")
"""What stands between two words of a text, of Markdown too."""
_APART_IN_PATHS: Final = re.compile(r"[\s|*_`./-]+")
_SHORTEST, _SHORTEST_UNSPACED = 4, 2
"""Characters of a text that names somebody: without any, every document would. Han names have two."""


def names_somebody(word: str) -> bool:
    """Whether a text is long enough to be a name."""
    word = _APART.sub(" ", word).strip()
    return len(word) >= (_SHORTEST_UNSPACED if RUN.search(word) else _SHORTEST)


def documents_mentioning(conn: Conn, words: Sequence[str]) -> list[tuple[UUID, str, str, bool]]:
    """(document, source, path, on hold) of live documents, and those that cannot be read any more, with one of these
    texts in them, in their title, path or what they declare besides what governs them, in the bytes that were pushed,
    and of what a legal hold keeps of others."""
    plain, cased = _spelled(words)
    unspaced = [word.replace(" ", "") for word in plain if RUN.search(word)]
    # a passage has at least the beginning: what is put together of a document costs more
    first = [word.split(" ")[0] for word in cased] + [word[0] for word in unspaced]
    rows = conn.execute(
        f"""SELECT d.id, d.source, d.path, on_hold(d) FROM document d
           WHERE (d.deleted_at IS NULL OR d.unreadable) AND (
             {_has("letters(concat_ws(' . ', d.title, (d.declared -> 'front') - %(own)s::text[],"
                   " (d.declared -> 'beside') - %(own)s::text[]))", "words")}
             OR {_has("letters(d.path)", "paths")} OR (
             EXISTS (SELECT 1 FROM chunk c WHERE c.document_id = d.id AND letters(c.text) ILIKE ANY(%(first)s))
             AND (SELECT {_has("t.said", "words")}
                 OR (cardinality(%(unspaced)s::text[]) > 0
                   AND regexp_replace(t.said, %(apart)s, '', 'g') ILIKE ANY(%(unspaced)s))
               FROM (SELECT letters(string_agg(c.text, ' ' ORDER BY c.number)) AS said FROM chunk c
                 WHERE c.document_id = d.id AND c.edition = serving_edition()) t))
             OR EXISTS (SELECT FROM pushed p WHERE p.source = d.source AND p.path = d.path AND NOT p.gone
               AND {_has("encode(p.data, 'escape')", "bytes")}))
           UNION
           SELECT coalesce(h.document_id, h.id), h.source, h.path, true
           FROM held_version h LEFT JOIN document d ON d.id = h.document_id LEFT JOIN source s ON s.name = h.source
           WHERE ({_has("letters(concat_ws(' . ', h.text, h.title, h.declared))", "words")}
               OR {_has("letters(h.path)", "paths")} OR {_has("encode(h.data, 'escape')", "bytes")})
             AND (coalesce(s.legal_hold, false) OR (d.id IS NOT NULL AND on_hold(d)))
           ORDER BY 2, 3""",
        {
            "own": list(DOCUMENT_KEYS), "first": list(map(_within, first)), "unspaced": list(map(_within, unspaced)),
            **_sought(cased),
        },
    )  # fmt: skip
    return rows.fetchall()


def pushed_mentioning(conn: Conn, words: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(source, path, on hold) of what was pushed, is no live document, and has one of these texts in its bytes, path or
    values: it could not be read, or was not looked at yet."""
    _, cased = _spelled(words)
    return conn.execute(
        f"""SELECT p.source, p.path, coalesce(s.legal_hold, false) OR (d.id IS NOT NULL AND on_hold(d))
           FROM pushed p LEFT JOIN document d ON d.source = p.source AND d.path = p.path
             LEFT JOIN source s ON s.name = p.source
           WHERE NOT p.gone AND (d.id IS NULL OR d.deleted_at IS NOT NULL) AND (
             {_has("encode(p.data, 'escape')", "bytes")} OR {_has("letters(p.told::text)", "words")}
             OR {_has("letters(p.path)", "paths")})
           ORDER BY 1, 2""",
        _sought(cased),
    ).fetchall()


def _has(text: LiteralString, sought: LiteralString) -> LiteralString:
    """Whether an expression has one of what is sought in it, as the parameters of `_sought` say. A pattern of LIKE is
    quick to say no."""
    apart = "apart_in_paths" if sought == "paths" else "apart"
    plain = f"regexp_replace({text}, %({apart})s, ' ', 'g')"
    return f"({plain} ILIKE ANY(%({sought}_within)s) AND {plain} ~* ANY(%({sought})s))"


def _sought(cased: Sequence[str]) -> dict[str, Any]:
    every = {
        "words": cased, "paths": [_APART_IN_PATHS.sub(" ", word) for word in cased],
        "bytes": [_escaped(word) for word in cased],
    }  # fmt: skip
    return {
        "apart": _APART.pattern, "apart_in_paths": _APART_IN_PATHS.pattern,
        **{name: list(map(name_pattern, found)) for name, found in every.items()},
        **{f"{name}_within": list(map(_within, found)) for name, found in every.items()},
    }  # fmt: skip


def _spelled(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those that name somebody as they are compared, and in each case: what compares letters in a database of another
    locale knows no upper and lower case beyond ASCII."""
    plain = [normalize_letters(_APART.sub(" ", word).strip()) for word in words if names_somebody(word)]
    return plain, list(dict.fromkeys(each for word in plain for each in (word, word.lower(), word.upper())))


def path_mentions(path: str, words: Sequence[str]) -> bool:
    """Whether a path has one of these texts in it, as `documents_mentioning` looks for them."""
    told = _in_path(path)
    return any(re.search(name_pattern(_in_path(word.strip())), told) for word in words if names_somebody(word))


def count_named(conn: Conn, email: str) -> int:
    """How many live documents say themselves that this address owns them, is their steward, or may read them or not."""
    row = conn.execute(
        """SELECT count(*) FROM document d WHERE d.deleted_at IS NULL AND EXISTS (
             SELECT FROM jsonb_path_query(d.declared, '$.*.*') v WHERE v = to_jsonb(%(email)s::text)
               OR v @> jsonb_build_array(%(email)s::text))""",
        {"email": email},
    ).fetchone()
    return 0 if row is None else int(row[0])


def count_decided(conn: Conn, email: str) -> int:
    """About how many documents somebody of this address has decided something that stands."""
    row = conn.execute(
        """SELECT count(*) FROM document d
           WHERE EXISTS (SELECT FROM jsonb_each(d.decided) e WHERE e.value ->> 'by' = %s)""",
        (email,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _in_path(text: str) -> str:
    return _APART_IN_PATHS.sub(" ", normalize_letters(text)).casefold()


def _within(text: str) -> str:
    """A pattern of what has the text in it."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"


def _escaped(text: str) -> str:
    """As PostgreSQL writes its bytes (`encode(..., 'escape')`), which knows no upper and lower case beyond ASCII."""
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if 0 < byte < 0x80 else f"\\{byte:03o}" for byte in text.encode()
    )
