-- Entries of calls whose facts have left leave for files, in ranges of the log and from its front on. Entries of anything
-- else stay, and so do those of calls that evidence names.
CREATE TABLE archived_range (
  first bigint PRIMARY KEY, until bigint NOT NULL UNIQUE, url text NOT NULL, file text NOT NULL, sha256 text NOT NULL,
  root bytea NOT NULL,                           -- over the range's entries: a node of the log's tree
  gone bigint NOT NULL,                          -- rows that were deleted
  since timestamptz, till timestamptz,           -- the first and the last time in it, but for what claims to be later than now
  low uuid NOT NULL, high uuid NOT NULL,         -- the lowest and the highest id
  at timestamptz NOT NULL DEFAULT now(), CHECK (first >= 0 AND until > first));
GRANT SELECT ON archived_range TO %(db)s_control;

CREATE INDEX evidence_entry ON evidence (audit_entry);   -- looked at for each entry that goes

-- The one way in which entries go: those of calls in a range that is the next one, that the log's files have, of which each
-- entry is here, older than a week and without facts, and that gives the root under which it was written elsewhere. Returns
-- how many went. Its caller's temporary tables stand behind those of this schema.
CREATE FUNCTION archive_range(a bigint, z bigint, into_url text, into_file text, digest text, range_root bytea) RETURNS bigint
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE hashes bytea[]; n bigint; young bigint; kept archived_range;
BEGIN
  LOCK TABLE archived_range IN SHARE ROW EXCLUSIVE MODE;
  IF a IS DISTINCT FROM (SELECT coalesce(max(r.until), 0) FROM archived_range r) OR z - a < 256 OR (z - a) & (z - a - 1) <> 0
      OR a %% (z - a) <> 0 OR z > (SELECT w.upto FROM audit_whole w) THEN
    RAISE EXCEPTION 'entries %% to %% are not the next range', a, z - 1 USING ERRCODE = 'serialization_failure';
  END IF;
  SELECT count(*), count(*) FILTER (WHERE e.at > now() - interval '6 days' AND e.at <= now()),
      min(e.at), max(e.at) FILTER (WHERE e.at <= now()), (array_agg(e.id ORDER BY e.id))[1],
      (array_agg(e.id ORDER BY e.id DESC))[1], array_agg(sha256('\x00'::bytea || e.body) ORDER BY e.leaf_index)
    INTO n, young, kept.since, kept.till, kept.low, kept.high, hashes
    FROM audit_entry e WHERE e.leaf_index >= a AND e.leaf_index < z;
  IF n <> z - a OR young > 0 OR EXISTS (SELECT FROM audit_entry e JOIN call c ON c.id = e.id
      WHERE e.leaf_index >= a AND e.leaf_index < z AND c.at <= now()) THEN
    RAISE EXCEPTION 'entries %% to %% do not leave yet', a, z - 1 USING ERRCODE = 'serialization_failure';
  END IF;
  WHILE cardinality(hashes) > 1 LOOP             -- RFC 6962; the number of leaves is a power of two
    SELECT array_agg(p.hash ORDER BY p.pair) INTO hashes FROM (
      SELECT (u.nth - 1) / 2 AS pair, sha256('\x01'::bytea || string_agg(u.hash, ''::bytea ORDER BY u.nth)) AS hash
      FROM unnest(hashes) WITH ORDINALITY u(hash, nth) GROUP BY 1) p;
  END LOOP;
  IF hashes[1] IS DISTINCT FROM range_root THEN
    RAISE EXCEPTION 'entries %% to %% are others than were written', a, z - 1 USING ERRCODE = 'serialization_failure';
  END IF;
  DELETE FROM audit_entry e WHERE e.leaf_index >= a AND e.leaf_index < z AND e.action = 'call'
    AND NOT EXISTS (SELECT FROM evidence v WHERE v.audit_entry = e.id)
    AND NOT EXISTS (SELECT FROM call c WHERE c.id = e.id);
  GET DIAGNOSTICS kept.gone = ROW_COUNT;
  INSERT INTO archived_range (first, until, url, file, sha256, root, gone, since, till, low, high)
    VALUES (a, z, into_url, into_file, digest, range_root, kept.gone, kept.since, kept.till, kept.low, kept.high);
  RETURN kept.gone;
END $$;
REVOKE ALL ON FUNCTION archive_range(bigint, bigint, text, text, text, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION archive_range(bigint, bigint, text, text, text, bytea) TO %(db)s_control;
