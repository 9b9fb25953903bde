"""The SQL of quality, as role control: documents to assess, their texts, scores, and the findings of a source."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from groundplan.knowledge.governance.governed_store import STANDING
from groundplan.knowledge.index.recut import join_passages
from groundplan.knowledge.parsing.model import Piece
from groundplan.knowledge.quality.model import AssessedDocument, SketchedDocument
from groundplan.knowledge.store import CHANGE_LOCK, CHANNEL
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

Conn = Connection[Any]


def assessed_documents(conn: Conn, source: str) -> list[AssessedDocument]:
    """The live documents of a source, in the order of paths."""
    with conn.cursor(row_factory=class_row(AssessedDocument)) as cursor:
        return cursor.execute(
            f"""SELECT d.id, d.source, d.path, d.title, d.state, {STANDING} AS standing,
                 coalesce(d.sensitivity, 'restricted') AS sensitivity, d.owner, d.steward, d.modified_at, d.review_by,
                 d.review_days, d.valid_until, d.superseded_by,
                 d.content, d.version, d.notes, d.personal, d.checked, d.declared, d.decided, d.media,
                 ARRAY(SELECT r.reader FROM document_reader r WHERE r.document_id = d.id AND NOT r.deny) AS readers,
                 s.owner AS source_owner, d.acl
               FROM document d JOIN source s ON s.name = d.source
               WHERE d.source = %s AND d.deleted_at IS NULL ORDER BY d.path""",
            (source,),
        ).fetchall()


def known_readers(conn: Conn) -> set[str]:
    """Every name of a reader: groups, active people, `everyone` and `public`."""
    rows = conn.execute("SELECT name FROM people_group UNION SELECT email FROM person WHERE active")
    return {name for (name,) in rows} | {"everyone", "public"}


def sketches(conn: Conn) -> list[SketchedDocument]:
    """All live documents except those that were replaced or taken out of use, in the order of source and path."""
    rows = conn.execute(
        f"""SELECT d.id, d.source, d.path, d.content, coalesce(d.sketch, ''), d.acl, {STANDING} = 'approved'
            FROM document d
            WHERE d.deleted_at IS NULL AND d.superseded_by IS NULL AND d.state IN ('approved', 'draft')
            ORDER BY d.source, d.path"""
    ).fetchall()
    return [
        SketchedDocument(id, source, path, content, bytes(sketch), *more)
        for id, source, path, content, sketch, *more in rows
    ]


def text_of(conn: Conn, document: UUID) -> str:
    """The text of a document in one piece, since a passage may end in the middle of an account number."""
    rows = conn.execute(
        """SELECT number, text, start_char, end_char, start_line, end_line FROM chunk
           WHERE document_id = %s AND edition = serving_edition() ORDER BY number""",
        (document,),
    ).fetchall()
    pieces = [Piece(number, text, start, end, first, last, []) for number, text, start, end, first, last in rows]
    return join_passages(pieces).strip()


def passages_of(conn: Conn, document: UUID) -> str:
    """The passages of a document, separated by empty lines: so every sentence is within one passage, which can be
    quoted."""
    return texts_of(conn, [document])[document]


def texts_of(conn: Conn, documents: Sequence[UUID]) -> dict[UUID, str]:
    """As `passages_of`, for several documents; the text is empty for one without passages."""
    rows = conn.execute(
        """SELECT document_id, string_agg(text, E'\n\n' ORDER BY number) FROM chunk
           WHERE document_id = ANY(%s) AND edition = serving_edition() GROUP BY document_id""",
        (list(documents),),
    ).fetchall()
    return dict.fromkeys(documents, "") | dict(rows)


def unscanned_documents(conn: Conn, terms: str, limit: int) -> list[tuple[UUID, int, str]]:
    """(document, version, media) of documents whose text was not scanned yet, or with another glossary."""
    rows = conn.execute(
        """SELECT id, version, coalesce(media, '') FROM document WHERE deleted_at IS NULL
             AND (scanned_at IS NULL OR checked ->> 'terms' IS DISTINCT FROM %s) ORDER BY id LIMIT %s""",
        (terms, limit),
    )
    return list(rows)


def put_scans(conn: Conn, scans: Mapping[tuple[UUID, int], tuple[Mapping[str, int], Mapping[str, Any]]]) -> None:
    """Store (personal data, other results) of scans, for these versions only: newer ones are not scanned yet. If some
    workload accepts scanned documents only, the first scan of a document counts as a change of it."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    for (document, version), (personal, checked) in scans.items():
        conn.execute(
            """UPDATE document SET scanned_at = now(), personal = %s, checked = %s,
                 noted = CASE WHEN scanned_at IS NULL AND EXISTS (SELECT FROM workload_need WHERE scanned)
                   THEN nextval('chunk_change') ELSE noted END
               WHERE id = %s AND version = %s""",
            (Jsonb(dict(personal)), Jsonb(dict(checked)), document, version),
        )
    _notify(conn)


