-- What a search knows of documents in memory may be some milliseconds old. In the statement that tells it who somebody is, it
-- is also told which documents changed after that, and who may read them now, so that none of them is weighed by what was.
-- Ids and numbers of readers' sets, which the search service has of all documents; no text, path or name. The same is told
-- whoever asks, so that it takes the same time.
--
-- Of the first `most` documents with a change after a number: id -> the number of the set of its readers, -1 where it does
-- not say what it said: it is deleted, or none of its passages in that edition is from before (all are written anew with each
-- version; of a first one there are no others). NULL: there is none.
CREATE FUNCTION changed_after(after bigint, in_edition int, most int) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public AS $$
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
REVOKE ALL ON FUNCTION changed_after FROM PUBLIC;
GRANT EXECUTE ON FUNCTION changed_after TO %(db)s_search;
-- The function runs as the owner of the tables, on whom row security is forced as well: it sees rows there and nowhere else.
CREATE POLICY document_changed ON document FOR SELECT TO CURRENT_USER
  USING (current_setting('groundplan.looks_for_changes', true) = 'on');
CREATE POLICY chunk_changed ON chunk FOR SELECT TO CURRENT_USER
  USING (current_setting('groundplan.looks_for_changes', true) = 'on');
