"""Finds documents that mention a person: the search patterns and their SQL, as role control.

A name matches at the start of a word, in any case, however its letters are typed (`core/letters.py`), also across the
ends of lines, passages and table cells. Other spellings and indirect references are not found.
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
_SEPARATORS: Final = re.compile(r"[\s|*_`]+")
"""The characters between two words of a text, including Markdown marks."""
_PATH_SEPARATORS: Final = re.compile(r"[\s|*_`./-]+")
_MIN_CHARS, _MIN_CHARS_UNSPACED = 4, 2
"""Fewest characters of a text that names somebody: shorter ones would match everywhere. Han names have two."""


def names_somebody(word: str) -> bool:
    """Whether a text is long enough to be a name."""
    word = _SEPARATORS.sub(" ", word).strip()
    return len(word) >= (_MIN_CHARS_UNSPACED if RUN.search(word) else _MIN_CHARS)


def documents_mentioning(conn: Conn, words: Sequence[str]) -> list[tuple[UUID, str, str, bool]]:
    """(document, source, path, on hold) of documents that contain one of these texts: live and unreadable documents, by
    their text, title, path, declarations (except governed values) and pushed bytes; and versions kept by legal holds.
    """
    plain, cased = _spellings(words)
    unspaced = [word.replace(" ", "") for word in plain if RUN.search(word)]
    # a passage has at least the beginning of a match; joining the passages of a document costs more
    beginnings = [word.split(" ")[0] for word in cased] + [word[0] for word in unspaced]
    rows = conn.execute(
        f"""SELECT d.id, d.source, d.path, on_hold(d) FROM document d
           WHERE (d.deleted_at IS NULL OR d.unreadable) AND (
             {_contains_sql("letters(concat_ws(' . ', d.title, (d.declared -> 'front') - %(own)s::text[],"
                   " (d.declared -> 'beside') - %(own)s::text[]))", "words")}
             OR {_contains_sql("letters(d.path)", "paths")} OR (
             EXISTS (SELECT 1 FROM chunk c WHERE c.document_id = d.id AND letters(c.text) ILIKE ANY(%(first)s))
             AND (SELECT {_contains_sql("t.said", "words")}
                 OR (cardinality(%(unspaced)s::text[]) > 0
                   AND regexp_replace(t.said, %(apart)s, '', 'g') ILIKE ANY(%(unspaced)s))
               FROM (SELECT letters(string_agg(c.text, ' ' ORDER BY c.number)) AS said FROM chunk c
                 WHERE c.document_id = d.id AND c.edition = serving_edition()) t))
             OR EXISTS (SELECT FROM pushed p WHERE p.source = d.source AND p.path = d.path AND NOT p.gone
               AND {_contains_sql("encode(p.data, 'escape')", "bytes")}))
           UNION
           SELECT coalesce(h.document_id, h.id), h.source, h.path, true
           FROM held_version h LEFT JOIN document d ON d.id = h.document_id LEFT JOIN source s ON s.name = h.source
           WHERE ({_contains_sql("letters(concat_ws(' . ', h.text, h.title, h.declared))", "words")}
               OR {_contains_sql("letters(h.path)", "paths")} OR {_contains_sql("encode(h.data, 'escape')", "bytes")})
             AND (coalesce(s.legal_hold, false) OR (d.id IS NOT NULL AND on_hold(d)))
           ORDER BY 2, 3""",
        {
            "own": list(DOCUMENT_KEYS), "first": list(map(_like_pattern, beginnings)),
            "unspaced": list(map(_like_pattern, unspaced)),
            **_search_parameters(cased),
        },
    )  # fmt: skip
    return rows.fetchall()


def pushed_mentioning(conn: Conn, words: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(source, path, on hold) of pushed documents that are not live, since they could not be read or are not ingested
    yet, and that contain one of these texts in their bytes, path or governed values."""
    _, cased = _spellings(words)
    return conn.execute(
        f"""SELECT p.source, p.path, coalesce(s.legal_hold, false) OR (d.id IS NOT NULL AND on_hold(d))
           FROM pushed p LEFT JOIN document d ON d.source = p.source AND d.path = p.path
             LEFT JOIN source s ON s.name = p.source
           WHERE NOT p.gone AND (d.id IS NULL OR d.deleted_at IS NOT NULL) AND (
             {_contains_sql("encode(p.data, 'escape')", "bytes")} OR {_contains_sql("letters(p.told::text)", "words")}
             OR {_contains_sql("letters(p.path)", "paths")})
           ORDER BY 1, 2""",
        _search_parameters(cased),
    ).fetchall()


