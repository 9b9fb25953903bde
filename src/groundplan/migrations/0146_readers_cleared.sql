-- Sets of readers that no document has any more are cleared, in the transaction in which the last one leaves them: every
-- search looks through all that there are. Whoever makes or clears one holds the lock of changes until they commit, so no set
-- goes while somebody takes it; a search sees one moment, in which sets and documents agree, whatever is cleared meanwhile.
CREATE INDEX acl_name_acl ON acl_name (acl);
ALTER TABLE acl SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
ALTER TABLE acl_name SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE OR REPLACE FUNCTION acl_of(allowed text[], denied text[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  known int;
  mark bytea := sha256(convert_to(allowed::text || denied::text, 'UTF8'));
BEGIN
  PERFORM pg_advisory_xact_lock(1802399607);
  SELECT id INTO known FROM acl WHERE digest = mark;
  IF known IS NULL THEN
    INSERT INTO acl (digest, allow, deny) VALUES (mark, allowed, denied) RETURNING id INTO known;
    INSERT INTO acl_name SELECT DISTINCT n, false, known FROM unnest(allowed) n
      UNION ALL SELECT DISTINCT n, true, known FROM unnest(denied) n;
  END IF;
  RETURN known;
END $$;
-- Those of some sets that no document has. Held before: the lock of changes.
CREATE FUNCTION clear_acls(left_by int[]) RETURNS void LANGUAGE sql AS $$
  DELETE FROM acl a WHERE a.id = ANY (left_by) AND NOT EXISTS (SELECT FROM document d WHERE d.acl = a.id)
$$;

-- At the end of each statement instead of once for each reader: of every document that it touched, the set of its readers,
-- the number of the change, and what the followers are told. A reader `source/NAME` is whoever has a grant on the document's
-- own source; on another's it is nobody. Links of a document are among those who may read it; who is refused stays refused.
DROP TRIGGER document_readers_changed ON document_reader;
DROP TRIGGER document_links_changed ON document_link;
DROP FUNCTION document_readers_changed();
CREATE FUNCTION document_readers_touched() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  left_by int[];
BEGIN
  IF NOT EXISTS (SELECT FROM touched) THEN
    RETURN NULL;
  END IF;
  PERFORM pg_advisory_xact_lock(1802399607);
  WITH moved AS (
    UPDATE document d SET acl = n.acl, noted = nextval('chunk_change') FROM (
      SELECT w.id, w.former, acl_of(
          coalesce(array_agg(e.reader ORDER BY e.reader COLLATE "C")
            FILTER (WHERE NOT e.deny AND (e.reader = w.own OR NOT starts_with(e.reader, 'source/'))), '{}'),
          coalesce(array_agg(e.reader ORDER BY e.reader COLLATE "C")
            FILTER (WHERE e.deny AND NOT starts_with(e.reader, 'source/')), '{}')) AS acl
      FROM (SELECT o.id, o.acl AS former, 'source/' || o.source AS own FROM document o
            WHERE o.id IN (SELECT t.document_id FROM touched t)) w
      LEFT JOIN LATERAL (
        SELECT r.reader, r.deny FROM document_reader r WHERE r.document_id = w.id
        UNION SELECT 'link/' || l.link, false FROM document_link l WHERE l.document_id = w.id) e ON true
      GROUP BY w.id, w.former, w.own) n
    WHERE d.id = n.id AND d.acl IS DISTINCT FROM n.acl RETURNING n.former)
  SELECT array_agg(DISTINCT former) INTO left_by FROM moved;
  IF left_by IS NOT NULL THEN
    PERFORM pg_notify('groundplan_chunks', '');
    PERFORM clear_acls(left_by);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER document_reader_new AFTER INSERT ON document_reader REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_reader_gone AFTER DELETE ON document_reader REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_reader_from AFTER UPDATE ON document_reader REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_reader_to AFTER UPDATE ON document_reader REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_link_new AFTER INSERT ON document_link REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_link_gone AFTER DELETE ON document_link REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();

-- Whoever gives a document another set by hand: told as before, unless that was numbered with it.
DROP TRIGGER document_noted ON document;
CREATE CONSTRAINT TRIGGER document_noted AFTER UPDATE OF acl ON document DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.acl IS DISTINCT FROM NEW.acl AND OLD.noted = NEW.noted) EXECUTE FUNCTION document_noted();
CREATE FUNCTION document_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM gone) THEN
    PERFORM pg_advisory_xact_lock(1802399607);
    PERFORM clear_acls(ARRAY(SELECT DISTINCT acl FROM gone WHERE acl IS NOT NULL));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER document_gone AFTER DELETE ON document REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION document_gone();

-- What gathered until now. The owner of the tables sees no document while row security is forced on it.
ALTER TABLE document NO FORCE ROW LEVEL SECURITY;
DELETE FROM acl a WHERE NOT EXISTS (SELECT FROM document d WHERE d.acl = a.id);
ALTER TABLE document FORCE ROW LEVEL SECURITY;
