-- The search index: editions of passages with their vectors, what followers are told of changes, terms of the glossary,
-- and what people do with results. Search sees the passages of the serving edition of documents that it may see (014).
-- Full-text projections are files of the search service.

-- Passages and vectors of one way of cutting and one model are an edition. One serves; another is made beside it,
-- compared with it and switched to, and the last one is kept to go back to. `ready`: complete, and held by the search
-- services beside the one that serves; `switching`: serves as soon as every service holds it; `kept`: served before,
-- and is kept up to date until `until`. Search sees in the database itself only what serves.
CREATE TABLE search_edition (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model text NOT NULL,
  chunking text NOT NULL,
  state text NOT NULL CHECK (state IN ('building', 'ready', 'switching', 'serving', 'kept', 'dropped')),
  detail jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  served_at timestamptz,
  settings jsonb NOT NULL DEFAULT '{}',  -- the declared settings that differ from the defaults
  dimension int NOT NULL DEFAULT 384 CHECK (dimension BETWEEN 1 AND 4096),
  compared jsonb,
  until timestamptz,
  declined boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX search_edition_serving ON search_edition (state) WHERE state = 'serving';
CREATE UNIQUE INDEX search_edition_beside ON search_edition ((true)) WHERE state IN ('building', 'ready');
CREATE UNIQUE INDEX search_edition_switching ON search_edition ((true)) WHERE state = 'switching';

-- The first edition: passages by sections, with the model that comes with the program.
INSERT INTO search_edition (model, chunking, state, served_at) VALUES ('all-minilm-l6-v2', 'sections-1', 'serving', now());

CREATE FUNCTION serving_edition() RETURNS int LANGUAGE sql STABLE AS $$
  SELECT id FROM search_edition WHERE state = 'serving'
$$;

-- A search stays with the edition that it began with (`groundplan.edition`), so a switch in its midst takes nothing
-- from it. Only a complete edition can be asked for; otherwise the one that serves.
CREATE FUNCTION edition_now() RETURNS int LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    (SELECT e.id FROM search_edition e WHERE e.id::text = current_setting('groundplan.edition', true)
       AND e.state IN ('ready', 'switching', 'serving', 'kept')),
    serving_edition())
$$;

-- Vectors of an edition have one length, and are never compared with those of another.
CREATE TABLE chunk (
  id uuid PRIMARY KEY,
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE,
  number int NOT NULL,
  text text NOT NULL,
  start_char int NOT NULL,
  end_char int NOT NULL,
  start_line int NOT NULL,
  end_line int NOT NULL,
  embedding halfvec,
  changed bigint NOT NULL,
  headings text[] NOT NULL DEFAULT '{}',
  edition int NOT NULL DEFAULT 1 REFERENCES search_edition,
  -- the head row of the table that a passage begins in: without it nobody knows what the rows say. It is context beside
  -- the text, whose characters stay those of the document
  head text NOT NULL DEFAULT '',
  UNIQUE (document_id, edition, number)
);
ALTER TABLE chunk ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- No samples of contents in the planner's statistics.
ALTER TABLE chunk ALTER text SET STATISTICS 0, ALTER embedding SET STATISTICS 0, ALTER headings SET STATISTICS 0;
CREATE INDEX chunk_changed ON chunk (changed);

-- A follower of one edition does not read the changes of another.
CREATE INDEX chunk_edition_changed ON chunk (edition, changed);
CREATE INDEX chunk_unembedded ON chunk (document_id) WHERE embedding IS NULL AND text <> '';
CREATE POLICY chunk_control ON chunk TO %(db)s_control USING (true) WITH CHECK (true);

-- One look-up for each passage that is read, never a list of all documents.
CREATE POLICY chunk_reader ON chunk FOR SELECT TO %(db)s_search USING (
  edition = (SELECT edition_now()) AND (SELECT true FROM document d WHERE d.id = chunk.document_id));
CREATE POLICY chunk_changed ON chunk FOR SELECT TO CURRENT_USER
  USING (current_setting('groundplan.looks_for_changes', true) = 'on');

-- Of the first `most` documents with a change after a number: id -> the number of its set of readers, or -1 where it
-- does not say any more what it said (deleted, or all passages in that edition are newer; those of a first version have
-- no others). NULL: there is none. What a search has in memory may be some milliseconds old: the statement that tells
-- it who somebody is also tells what changed since, so that no document is weighed by what was. It returns ids and
-- numbers only, no text, path or name, and the same whoever asks, so that it takes the same time.
CREATE FUNCTION changed_after(after bigint, in_edition int, most int) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  found jsonb;
BEGIN
  PERFORM set_config('groundplan.looks_for_changes', 'on', true);
  SELECT jsonb_object_agg(d.id, CASE
      WHEN d.deleted_at IS NULL AND (d.version = 1 OR EXISTS (SELECT FROM chunk c
        WHERE c.document_id = d.id AND c.edition = in_edition AND c.changed <= after))
      THEN coalesce(d.acl, -1) ELSE -1 END) INTO found
    FROM (SELECT id, acl, version, deleted_at FROM document WHERE noted > after ORDER BY noted LIMIT most) d;
  PERFORM set_config('groundplan.looks_for_changes', 'off', true);
  RETURN found;
