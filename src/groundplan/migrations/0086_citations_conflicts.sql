-- What the look at the citations of an answer found: which characters of the answer, which of which version of a document,
-- and whether they say it. No word of either is in it.
CREATE TABLE call_citation (
  call_id uuid NOT NULL, number int NOT NULL, passage int NOT NULL, document text, version int NOT NULL DEFAULT 0,
  start_char int NOT NULL, end_char int NOT NULL, answer_start int NOT NULL, answer_end int NOT NULL,
  supported boolean, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (call_id, number));
CREATE INDEX call_citation_at ON call_citation (at);
GRANT INSERT ON call_citation TO %(db)s_gateway;
GRANT SELECT, DELETE ON call_citation TO %(db)s_control;

-- Two documents that say different things about the same, each in the version in which it does. Who may not read both is told
-- of neither: row security of the documents holds for what is said of them.
CREATE TABLE document_conflict (
  one uuid NOT NULL REFERENCES document ON DELETE CASCADE, one_version int NOT NULL, one_says text NOT NULL,
  other uuid NOT NULL REFERENCES document ON DELETE CASCADE, other_version int NOT NULL, other_says text NOT NULL,
  number int NOT NULL, PRIMARY KEY (one, other, number));
CREATE INDEX document_conflict_other ON document_conflict (other);
ALTER TABLE document_conflict ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_conflict FORCE ROW LEVEL SECURITY;
CREATE POLICY document_conflict_control ON document_conflict TO %(db)s_control USING (true) WITH CHECK (true);
CREATE POLICY document_conflict_reader ON document_conflict FOR SELECT TO %(db)s_search USING (
  (SELECT true FROM document d WHERE d.id = one AND d.version = one_version)
  AND (SELECT true FROM document d WHERE d.id = other AND d.version = other_version));
GRANT SELECT ON document_conflict TO %(db)s_search;
GRANT SELECT, INSERT, UPDATE, DELETE ON document_conflict TO %(db)s_control;
-- What a deleted document said is not kept in what was said about it.
CREATE FUNCTION document_conflicts_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM document_conflict WHERE one = NEW.id OR other = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER document_conflicts_end AFTER UPDATE OF deleted_at ON document
  FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION document_conflicts_end();
DO $$ BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON document_conflict TO %(db)s_control';
  END IF;
END $$;
