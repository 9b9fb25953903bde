-- The audit log: its entries, the keys that encrypt personal fields in them, and how far it was checked, archived and
-- sent on. The log's tiles and checkpoints are files in HOME; evidence of controls is in 005.

-- An entry is written in the same transaction as what it records. The sequencer alone gives it its place
-- (`leaf_index`): writers other than the control process may set neither that nor `queued`, since an entry that has the
-- next place already would keep all others out for good.
CREATE TABLE audit_entry (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL,
  action text NOT NULL,
  actor text NOT NULL,
  subject text NOT NULL,
  body bytea NOT NULL,
  leaf_index bigint UNIQUE,
  queued bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX audit_unsequenced ON audit_entry (queued) WHERE leaf_index IS NULL;
CREATE INDEX audit_subject ON audit_entry (subject);

-- For the first page of the log, however many calls there are.
CREATE INDEX audit_without_calls ON audit_entry (id DESC) WHERE action <> 'call';

-- Wrapped keys, one per person: destroying a row erases that person's fields in the log.
CREATE TABLE subject_key (
  subject text PRIMARY KEY,
  wrapped bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- There is an entry for every leaf index below `upto`. Entries only leave in ranges whose files prove them, so what was
-- complete once need not be counted again: counting the whole log blocked every other writer.
CREATE TABLE audit_whole (one boolean PRIMARY KEY DEFAULT true CHECK (one), upto bigint NOT NULL);
INSERT INTO audit_whole (upto) VALUES (0);

-- How far the log was sent to the company's SIEM. `claimed_at`: since when somebody is sending what is new, without
-- holding a lock on the row meanwhile.
CREATE TABLE siem_position (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  leaf bigint NOT NULL DEFAULT 0,
  sent_at timestamptz,
  claimed_at timestamptz
);
INSERT INTO siem_position DEFAULT VALUES;

-- Entries of calls whose facts are archived are moved to files, in ranges from the front of the log. All other entries
-- stay, and so do those that evidence refers to.
CREATE TABLE archived_range (
  first bigint PRIMARY KEY,
  until bigint NOT NULL UNIQUE,
  url text NOT NULL,
  file text NOT NULL,
  sha256 text NOT NULL,
  root bytea NOT NULL,  -- over the range's entries: a node of the log's tree
  gone bigint NOT NULL,  -- rows that were deleted
  since timestamptz,  -- time of the first entry
  till timestamptz,  -- time of the last one, except of entries that claim to be later than now
  low uuid NOT NULL,  -- the lowest id
  high uuid NOT NULL,  -- the highest id
  at timestamptz NOT NULL DEFAULT now(),
  CHECK (first >= 0 AND until > first)
);

-- The only way in which entries are deleted: entries of calls, in the next range, if the log's files have it, every
-- entry of it is here, older than a week and without facts, and the entries give the root under which they were written
-- elsewhere. Returns how many were deleted.
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

-- Rights
GRANT SELECT, INSERT, UPDATE, DELETE ON subject_key TO %(db)s_control;
GRANT SELECT, INSERT ON audit_entry TO %(db)s_control;
GRANT SELECT, UPDATE ON siem_position TO %(db)s_control;
GRANT SELECT ON audit_whole, archived_range TO %(db)s_control;
GRANT SELECT, INSERT ON subject_key TO %(db)s_gateway, %(db)s_shipper;
GRANT SELECT ON audit_entry TO %(db)s_shipper;
GRANT INSERT (id, at, action, actor, subject, body) ON audit_entry TO %(db)s_shipper;
GRANT UPDATE (leaf_index) ON audit_entry TO %(db)s_control;
GRANT UPDATE (upto) ON audit_whole TO %(db)s_control;
GRANT SELECT, USAGE ON SEQUENCE audit_entry_queued_seq TO %(db)s_control;
GRANT USAGE ON SEQUENCE audit_entry_queued_seq TO %(db)s_shipper;
REVOKE ALL ON FUNCTION archive_range FROM PUBLIC;
GRANT EXECUTE ON FUNCTION archive_range TO %(db)s_control;
