-- A restricted document is not shared by link. One that became restricted after it had been shared was still read by whoever
-- had opened the link; now its links count for nothing while it is restricted, from the statement that makes it so.
CREATE VIEW link_reader WITH (security_invoker = true) AS
  SELECT t.document_id, 'link/' || t.link AS reader FROM document_link t JOIN document d ON d.id = t.document_id
  WHERE d.sensitivity <> 'restricted';
GRANT SELECT ON link_reader TO %(db)s_control;

-- As 0146 has it, of documents by id.
CREATE FUNCTION settle_readers(ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  left_by int[];
BEGIN
  PERFORM pg_advisory_xact_lock(1802399607);
  WITH moved AS (
    UPDATE document d SET acl = n.acl, noted = nextval('chunk_change') FROM (
      SELECT w.id, w.former, acl_of(
          coalesce(array_agg(e.reader ORDER BY e.reader COLLATE "C")
            FILTER (WHERE NOT e.deny AND (e.reader = w.own OR NOT starts_with(e.reader, 'source/'))), '{}'),
          coalesce(array_agg(e.reader ORDER BY e.reader COLLATE "C")
            FILTER (WHERE e.deny AND NOT starts_with(e.reader, 'source/')), '{}')) AS acl
      FROM (SELECT o.id, o.acl AS former, 'source/' || o.source AS own FROM document o WHERE o.id = ANY (ids)) w
      LEFT JOIN LATERAL (
        SELECT r.reader, r.deny FROM document_reader r WHERE r.document_id = w.id
        UNION SELECT l.reader, false FROM link_reader l WHERE l.document_id = w.id) e ON true
      GROUP BY w.id, w.former, w.own) n
    WHERE d.id = n.id AND d.acl IS DISTINCT FROM n.acl RETURNING n.former)
  SELECT array_agg(DISTINCT former) INTO left_by FROM moved;
  IF left_by IS NOT NULL THEN
    PERFORM pg_notify('groundplan_chunks', '');
    PERFORM clear_acls(left_by);
  END IF;
END $$;
CREATE OR REPLACE FUNCTION document_readers_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) THEN
    PERFORM settle_readers(ARRAY(SELECT DISTINCT document_id FROM touched));
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION document_restricted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM document_link WHERE document_id = NEW.id) THEN
    PERFORM settle_readers(ARRAY[NEW.id]);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER document_restricted AFTER UPDATE OF sensitivity ON document FOR EACH ROW
  WHEN ((OLD.sensitivity <> 'restricted') IS DISTINCT FROM (NEW.sensitivity <> 'restricted'))
  EXECUTE FUNCTION document_restricted();

-- What was shared until now. The owner of the tables changes no document while row security is forced on it.
ALTER TABLE document NO FORCE ROW LEVEL SECURITY;
SELECT settle_readers(ARRAY(SELECT t.document_id FROM document_link t JOIN document d ON d.id = t.document_id
  WHERE d.sensitivity IS NULL OR d.sensitivity = 'restricted'));
ALTER TABLE document FORCE ROW LEVEL SECURITY;
