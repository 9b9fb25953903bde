-- Who may read a document, as one number: equal sets of readers are one `acl`, so that a search asks once which of them a
-- person has, and of each row only for its number. Kept by the database itself from `document_reader`, whoever writes there.
CREATE TABLE acl (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, digest bytea NOT NULL UNIQUE, allow text[] NOT NULL, deny text[] NOT NULL);
CREATE TABLE acl_name (
  name text NOT NULL, deny boolean NOT NULL, acl int NOT NULL REFERENCES acl ON DELETE CASCADE, PRIMARY KEY (name, deny, acl));
-- A link opens what names `link/NAME` as reader to whoever has opened it, until it is withdrawn or its last day (UTC) is over.
CREATE TABLE shared_link (
  name text PRIMARY KEY, digest bytea NOT NULL UNIQUE, made_by uuid REFERENCES person, until date, withdrawn_at timestamptz);
CREATE TABLE link_holder (
  link text NOT NULL REFERENCES shared_link ON DELETE CASCADE, person_id uuid NOT NULL REFERENCES person,
  opened_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (person_id, link));
GRANT SELECT ON acl, acl_name, shared_link, link_holder TO %(db)s_search;
REVOKE SELECT ON shared_link FROM %(db)s_search;
GRANT SELECT (name, until, withdrawn_at) ON shared_link TO %(db)s_search;
GRANT SELECT, INSERT, UPDATE, DELETE ON acl, acl_name, shared_link, link_holder TO %(db)s_control;

ALTER TABLE document ADD COLUMN acl int REFERENCES acl,
  ADD COLUMN noted bigint NOT NULL DEFAULT 0;   -- number of the last change of its readers or its state, from chunk_change
CREATE INDEX document_acl ON document (acl);
CREATE INDEX document_noted ON document (noted);

-- All names a person reads by. `public` is everybody, also nobody in particular (null); whoever has left has none. Names of
-- rules (`public`, `source/…`, `link/…`) are never those of a group, whatever somebody calls one.
CREATE FUNCTION reading_names(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT 'public' WHERE who IS NULL OR EXISTS (SELECT FROM person p WHERE p.id = who AND p.active)
  UNION ALL
  SELECT n.name FROM (
    SELECT r AS name FROM reader_names(who) r
      WHERE r <> 'public' AND NOT starts_with(r, 'source/') AND NOT starts_with(r, 'link/')
    UNION SELECT 'source/' || s FROM granted_sources(who) s
    UNION SELECT 'link/' || h.link FROM link_holder h JOIN shared_link l ON l.name = h.link
      WHERE h.person_id = who AND l.withdrawn_at IS NULL AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date)) n
  WHERE EXISTS (SELECT FROM person p WHERE p.id = who AND p.active)
$$;
CREATE FUNCTION visible_acls(who uuid) RETURNS SETOF int LANGUAGE sql STABLE AS $$
  WITH mine AS MATERIALIZED (SELECT reading_names(who) AS name)
  SELECT a.acl FROM acl_name a JOIN mine ON mine.name = a.name WHERE NOT a.deny
  EXCEPT
  SELECT a.acl FROM acl_name a JOIN mine ON mine.name = a.name WHERE a.deny
$$;

