-- A budget that was given to a key or to an experiment for good ends with it: nothing can be taken of it any more. What each worker,
-- batch and order held of it goes as of a period that is over; it also kept the row of each worker that ever held some. Of files that
-- were deleted a row stayed for good, though nothing but a batch that read or made them names them.
CREATE INDEX api_file_deleted ON api_file (deleted_at) WHERE deleted_at IS NOT NULL AND purpose <> 'batch_output';
CREATE INDEX batch_input ON batch (input_file);   -- whether a batch reads a file is asked as each one is deleted

-- Whether a budget without an end was that of a key, with all that it was rotated to, or of an experiment, which ended before that.
CREATE FUNCTION has_ended_for_good(of_budget text, before timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = public, pg_temp AS $$
DECLARE whose uuid;
BEGIN
  IF of_budget !~ '^(key|experiment)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN RETURN false; END IF;
  whose := split_part(of_budget, '/', 2)::uuid;
  IF of_budget LIKE 'experiment/%%' THEN
    RETURN EXISTS (SELECT FROM experiment e WHERE e.id = whose AND e.state = 'ended' AND e.ended_at < before);
  END IF;
  RETURN EXISTS (SELECT FROM api_key k WHERE k.id = whose AND least(k.revoked_at, k.expires_at) < before)
    AND NOT EXISTS (SELECT FROM api_key k WHERE k.family = whose AND coalesce(least(k.revoked_at, k.expires_at) >= before, true));
END $$;

-- Some of it, how many rows. What was granted of such a budget and charged to it stays.
CREATE FUNCTION forget_ended(before timestamptz) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE n bigint; gone bigint := 0;
BEGIN
  DELETE FROM budget_slice s WHERE s.ctid = ANY(ARRAY(
    SELECT o.ctid FROM gateway g LEFT JOIN shipped h USING (epoch) JOIN budget_slice o USING (epoch)
    WHERE g.state <> 'live' AND g.heartbeat_at < before AND coalesce(h.done, g.host = 'batch')
      AND NOT EXISTS (SELECT FROM budget_slice c WHERE c.epoch = g.epoch AND NOT c.closed)
      AND o.period = 'total' AND has_ended_for_good(o.budget, before) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  UPDATE budget_period p SET ended = true WHERE (p.budget, p.period) IN (
    SELECT o.budget, o.period FROM budget_period o
      JOIN api_key k ON o.budget = 'key/' || k.id AND least(k.revoked_at, k.expires_at) < before
    WHERE o.period = 'total' AND NOT o.ended AND has_ended_for_good(o.budget, before) LIMIT 10000);
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM api_file f WHERE f.ctid = ANY(ARRAY(
    SELECT o.ctid FROM api_file o WHERE o.deleted_at < before AND o.deleted_at IS NOT NULL AND o.purpose <> 'batch_output'
      AND NOT EXISTS (SELECT FROM batch b WHERE b.input_file = o.id)
      AND NOT EXISTS (SELECT FROM batch b WHERE b.output_file = o.id)
      AND NOT EXISTS (SELECT FROM batch b WHERE b.error_file = o.id) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN gone + n;
END $$;
REVOKE ALL ON FUNCTION forget_ended(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_ended(timestamptz) TO %(db)s_control;

-- Last, since grants wait for it: pages list budgets of the present: of those without an end, all that there ever were.
ALTER TABLE budget_period ADD COLUMN ended boolean NOT NULL DEFAULT false;
CREATE INDEX budget_period_going ON budget_period (period) WHERE NOT ended;