def put_scores(conn: Conn, scores: Mapping[tuple[UUID, int], float]) -> None:
    """Store the scores of these versions of documents; newer ones are not scored yet. Only rows whose score changed are
    written; a score that reaches the quality floor of a workload counts as a change of its document."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    conn.execute(
        """UPDATE document d SET quality = s.score,
             noted = CASE WHEN EXISTS (SELECT FROM workload_need n
                 WHERE n.quality_floor > coalesce(d.quality, 0) AND n.quality_floor <= s.score)
               THEN nextval('chunk_change') ELSE d.noted END
           FROM unnest(%s::uuid[], %s::int[], %s::real[]) AS s(id, version, score)
           WHERE d.id = s.id AND d.version = s.version AND d.quality IS DISTINCT FROM s.score""",
        ([id for id, _ in scores], [version for _, version in scores], list(scores.values())),
    )
    _notify(conn)


def _notify(conn: Conn) -> None:
    """Notify followers of numbered changes."""
    conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


def put_source_score(
    conn: Conn, source: str, day: date, score: float, documents: int, parts: Mapping[str, int]
) -> None:
    """Store the score of the day; a later assessment on the same day replaces it."""
    conn.execute(
        """INSERT INTO source_quality (source, day, score, documents, parts) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (source, day) DO UPDATE SET score = excluded.score, documents = excluded.documents,
             parts = excluded.parts""",
        (source, day, score, documents, Jsonb(dict(parts))),
    )
    conn.execute("UPDATE source SET quality = %s WHERE name = %s", (score, source))


def put_conflicts(conn: Conn, source: str, found: Sequence[tuple[UUID, UUID, str, str]]) -> None:
    """Replace the conflicts of a source by these: (document of this source, the other one, the sentence of each), for
    the present versions of both. A new conflict counts as a change of both documents."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))  # before any row, like all that number changes
    gone = conn.execute(
        f"DELETE FROM document_conflict c USING document d WHERE d.id = c.one AND d.source = %s RETURNING {_CONFLICT}",
        (source,),
    ).fetchall()
    if not found:
        return
    ones, others, says, theirs = (list(column) for column in zip(*found, strict=True))
    made = conn.execute(
        f"""INSERT INTO document_conflict AS c (one, one_version, one_says, other, other_version, other_says, number)
            SELECT a.id, a.version, f.says, b.id, b.version, f.theirs, f.number
            FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[]) WITH ORDINALITY
              AS f(one, other, says, theirs, number)
            JOIN document a ON a.id = f.one JOIN document b ON b.id = f.other
            WHERE a.deleted_at IS NULL AND b.deleted_at IS NULL RETURNING {_CONFLICT}""",
        (ones, others, says, theirs),
    ).fetchall()
    new = {id for one in set(made) - set(gone) for id in (one[0], one[3])}
    if new:
        conn.execute("UPDATE document SET noted = nextval('chunk_change') WHERE id = ANY(%s)", (list(new),))
        _notify(conn)


_CONFLICT: Final = "c.one, c.one_version, c.one_says, c.other, c.other_version, c.other_says"


def assessed_sources(conn: Conn, day: date) -> set[str]:
    """The sources that were assessed on this day."""
    return {source for (source,) in conn.execute("SELECT source FROM source_quality WHERE day = %s", (day,))}


def score_trend(conn: Conn, source: str, days: int = 90) -> list[tuple[date, float, int]]:
    """(day, score, documents), the oldest first."""
    rows = conn.execute(
        "SELECT day, score, documents FROM source_quality WHERE source = %s ORDER BY day DESC LIMIT %s", (source, days)
    ).fetchall()
    return [(day, round(float(score), 3), documents) for day, score, documents in reversed(rows)]


def put_findings(
    conn: Conn,
    source: str,
    found: Iterable[Finding],
    *,
    kinds: Collection[str],
    subjects: Collection[str] | None = None,
) -> finding_store.FindingChanges:
    """Record `found` as all present findings of these kinds about a source and its documents; others are closed.

    `subjects`: only these subjects were examined, so only their findings are closed; None: the source and all its
    documents, but not the names among the source's own readers (`source/NAME/reader:WHO`)."""
    still, opened = finding_store.report_each(conn, found)
    closed = conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = 'no longer holds'
           WHERE closed_at IS NULL AND kind = ANY(%(kinds)s) AND NOT id = ANY(%(still)s)
             AND (subject = %(source)s OR starts_with(subject, %(source)s || '/'))
             AND CASE WHEN %(all)s THEN NOT starts_with(subject, %(source)s || '/reader:')
               ELSE subject = ANY(%(settled)s) END""",
        {
            "kinds": list(kinds), "still": still, "source": f"source/{source}", "all": subjects is None,
            "settled": list(subjects or ()),
        },
    ).rowcount  # fmt: skip
    return finding_store.FindingChanges(opened, len(still) - opened, closed)


def open_kinds(conn: Conn, source: str) -> Sequence[tuple[str, str]]:
    """(subject, kind) of the open findings about a source and its documents."""
    return conn.execute(
        """SELECT subject, kind FROM finding WHERE closed_at IS NULL AND kind LIKE 'knowledge.%%'
             AND (subject = %s OR starts_with(subject, %s))""",
        (f"source/{source}", f"source/{source}/"),
    ).fetchall()
