-- What has left stays known: a journal that is shipped again, such as one that was restored with its folder, adds nothing a
-- second time, what a worker spent is still spent when its slices are closed, and a batch costs what it cost.

-- The ids of a part of a day, about a hundredth of what leaves: its calls, and its attempts with their numbers.
CREATE TABLE archived_fact (
  day date NOT NULL, part integer NOT NULL, calls uuid[] NOT NULL, attempts uuid[] NOT NULL, numbers integer[] NOT NULL,
  PRIMARY KEY (day, part));
ALTER TABLE archived_fact ALTER calls SET STORAGE EXTERNAL, ALTER attempts SET STORAGE EXTERNAL;
-- What attempts that have left were charged, of workers whose slices were not closed then.
CREATE TABLE archived_charge (
  epoch uuid NOT NULL, budget text NOT NULL, period text NOT NULL, cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (epoch, budget, period));

-- What a batch's calls cost that have left.
ALTER TABLE batch ADD COLUMN left_usd numeric(30,12) NOT NULL DEFAULT 0;

-- As 0311 has it, and what went is noted.
CREATE OR REPLACE FUNCTION drop_archived(which date, nth integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
DECLARE kept archived_day; n_calls bigint; n_attempts bigint; n_charges bigint; gone archived_fact;
  first timestamptz := which::timestamp AT TIME ZONE 'UTC'; last timestamptz := (which + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
  SELECT * INTO STRICT kept FROM archived_day d WHERE d.day = which AND d.part = nth;
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
    WHERE b.id = s.batch_id)
  SELECT count(*), coalesce(array_agg(w.call_id), '{}'), coalesce(array_agg(w.number), '{}')
    INTO n_attempts, gone.attempts, gone.numbers FROM went w;
  WITH went AS (DELETE FROM call c WHERE c.at >= first AND c.at < last RETURNING c.id)
  SELECT count(*), coalesce(array_agg(w.id), '{}') INTO n_calls, gone.calls FROM went w;
  IF (n_calls, n_attempts, n_charges) IS DISTINCT FROM (kept.calls, kept.attempts, kept.charges) THEN
    RAISE EXCEPTION 'facts of %% changed since they were archived', which USING ERRCODE = 'serialization_failure';
  END IF;
  INSERT INTO archived_fact VALUES (which, nth, gone.calls, gone.attempts, gone.numbers);
  RETURN n_calls;
END $$;

GRANT SELECT, INSERT ON archived_fact TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON archived_charge TO %(db)s_control;
GRANT SELECT ON archived_fact, archived_charge TO %(db)s_shipper;
