-- Live figures are kept as they arrive (0080), in steps of ten seconds: how many calls each workload gets, which deployment
-- answered last and which site fails is asked by every look at the console, and was read from the newest calls and attempts,
-- which are the more the faster they come. Steps of the last two hours are kept.
CREATE TABLE call_step_delta (
  step timestamptz NOT NULL, workload text NOT NULL, deployment text NOT NULL, status text NOT NULL, calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL);
CREATE TABLE call_step (LIKE call_step_delta, PRIMARY KEY (step, workload, deployment, status));
-- settled attempts; last_ok and last_failed are when the newest of them began
CREATE TABLE attempt_step_delta (
  step timestamptz NOT NULL, workload text NOT NULL, deployment text NOT NULL, site text NOT NULL, attempts bigint NOT NULL,
  ok bigint NOT NULL, failed bigint NOT NULL, last_ok timestamptz, last_failed timestamptz);
CREATE TABLE attempt_step (LIKE attempt_step_delta, PRIMARY KEY (step, workload, deployment, site));

CREATE FUNCTION step_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT date_bin('10 seconds', at, '2000-01-01 00:00+00')
$$;

-- As 0245 has it, and steps. Hours and days of UTC are found by counting from the year 2000, which takes less than by name.
CREATE OR REPLACE FUNCTION roll_calls() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE grounded boolean;
BEGIN
  WITH alike AS MATERIALIZED (
    SELECT date_bin('10 seconds', at, '2000-01-01 00:00+00') AS step, workload, coalesce(team, '') AS team, demo, blueprint,
      coalesce(model, '') AS model, deployment, coalesce(site, '') AS site, endpoint, status, cache,
      coalesce(detail ->> 'feature', '') AS feature, coalesce(person_id, '00000000-0000-0000-0000-000000000000') AS person,
      coalesce(key_id, '00000000-0000-0000-0000-000000000000') AS key, epoch,
      coalesce(detail -> 'sources', '[]') <> '[]' AS given, count(*) AS calls, sum(cost_usd) AS cost_usd,
      sum(saved_usd) AS saved_usd, sum(prefix_saved_usd) AS prefix_saved_usd, sum(prompt_tokens) AS prompt_tokens,
      sum(completion_tokens) AS completion_tokens
    FROM added GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16),
  by_step AS (
    INSERT INTO call_step_delta
      SELECT step, workload, coalesce(deployment, ''), status, sum(calls), sum(cost_usd) FROM alike GROUP BY 1, 2, 3, 4),
  by_hour AS (
    INSERT INTO call_delta
      SELECT date_bin('1 hour', step, '2000-01-01 00:00+00'), workload, team, demo, blueprint, model, coalesce(deployment, ''),
        site, endpoint, status, cache, feature, sum(calls), sum(cost_usd), sum(saved_usd), sum(prefix_saved_usd),
        sum(prompt_tokens), sum(completion_tokens)
      FROM alike GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
  accepted AS (
    SELECT date_bin('1 day', step, '2000-01-01 00:00+00') AS day, * FROM alike WHERE status <> 'refused'),
  by_person AS (
    INSERT INTO person_delta
      SELECT day, workload, person, key, demo, sum(calls), sum(cost_usd), sum(prompt_tokens), sum(completion_tokens)
      FROM accepted GROUP BY 1, 2, 3, 4, 5),
  by_document AS (
    INSERT INTO document_delta
      SELECT day, workload, '', demo, sum(calls), sum(cost_usd) FROM accepted WHERE NOT given GROUP BY 1, 2, 4),
  by_worker AS (
    INSERT INTO worker_day AS t
      SELECT (day AT TIME ZONE 'UTC')::date, workload, epoch, sum(calls) FROM accepted
      WHERE NOT starts_with(feature, 'experiment/') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
      ON CONFLICT (day, workload, epoch) DO UPDATE SET calls = t.calls + EXCLUDED.calls),
  made AS (
    SELECT * FROM accepted WHERE cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL),
  by_person_and_place AS (
    INSERT INTO person_place_delta
      SELECT day, workload, person, deployment, site, sum(calls), sum(prompt_tokens + completion_tokens)
      FROM made GROUP BY 1, 2, 3, 4, 5),
  by_document_and_place AS (
    INSERT INTO document_place_delta
      SELECT day, workload, '', deployment, site, sum(calls), sum(prompt_tokens + completion_tokens)
      FROM made WHERE NOT given GROUP BY 1, 2, 4, 5)
  SELECT coalesce(bool_or(given), false) INTO grounded FROM accepted;
  INSERT INTO latency_delta
    SELECT date_bin('1 day', at, '2000-01-01 00:00+00'), workload, t.what, latency_bucket(t.ms), count(*)
    FROM added, LATERAL (VALUES ('whole', duration_ms), ('first', first_byte_ms),
      ('first demo', CASE WHEN demo THEN first_byte_ms END)) t(what, ms)
    WHERE status = 'ok' AND t.ms IS NOT NULL GROUP BY 1, 2, 3, 4;
  IF grounded THEN
    INSERT INTO document_delta
      SELECT date_bin('1 day', at, '2000-01-01 00:00+00'), workload, s.document, demo, count(*), sum(s.share)
      FROM added, LATERAL document_shares(cost_usd, detail -> 'sources') s
      WHERE status <> 'refused' AND coalesce(detail -> 'sources', '[]') <> '[]' GROUP BY 1, 2, 3, 4;
    INSERT INTO document_place_delta
      SELECT date_bin('1 day', at, '2000-01-01 00:00+00'), workload, s.document, deployment, coalesce(site, ''), count(*),
        sum(s.share) * 1e12
      FROM added, LATERAL document_shares((prompt_tokens + completion_tokens) * 1e-12, detail -> 'sources') s
      WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
        AND coalesce(detail -> 'sources', '[]') <> '[]' GROUP BY 1, 2, 3, 4, 5;
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION roll_attempts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE others boolean;
BEGIN
  WITH alike AS MATERIALIZED (
    SELECT date_bin('10 seconds', at, '2000-01-01 00:00+00') AS step, workload, demo, blueprint, deployment, site, model,
      outcome, estimated, purpose, tier, count(*) AS attempts, max(at) AS last,
      sum((parts -> 'input' -> 0)::numeric) AS input, sum((parts -> 'input' -> 1)::numeric) AS input_cost,
      sum((parts -> 'output' -> 0)::numeric) AS output, sum((parts -> 'output' -> 1)::numeric) AS output_cost,
      bool_or(parts IS NULL OR parts = '{}' OR parts - ARRAY['input', 'output'] <> '{}') AS more
    FROM added WHERE state <> 'open' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
  by_step AS (
    INSERT INTO attempt_step_delta
      SELECT step, workload, deployment, site, sum(attempts), coalesce(sum(attempts) FILTER (WHERE outcome = 'ok'), 0),
        coalesce(sum(attempts) FILTER (WHERE outcome IN ('failed', 'not_billed')), 0), max(last) FILTER (WHERE outcome = 'ok'),
        max(last) FILTER (WHERE outcome IN ('failed', 'not_billed'))
      FROM alike GROUP BY 1, 2, 3, 4),
  by_part AS (
    INSERT INTO part_delta (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier,
        count, cost_usd)
      SELECT hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, p.part, purpose, tier, p.count,
        p.usd
      FROM (
        SELECT date_bin('1 hour', step, '2000-01-01 00:00+00') AS hour, workload, demo, blueprint, deployment, site, model,
          outcome, estimated, purpose, tier, sum(attempts) AS attempts, sum(input) AS input, sum(input_cost) AS input_cost,
          sum(output) AS output, sum(output_cost) AS output_cost
        FROM alike GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) h,
        LATERAL (VALUES ('attempt', attempts, 0), ('input', input, input_cost * 1e-12),
          ('output', output, output_cost * 1e-12)) p(part, count, usd)
      WHERE p.count IS NOT NULL)
  SELECT coalesce(bool_or(more), false) INTO others FROM alike;
  IF others THEN
    INSERT INTO part_delta (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier,
        count, cost_usd)
      SELECT date_bin('1 hour', a.at, '2000-01-01 00:00+00'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model,
        a.outcome, a.estimated, p.part, a.purpose, a.tier, sum(p.count), sum(p.usd)
      FROM added a, LATERAL attempt_parts(a.cost_usd, a.parts) p
      WHERE a.state <> 'open' AND p.part NOT IN ('attempt', 'input', 'output')
      GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
  END IF;
  RETURN NULL;
END $$;

-- one that was open is settled once, and counts from then on; what else is changed later counts as before
CREATE FUNCTION step_settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO attempt_step_delta
    SELECT step_of(at), workload, deployment, site, sum(sign), coalesce(sum(sign) FILTER (WHERE outcome = 'ok'), 0),
      coalesce(sum(sign) FILTER (WHERE outcome IN ('failed', 'not_billed')), 0),
      max(at) FILTER (WHERE sign > 0 AND outcome = 'ok'),
      max(at) FILTER (WHERE sign > 0 AND outcome IN ('failed', 'not_billed'))
    FROM (SELECT 1 AS sign, * FROM settled UNION ALL SELECT -1, * FROM before) a
    WHERE state <> 'open' GROUP BY 1, 2, 3, 4;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt_settled_step AFTER UPDATE ON attempt REFERENCING OLD TABLE AS before NEW TABLE AS settled
  FOR EACH STATEMENT EXECUTE FUNCTION step_settled();

-- Deltas into steps; what is before the last two hours goes, counted from the newest step that has come. How many were folded.
CREATE FUNCTION fold_steps() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE old timestamptz; folded bigint; n bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 6) THEN RETURN 0; END IF;
  old := least(now(), greatest((SELECT max(step) FROM call_step), (SELECT max(step) FROM call_step_delta),
    (SELECT max(step) FROM attempt_step), (SELECT max(step) FROM attempt_step_delta))) - interval '2 hours';
  WITH gone AS (DELETE FROM call_step_delta RETURNING *),
  steps AS (
    INSERT INTO call_step AS t
      SELECT step, workload, deployment, status, sum(calls), sum(cost_usd) FROM gone WHERE step >= old GROUP BY 1, 2, 3, 4
    ON CONFLICT (step, workload, deployment, status)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1)
  SELECT count(*) INTO folded FROM gone;
  WITH gone AS (DELETE FROM attempt_step_delta RETURNING *),
  steps AS (
    INSERT INTO attempt_step AS t
      SELECT step, workload, deployment, site, sum(attempts), sum(ok), sum(failed), max(last_ok), max(last_failed) FROM gone
      WHERE step >= old GROUP BY 1, 2, 3, 4
    ON CONFLICT (step, workload, deployment, site)
    DO UPDATE SET attempts = t.attempts + EXCLUDED.attempts, ok = t.ok + EXCLUDED.ok, failed = t.failed + EXCLUDED.failed,
      last_ok = greatest(t.last_ok, EXCLUDED.last_ok), last_failed = greatest(t.last_failed, EXCLUDED.last_failed) RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  DELETE FROM call_step WHERE step < old;
  DELETE FROM attempt_step WHERE step < old;
  RETURN folded + n;
END $$;

-- what is there already
INSERT INTO call_step
  SELECT step_of(at), workload, coalesce(deployment, ''), status, count(*), sum(cost_usd) FROM call
  WHERE at >= now() - interval '2 hours' GROUP BY 1, 2, 3, 4;
INSERT INTO attempt_step
  SELECT step_of(at), workload, deployment, site, count(*), count(*) FILTER (WHERE outcome = 'ok'),
    count(*) FILTER (WHERE outcome IN ('failed', 'not_billed')), max(at) FILTER (WHERE outcome = 'ok'),
    max(at) FILTER (WHERE outcome IN ('failed', 'not_billed'))
  FROM attempt WHERE at >= now() - interval '2 hours' AND state <> 'open' GROUP BY 1, 2, 3, 4;
DROP INDEX attempt_failed; -- only the look for sites that fail read it

GRANT SELECT, INSERT, UPDATE, DELETE ON call_step_delta, call_step, attempt_step_delta, attempt_step TO %(db)s_control;
ALTER TABLE call_step_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE attempt_step_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
