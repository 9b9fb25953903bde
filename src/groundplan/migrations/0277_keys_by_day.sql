-- What calls of each key cost, by day: tags of keys are asked of all people, who are many more than keys.
SELECT pg_advisory_xact_lock(80, 1); -- nothing is folded until this is done
CREATE TABLE key_day (
  hour timestamptz NOT NULL, workload text NOT NULL, key uuid NOT NULL, calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL, PRIMARY KEY (hour, workload, key));

-- As 0139 has it, and keys from what people's calls add.
-- Deltas into hours and days; whoever comes second finds nothing to do. Returns how many deltas were folded.
CREATE OR REPLACE FUNCTION fold_rollups() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE folded bigint := 0; n bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 1) THEN RETURN 0; END IF;
  WITH gone AS (DELETE FROM call_delta RETURNING *),
  hours AS (
    INSERT INTO call_hour AS t
      SELECT hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature, sum(calls),
        sum(cost_usd), sum(saved_usd), sum(prefix_saved_usd), sum(prompt_tokens), sum(completion_tokens)
      FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
    ON CONFLICT (hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd,
      saved_usd = t.saved_usd + EXCLUDED.saved_usd, prefix_saved_usd = t.prefix_saved_usd + EXCLUDED.prefix_saved_usd,
      prompt_tokens = t.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = t.completion_tokens + EXCLUDED.completion_tokens RETURNING 1),
  features AS (
    INSERT INTO feature_hour AS t
      SELECT hour, workload, feature, deployment, sum(calls), sum(cost_usd) FROM gone WHERE status = 'ok'
      GROUP BY 1, 2, 3, 4
    ON CONFLICT (hour, workload, feature, deployment)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  days AS (
    INSERT INTO call_day AS t
      SELECT date_trunc('day', hour, 'UTC'), workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache,
        feature, sum(calls), sum(cost_usd), sum(saved_usd), sum(prefix_saved_usd), sum(prompt_tokens), sum(completion_tokens)
      FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
    ON CONFLICT (hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd,
      saved_usd = t.saved_usd + EXCLUDED.saved_usd, prefix_saved_usd = t.prefix_saved_usd + EXCLUDED.prefix_saved_usd,
      prompt_tokens = t.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = t.completion_tokens + EXCLUDED.completion_tokens RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM part_delta RETURNING *),
  hours AS (
    INSERT INTO part_hour AS t (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose,
        tier, count, cost_usd)
      SELECT hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier,
        sum(count), sum(cost_usd) FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
    ON CONFLICT (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier)
    DO UPDATE SET count = t.count + EXCLUDED.count, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  days AS (
    INSERT INTO part_day AS t (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose,
        tier, count, cost_usd)
      SELECT date_trunc('day', hour, 'UTC'), workload, demo, blueprint, deployment, site, model, outcome, estimated, part,
        purpose, tier, sum(count), sum(cost_usd) FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
    ON CONFLICT (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier)
    DO UPDATE SET count = t.count + EXCLUDED.count, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM person_delta RETURNING *),
  days AS (
    INSERT INTO person_day AS t
      SELECT hour, workload, person, key, demo, sum(calls), sum(cost_usd), sum(prompt_tokens), sum(completion_tokens)
      FROM gone GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, workload, person, key, demo) DO UPDATE SET calls = t.calls + EXCLUDED.calls,
      cost_usd = t.cost_usd + EXCLUDED.cost_usd, prompt_tokens = t.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = t.completion_tokens + EXCLUDED.completion_tokens RETURNING 1),
  months AS (
    INSERT INTO person_month AS t
      SELECT date_trunc('month', hour, 'UTC'), workload, person, sum(calls), sum(cost_usd) FROM gone GROUP BY 1, 2, 3
    ON CONFLICT (hour, workload, person)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  keys AS (
    INSERT INTO key_day AS t SELECT hour, workload, key, sum(calls), sum(cost_usd) FROM gone GROUP BY 1, 2, 3
    ON CONFLICT (hour, workload, key)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  whole AS (
    INSERT INTO person_whole AS t SELECT hour, person, sum(calls), sum(cost_usd) FROM gone GROUP BY 1, 2
    ON CONFLICT (hour, person)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM document_delta RETURNING *),
  days AS (
    INSERT INTO document_day AS t
      SELECT hour, workload, document, demo, sum(calls), sum(cost_usd) FROM gone GROUP BY 1, 2, 3, 4
    ON CONFLICT (hour, workload, document, demo)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  months AS (
    INSERT INTO document_month AS t
      SELECT date_trunc('month', hour, 'UTC'), workload, document, sum(calls), sum(cost_usd) FROM gone GROUP BY 1, 2, 3
    ON CONFLICT (hour, workload, document)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  whole AS (
    INSERT INTO document_whole AS t SELECT hour, document, sum(calls), sum(cost_usd) FROM gone GROUP BY 1, 2
    ON CONFLICT (hour, document)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM latency_delta RETURNING *),
  days AS (
    INSERT INTO latency_day AS t SELECT hour, workload, what, bucket, sum(calls) FROM gone GROUP BY 1, 2, 3, 4
    ON CONFLICT (hour, workload, what, bucket) DO UPDATE SET calls = t.calls + EXCLUDED.calls RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM charge_delta RETURNING *),
  totals AS (
    INSERT INTO charge_total AS t SELECT budget, period, sum(cost_usd) FROM gone GROUP BY 1, 2
    ON CONFLICT (budget, period) DO UPDATE SET cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  RETURN folded + n;
END $$;

-- what is there already
INSERT INTO key_day SELECT hour, workload, key, sum(calls), sum(cost_usd) FROM person_day GROUP BY 1, 2, 3;

GRANT SELECT, INSERT, UPDATE, DELETE ON key_day TO %(db)s_control;