END $$;

-- Two documents that say different things about the same matter, each in the version in which it does. Whoever may not
-- read both is told of neither.
CREATE TABLE document_conflict (
  one uuid NOT NULL REFERENCES document ON DELETE CASCADE,
  one_version int NOT NULL,
  one_says text NOT NULL,
  other uuid NOT NULL REFERENCES document ON DELETE CASCADE,
  other_version int NOT NULL,
  other_says text NOT NULL,
  number int NOT NULL,
  PRIMARY KEY (one, other, number)
);
ALTER TABLE document_conflict ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- No samples of contents in the planner's statistics.
ALTER TABLE document_conflict ALTER one_says SET STATISTICS 0, ALTER other_says SET STATISTICS 0;
CREATE INDEX document_conflict_other ON document_conflict (other);

-- What a deleted document said is not kept in what was said about it.
CREATE FUNCTION document_conflicts_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM document_conflict WHERE one = NEW.id OR other = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER document_conflicts_end AFTER UPDATE OF deleted_at ON document
  FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION document_conflicts_end();
CREATE POLICY document_conflict_control ON document_conflict TO %(db)s_control USING (true) WITH CHECK (true);
CREATE POLICY document_conflict_reader ON document_conflict FOR SELECT TO %(db)s_search USING (
  (SELECT true FROM document d WHERE d.id = one AND d.version = one_version)
  AND (SELECT true FROM document d WHERE d.id = other AND d.version = other_version));

-- What else the company says for its terms, as the newest blueprint has it: searched along with the question. Says
-- nothing of documents.
CREATE TABLE glossary_term (name text PRIMARY KEY, said text[] NOT NULL);

-- What a check of an answer's citations found: which characters of the answer, which of which version of a document,
-- and whether the latter support it. No word of either is in it.
CREATE TABLE call_citation (
  call_id uuid NOT NULL,
  number int NOT NULL,
  passage int NOT NULL,
  document text,
  version int NOT NULL DEFAULT 0,
  start_char int NOT NULL,
  end_char int NOT NULL,
  answer_start int NOT NULL,
  answer_end int NOT NULL,
  supported boolean,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (call_id, number)
);
CREATE INDEX call_citation_at ON call_citation (at);

-- What people do with results of search: click, thumbs, and questions to which nothing was found. The question is
-- personal: it is here, sealed, with the person, only where the workload keeps content, and for as long.
CREATE TABLE knowledge_signal (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  workload text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('click', 'up', 'down', 'unanswered')),
  document_id uuid REFERENCES document ON DELETE SET NULL,
  rank int,
  call_id uuid,
  person_id uuid,
  asked text,
  expires_at timestamptz,
  CHECK (asked IS NULL OR (person_id IS NOT NULL AND expires_at IS NOT NULL))
);
CREATE INDEX knowledge_signal_at ON knowledge_signal (at);
CREATE INDEX knowledge_signal_document ON knowledge_signal (document_id) WHERE document_id IS NOT NULL;
CREATE INDEX knowledge_signal_expires ON knowledge_signal (expires_at) WHERE expires_at IS NOT NULL;

-- Whoever erases documents may also have their tables rewritten, which is what takes the last bytes off the disk.
-- PostgreSQL before 17 has no such right: there the owner of the database does it.
DO $$ BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON chunk, document, document_version, document_reader, document_conflict, pushed, held_version,
      tombstone, finding TO %(db)s_control';
  END IF;
END $$;

-- Rights. The gateway records what people do with results, and that a call found nothing; it reads none of it back.
GRANT SELECT, INSERT, UPDATE, DELETE ON chunk, document_conflict, glossary_term, knowledge_signal TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON search_edition TO %(db)s_control;
GRANT SELECT, DELETE ON call_citation TO %(db)s_control;
GRANT INSERT ON call_citation, knowledge_signal TO %(db)s_gateway;
GRANT SELECT ON search_edition, chunk, document_conflict, glossary_term TO %(db)s_search;
GRANT SELECT ON SEQUENCE search_edition_id_seq TO %(db)s_control;
REVOKE ALL ON FUNCTION changed_after FROM PUBLIC;
GRANT EXECUTE ON FUNCTION changed_after TO %(db)s_search;
