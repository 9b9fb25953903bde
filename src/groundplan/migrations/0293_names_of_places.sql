-- The name of a deleted place may be somebody's. Where it was erased with them, `path` is a digest of it with `salt`, by which
-- the place stays empty: a name that is guessed can be confirmed by it, and none be read.
ALTER TABLE tombstone ADD COLUMN salt bytea;
DO $$ BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON tombstone TO %(db)s_control';
  END IF;
END $$;

-- What calls rested on is told by ids and paths: of these documents by their ids alone. How many calls.
CREATE FUNCTION forget_passages(documents uuid[]) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
  WITH found AS (
    UPDATE call c SET detail = jsonb_set(c.detail, '{sources}', (
        SELECT jsonb_agg(CASE WHEN (p.passage ->> 0) = ANY (documents::text[]) THEN jsonb_set(p.passage, '{1}', p.passage -> 0)
          ELSE p.passage END ORDER BY p.place)
        FROM jsonb_array_elements(c.detail -> 'sources') WITH ORDINALITY AS p(passage, place)))
    FROM (SELECT DISTINCT x.id FROM unnest(documents) d CROSS JOIN LATERAL (
        SELECT o.id FROM call o WHERE o.detail -> 'sources' <> '[]'
          AND o.detail -> 'sources' @> jsonb_build_array(jsonb_build_array(d::text)) OFFSET 0) x) used
    WHERE c.id = used.id
    RETURNING 1)
  SELECT count(*) FROM found
$$;
REVOKE ALL ON FUNCTION forget_passages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_passages TO %(db)s_control;
