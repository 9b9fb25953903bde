-- A day of millions of calls leaves in several parts, each in a transaction of seconds: what is there of it that is older than
-- `until`; all of it where that is null.
ALTER TABLE archived_day ADD COLUMN until timestamptz;

-- As 0376 has it, up to where the part goes.
CREATE OR REPLACE FUNCTION drop_archived(which date, nth integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE kept archived_day; n_calls bigint; n_attempts bigint; n_charges bigint; last timestamptz;
  first timestamptz := which::timestamp AT TIME ZONE 'UTC';
BEGIN
  SELECT * INTO STRICT kept FROM archived_day d WHERE d.day = which AND d.part = nth;
  last := least(kept.until, (which + 1)::timestamp AT TIME ZONE 'UTC');
  WITH went AS (
    DELETE FROM charge c USING attempt a
    WHERE c.call_id = a.call_id AND c.attempt = a.number AND a.at >= first AND a.at < last AND a.state <> 'open'
    RETURNING a.epoch, c.budget, c.period, c.cost_usd),
  noted AS (
    INSERT INTO archived_charge AS t SELECT w.epoch, w.budget, w.period, sum(w.cost_usd) FROM went w
      WHERE NOT EXISTS (SELECT FROM shipped s WHERE s.epoch = w.epoch AND s.done) GROUP BY 1, 2, 3
    ON CONFLICT (epoch, budget, period) DO UPDATE SET cost_usd = t.cost_usd + EXCLUDED.cost_usd)
  SELECT count(*) INTO n_charges FROM went;
  WITH went AS (
    DELETE FROM attempt a WHERE a.at >= first AND a.at < last AND a.state <> 'open'
    RETURNING a.call_id, a.number, a.cost_usd),
  of_batches AS (
    UPDATE batch b SET left_usd = b.left_usd + s.cost_usd FROM (
      SELECT l.batch_id, sum(w.cost_usd) AS cost_usd FROM went w JOIN batch_line l USING (call_id) GROUP BY 1) s
    WHERE b.id = s.batch_id),
  noted AS (
    INSERT INTO archived_fact SELECT which, nth, c.chunk, c.ids[1], c.ids[cardinality(c.ids)], '{}', c.ids, c.numbers FROM (
      SELECT n.chunk, array_agg(n.id ORDER BY n.id, n.number) AS ids, array_agg(n.number ORDER BY n.id, n.number) AS numbers
      FROM (SELECT -1 - (row_number() OVER (ORDER BY w.call_id, w.number) - 1) / 10000 AS chunk, w.call_id AS id, w.number
            FROM went w) n GROUP BY 1) c)
  SELECT count(*) INTO n_attempts FROM went;
  WITH went AS (DELETE FROM call c WHERE c.at >= first AND c.at < last RETURNING c.id),
  noted AS (
    INSERT INTO archived_fact SELECT which, nth, c.chunk, c.ids[1], c.ids[cardinality(c.ids)], c.ids, '{}', '{}' FROM (
      SELECT n.chunk, array_agg(n.id ORDER BY n.id) AS ids
      FROM (SELECT (row_number() OVER (ORDER BY w.id) - 1) / 10000 AS chunk, w.id FROM went w) n GROUP BY 1) c)
  SELECT count(*) INTO n_calls FROM went;
  IF n_calls = 0 THEN
    INSERT INTO archived_fact VALUES (which, nth, 0, NULL, NULL, '{}', '{}', '{}');
  END IF;
  IF (n_calls, n_attempts, n_charges) IS DISTINCT FROM (kept.calls, kept.attempts, kept.charges) THEN
    RAISE EXCEPTION 'facts of %% changed since they were archived', which USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN n_calls;
END $$;