def _contains_sql(text: LiteralString, sought: LiteralString) -> LiteralString:
    """SQL: whether an expression contains one of the texts in the parameter `sought` (`_search_parameters`). The LIKE
    pattern rejects most texts quickly."""
    apart = "apart_in_paths" if sought == "paths" else "apart"
    plain = f"regexp_replace({text}, %({apart})s, ' ', 'g')"
    return f"({plain} ILIKE ANY(%({sought}_within)s) AND {plain} ~* ANY(%({sought})s))"


def _search_parameters(cased: Sequence[str]) -> dict[str, Any]:
    every = {
        "words": cased, "paths": [_PATH_SEPARATORS.sub(" ", word) for word in cased],
        "bytes": [_bytea_escaped(word) for word in cased],
    }  # fmt: skip
    return {
        "apart": _SEPARATORS.pattern, "apart_in_paths": _PATH_SEPARATORS.pattern,
        **{name: list(map(name_pattern, found)) for name, found in every.items()},
        **{f"{name}_within": list(map(_like_pattern, found)) for name, found in every.items()},
    }  # fmt: skip


def _spellings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(normalised texts that name somebody, the same also in lower and upper case): in a database of another locale,
    comparisons ignore case for ASCII only."""
    plain = [normalize_letters(_SEPARATORS.sub(" ", word).strip()) for word in words if names_somebody(word)]
    return plain, list(dict.fromkeys(each for word in plain for each in (word, word.lower(), word.upper())))


def path_mentions(path: str, words: Sequence[str]) -> bool:
    """Whether a path contains one of these texts, by the rules of `documents_mentioning`."""
    normalised = _normalise_path(path)
    return any(
        re.search(name_pattern(_normalise_path(word.strip())), normalised) for word in words if names_somebody(word)
    )


def count_named(conn: Conn, email: str) -> int:
    """The number of live documents whose own declarations name this address, as owner, steward, or reader."""
    row = conn.execute(
        """SELECT count(*) FROM document d WHERE d.deleted_at IS NULL AND EXISTS (
             SELECT FROM jsonb_path_query(d.declared, '$.*.*') v WHERE v = to_jsonb(%(email)s::text)
               OR v @> jsonb_build_array(%(email)s::text))""",
        {"email": email},
    ).fetchone()
    return 0 if row is None else int(row[0])


def count_decided(conn: Conn, email: str) -> int:
    """The number of documents with a decision of this address that still applies."""
    row = conn.execute(
        """SELECT count(*) FROM document d
           WHERE EXISTS (SELECT FROM jsonb_each(d.decided) e WHERE e.value ->> 'by' = %s)""",
        (email,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _normalise_path(text: str) -> str:
    return _PATH_SEPARATORS.sub(" ", normalize_letters(text)).casefold()


def _like_pattern(text: str) -> str:
    """The LIKE pattern for values that contain the text."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"


def _bytea_escaped(text: str) -> str:
    """The text in PostgreSQL's escaped form of bytes (`encode(..., 'escape')`), whose comparison ignores case for ASCII
    only."""
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if 0 < byte < 0x80 else f"\\{byte:03o}" for byte in text.encode()
    )
