-- What a person may read is worked out once in a transaction: `groundplan.acls` keeps it as PERSON:{numbers}, and counts only
-- for the person that it begins with. Without it, it is worked out by each statement.
CREATE FUNCTION acls_now() RETURNS int[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  who text := coalesce(current_setting('groundplan.person', true), '');
  kept text := coalesce(current_setting('groundplan.acls', true), '');
BEGIN
  IF starts_with(kept, who || ':') THEN
    RETURN substr(kept, length(who) + 2)::int[];
  END IF;
  RETURN ARRAY(SELECT visible_acls(nullif(who, '')::uuid));
END $$;
ALTER POLICY document_reader ON document USING (acl IN (SELECT unnest(acls_now())));
-- one look-up for each chunk that is read, never a list of all documents
ALTER POLICY chunk_reader ON chunk USING (
  edition = (SELECT serving_edition()) AND (SELECT true FROM document d WHERE d.id = chunk.document_id));
GRANT SELECT ON SEQUENCE chunk_change TO %(db)s_search;

-- As before, with the names of groups worked out once.
CREATE OR REPLACE FUNCTION reading_names(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  WITH mine AS MATERIALIZED (SELECT r AS name FROM reader_names(who) r)
  SELECT 'public' WHERE who IS NULL OR EXISTS (SELECT FROM person p WHERE p.id = who AND p.active)
  UNION ALL
  SELECT n.name FROM (
    SELECT name FROM mine WHERE name <> 'public' AND NOT starts_with(name, 'source/') AND NOT starts_with(name, 'link/')
    UNION ALL
    SELECT DISTINCT 'source/' || g.source FROM source_grant g JOIN mine ON mine.name = g.reader
      WHERE g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date
    UNION ALL
    SELECT 'link/' || h.link FROM link_holder h JOIN shared_link l ON l.name = h.link
      WHERE h.person_id = who AND l.withdrawn_at IS NULL AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date)) n
  WHERE EXISTS (SELECT FROM person p WHERE p.id = who AND p.active)
$$;
CREATE INDEX membership_person ON membership (person_id);
CREATE INDEX membership_member ON membership (member_group_id);
