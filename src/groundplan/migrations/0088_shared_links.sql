-- Documents that are shared by a link: whoever has opened it reads the document, until it is withdrawn or its last day is
-- over. Kept apart from the readers that the source says, which every ingestion writes anew.
ALTER TABLE shared_link ADD COLUMN made_at timestamptz NOT NULL DEFAULT now(), ADD COLUMN reason text NOT NULL DEFAULT '';
CREATE TABLE document_link (
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE, link text NOT NULL REFERENCES shared_link ON DELETE CASCADE,
  PRIMARY KEY (document_id, link));
GRANT SELECT, INSERT, UPDATE, DELETE ON document_link TO %(db)s_control;
-- As before, with the links of the document among those who may read it; who is refused stays refused.
CREATE OR REPLACE FUNCTION document_readers_changed() RETURNS trigger LANGUAGE plpgsql AS $$
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
    INTO class FROM (
      SELECT reader, deny FROM document_reader WHERE document_id = which
      UNION SELECT 'link/' || link, false FROM document_link WHERE document_id = which) AS every;
  UPDATE document SET acl = class WHERE id = which AND acl IS DISTINCT FROM class;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER document_links_changed AFTER INSERT OR UPDATE OR DELETE ON document_link
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION document_readers_changed();
