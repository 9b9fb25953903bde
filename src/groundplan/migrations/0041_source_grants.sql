-- Who reads a source by a grant, besides its readers: as the newest blueprint says, written with it. A grant ends by
-- itself after its last day (UTC).
CREATE TABLE source_grant (
  source text NOT NULL, reader text NOT NULL, until date, PRIMARY KEY (source, reader));
GRANT SELECT ON source_grant TO %(db)s_search;
GRANT SELECT, INSERT, UPDATE, DELETE ON source_grant TO %(db)s_control;

-- Sources on which somebody has a grant now. A document that takes the readers of its source names `source/NAME` among
-- its own: that is whoever has a grant on the source.
CREATE FUNCTION granted_sources(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT g.source FROM source_grant g
    WHERE (g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date) AND g.reader IN (SELECT reader_names(who))
$$;
DROP POLICY document_reader ON document;
CREATE POLICY document_reader ON document FOR SELECT TO %(db)s_search USING (
  deleted_at IS NULL AND EXISTS (
    SELECT 1 FROM person p WHERE p.id = nullif(current_setting('groundplan.person', true), '')::uuid AND p.active)
  AND EXISTS (SELECT 1 FROM document_reader r WHERE r.document_id = document.id AND NOT r.deny
    AND (r.reader IN (SELECT reader_names(nullif(current_setting('groundplan.person', true), '')::uuid))
      OR (r.reader = 'source/' || document.source AND document.source IN (
        SELECT granted_sources(nullif(current_setting('groundplan.person', true), '')::uuid)))))
  AND NOT EXISTS (SELECT 1 FROM document_reader r WHERE r.document_id = document.id AND r.deny
    AND r.reader IN (SELECT reader_names(nullif(current_setting('groundplan.person', true), '')::uuid))));