CREATE FUNCTION acl_of(allowed text[], denied text[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  known int;
  mark bytea := sha256(convert_to(allowed::text || denied::text, 'UTF8'));
BEGIN
  SELECT id INTO known FROM acl WHERE digest = mark;
  IF known IS NULL THEN
    INSERT INTO acl (digest, allow, deny) VALUES (mark, allowed, denied)
      ON CONFLICT (digest) DO UPDATE SET allow = excluded.allow RETURNING id INTO known;
    INSERT INTO acl_name SELECT n, false, known FROM unnest(allowed) n UNION ALL SELECT n, true, known FROM unnest(denied) n
      ON CONFLICT DO NOTHING;
  END IF;
  RETURN known;
END $$;
-- At the end of a transaction, when all readers of the document are written. A reader `source/NAME` is whoever has a grant
-- on the document's own source; on another's it is nobody.
CREATE FUNCTION document_readers_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  which uuid := CASE TG_OP WHEN 'DELETE' THEN OLD.document_id ELSE NEW.document_id END;
  own text;
  class int;
BEGIN
  SELECT 'source/' || source INTO own FROM document WHERE id = which;
  IF own IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT acl_of(
      coalesce(array_agg(reader ORDER BY reader COLLATE "C") FILTER (WHERE NOT deny AND (reader = own OR NOT starts_with(reader, 'source/'))), '{}'),
      coalesce(array_agg(reader ORDER BY reader COLLATE "C") FILTER (WHERE deny AND NOT starts_with(reader, 'source/')), '{}'))
    INTO class FROM document_reader WHERE document_id = which;
  UPDATE document SET acl = class WHERE id = which AND acl IS DISTINCT FROM class;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER document_readers_changed AFTER INSERT OR UPDATE OR DELETE ON document_reader
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION document_readers_changed();
-- What the search service keeps of a document besides its chunks is told to it in the order of commits.
CREATE FUNCTION document_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1802399607);
  UPDATE document SET noted = nextval('chunk_change') WHERE id = NEW.id;
  PERFORM pg_notify('groundplan_chunks', '');
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER document_noted AFTER UPDATE OF acl ON document DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.acl IS DISTINCT FROM NEW.acl) EXECUTE FUNCTION document_noted();

DROP POLICY document_reader ON document;
CREATE POLICY document_reader ON document FOR SELECT TO %(db)s_search USING (
  acl IN (SELECT visible_acls(nullif(current_setting('groundplan.person', true), '')::uuid)));

-- Chunks and vectors of one way of cutting and one model are an edition. One serves; another may be made beside it, and the
-- last one is kept to go back to. Search sees what serves, and nothing else, in the database itself.
CREATE TABLE search_edition (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, model text NOT NULL, chunking text NOT NULL,
  state text NOT NULL CHECK (state IN ('building', 'ready', 'serving', 'kept', 'dropped')), detail jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(), served_at timestamptz);
CREATE UNIQUE INDEX search_edition_serving ON search_edition (state) WHERE state = 'serving';
INSERT INTO search_edition (model, chunking, state, served_at) VALUES ('all-minilm-l6-v2', 'sections-1', 'serving', now());
GRANT SELECT ON search_edition TO %(db)s_search;
GRANT SELECT, INSERT, UPDATE ON search_edition TO %(db)s_control;
CREATE FUNCTION serving_edition() RETURNS int LANGUAGE sql STABLE AS $$
  SELECT id FROM search_edition WHERE state = 'serving'
$$;
ALTER TABLE chunk ADD COLUMN edition int NOT NULL DEFAULT 1 REFERENCES search_edition,
  DROP CONSTRAINT chunk_document_id_number_key, ADD UNIQUE (document_id, edition, number);
DROP POLICY chunk_reader ON chunk;
CREATE POLICY chunk_reader ON chunk FOR SELECT TO %(db)s_search USING (
  edition = (SELECT serving_edition()) AND EXISTS (SELECT 1 FROM document d WHERE d.id = chunk.document_id));

-- Documents that are there already: the owner of the tables sees no row of theirs while row security is forced on it.
ALTER TABLE document NO FORCE ROW LEVEL SECURITY;
UPDATE document d SET acl = (SELECT acl_of(
    coalesce(array_agg(r.reader ORDER BY r.reader COLLATE "C") FILTER (WHERE NOT r.deny
      AND (r.reader = 'source/' || d.source OR NOT starts_with(r.reader, 'source/'))), '{}'),
    coalesce(array_agg(r.reader ORDER BY r.reader COLLATE "C") FILTER (WHERE r.deny AND NOT starts_with(r.reader, 'source/')), '{}'))
  FROM document_reader r WHERE r.document_id = d.id);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE document FORCE ROW LEVEL SECURITY;
