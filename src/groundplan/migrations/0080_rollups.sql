-- What was spent, added up as it arrives: every statement that adds facts also adds what it changed (`*_delta`), in the same
-- transaction, so sums are those of the facts whatever is killed when, however late a fact comes. Deltas are folded into
-- hours and days beside; a sum is the folded rows and the deltas of one snapshot. Facts may leave later, sums stay.

-- which workload an attempt was for, and what its cost is made of: {"class": [count, picodollars]}, exactly its cost
ALTER TABLE attempt ADD COLUMN workload text NOT NULL DEFAULT '', ADD COLUMN blueprint int NOT NULL DEFAULT 0,
  ADD COLUMN demo boolean NOT NULL DEFAULT false, ADD COLUMN parts jsonb;
UPDATE attempt a SET workload = c.workload, blueprint = c.blueprint, demo = c.demo FROM call c WHERE c.id = a.call_id;

CREATE TABLE call_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, team text NOT NULL, demo boolean NOT NULL, blueprint int NOT NULL,
  model text NOT NULL, deployment text NOT NULL, site text NOT NULL, endpoint text NOT NULL, status text NOT NULL,
  cache text NOT NULL, feature text NOT NULL, calls bigint NOT NULL, cost_usd numeric(30,12) NOT NULL,
  saved_usd numeric(30,12) NOT NULL, prefix_saved_usd numeric(30,12) NOT NULL, prompt_tokens numeric NOT NULL,
  completion_tokens numeric NOT NULL);
CREATE TABLE call_hour (LIKE call_delta, PRIMARY KEY (
  hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature));
CREATE TABLE call_day (LIKE call_delta, PRIMARY KEY (
  hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature));

CREATE TABLE part_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, demo boolean NOT NULL, blueprint int NOT NULL, deployment text NOT NULL,
  site text NOT NULL, model text NOT NULL, outcome text NOT NULL, estimated boolean NOT NULL, part text NOT NULL,
  count numeric NOT NULL, cost_usd numeric(30,12) NOT NULL);
CREATE TABLE part_hour (LIKE part_delta, PRIMARY KEY (
  hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part));
CREATE TABLE part_day (LIKE part_delta, PRIMARY KEY (
  hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part));

CREATE TABLE person_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, person uuid NOT NULL, key uuid NOT NULL, demo boolean NOT NULL,
  calls bigint NOT NULL, cost_usd numeric(30,12) NOT NULL, prompt_tokens numeric NOT NULL, completion_tokens numeric NOT NULL);
CREATE TABLE person_day (LIKE person_delta, PRIMARY KEY (hour, workload, person, key, demo));
CREATE TABLE person_whole (                    -- of all workloads and keys
  hour timestamptz NOT NULL, person uuid NOT NULL, calls bigint NOT NULL, cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, person));

-- the cost of a call in equal shares on the documents whose passages it was given; what is left over goes to the first
CREATE TABLE document_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, document text NOT NULL, demo boolean NOT NULL, calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL);
CREATE TABLE document_day (LIKE document_delta, PRIMARY KEY (hour, workload, document, demo));
CREATE TABLE document_whole (                  -- of all workloads
  hour timestamptz NOT NULL, document text NOT NULL, calls bigint NOT NULL, cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, document));

-- how many answered calls took about so long: bucket b holds milliseconds from 1.02^b up to 1.02^(b+1)
CREATE TABLE latency_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, what text NOT NULL, bucket int NOT NULL, calls bigint NOT NULL);
CREATE TABLE latency_day (LIKE latency_delta, PRIMARY KEY (hour, workload, what, bucket));

CREATE TABLE charge_delta (budget text NOT NULL, period text NOT NULL, cost_usd numeric(30,12) NOT NULL);
CREATE TABLE charge_total (LIKE charge_delta, PRIMARY KEY (budget, period));

CREATE FUNCTION latency_bucket(ms double precision) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT floor(ln(greatest(ms, 1e-3)) / ln(1.02))::int
$$;
-- (document, picodollars) of a call: equal shares that sum exactly to its cost; '' without passages
CREATE FUNCTION document_shares(cost numeric, sources jsonb) RETURNS TABLE (document text, share numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  WITH given AS (
    SELECT d.document, row_number() OVER (ORDER BY d.document) - 1 AS place, count(*) OVER () AS n
    FROM (SELECT DISTINCT s ->> 0 AS document FROM jsonb_array_elements(sources) s) d)
  SELECT g.document, (div(cost * 1e12, g.n) + CASE WHEN g.place < mod(cost * 1e12, g.n) THEN 1 ELSE 0 END) * 1e-12
  FROM given g
$$;

CREATE FUNCTION roll_calls() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO call_delta
    SELECT date_trunc('hour', at, 'UTC'), workload, coalesce(team, ''), demo, blueprint, coalesce(model, ''),
      coalesce(deployment, ''), coalesce(site, ''), endpoint, status, cache, coalesce(detail ->> 'feature', ''), count(*),
      sum(cost_usd), sum(saved_usd), sum(prefix_saved_usd), sum(prompt_tokens), sum(completion_tokens)
    FROM added GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
  INSERT INTO person_delta
    SELECT date_trunc('day', at, 'UTC'), workload, coalesce(person_id, '00000000-0000-0000-0000-000000000000'),
      coalesce(key_id, '00000000-0000-0000-0000-000000000000'), demo, count(*), sum(cost_usd), sum(prompt_tokens),
      sum(completion_tokens)
    FROM added WHERE status <> 'refused' GROUP BY 1, 2, 3, 4, 5;
  INSERT INTO latency_delta
    SELECT date_trunc('day', at, 'UTC'), workload, t.what, latency_bucket(t.ms), count(*)
    FROM added, LATERAL (VALUES ('whole', duration_ms), ('first', first_byte_ms)) t(what, ms)
    WHERE status = 'ok' AND t.ms IS NOT NULL GROUP BY 1, 2, 3, 4;
  INSERT INTO document_delta
    SELECT date_trunc('day', at, 'UTC'), workload, '', demo, count(*), sum(cost_usd) FROM added
      WHERE status <> 'refused' AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) = 0 GROUP BY 1, 2, 4
    UNION ALL
    SELECT date_trunc('day', at, 'UTC'), workload, s.document, demo, count(*), sum(s.share)
      FROM added, LATERAL document_shares(cost_usd, detail -> 'sources') s
      WHERE status <> 'refused' AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) > 0 GROUP BY 1, 2, 3, 4;
  RETURN NULL;
END $$;
CREATE TRIGGER call_added AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION roll_calls();

-- (part, count, USD) of an attempt, and 'attempt' for itself; what it is made of is unknown of older ones ('whole')
CREATE FUNCTION attempt_parts(cost numeric, parts jsonb) RETURNS TABLE (part text, count numeric, usd numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p.key, (p.value ->> 0)::numeric, (p.value ->> 1)::numeric * 1e-12 FROM jsonb_each(parts) p
    WHERE parts IS NOT NULL AND parts <> '{}'
  UNION ALL SELECT 'whole', 0, cost WHERE (parts IS NULL OR parts = '{}') AND cost <> 0
  UNION ALL SELECT 'attempt', 1, 0
$$;
CREATE FUNCTION roll_attempts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO part_delta
    SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model, a.outcome,
      a.estimated, p.part, sum(p.count), sum(p.usd)
    FROM added a, LATERAL attempt_parts(a.cost_usd, a.parts) p WHERE a.state <> 'open'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt_added AFTER INSERT ON attempt REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_attempts();
-- an attempt that was open is settled later; one that is settled never changes
CREATE FUNCTION roll_settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO part_delta
    SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model, a.outcome,
      a.estimated, p.part, sum(a.sign * p.count), sum(a.sign * p.usd)
    FROM (SELECT 1 AS sign, * FROM settled UNION ALL SELECT -1, * FROM before) a,
      LATERAL attempt_parts(a.cost_usd, a.parts) p
    WHERE a.state <> 'open' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt_settled AFTER UPDATE ON attempt REFERENCING OLD TABLE AS before NEW TABLE AS settled
  FOR EACH STATEMENT EXECUTE FUNCTION roll_settled();

CREATE FUNCTION roll_charges() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO charge_delta SELECT budget, period, sum(cost_usd) FROM added GROUP BY 1, 2;
  RETURN NULL;
END $$;
CREATE TRIGGER charge_added AFTER INSERT ON charge REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_charges();

-- Deltas into hours and days; whoever comes second finds nothing to do. Returns how many deltas were folded.
CREATE FUNCTION fold_rollups() RETURNS bigint LANGUAGE plpgsql AS $$
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
    INSERT INTO part_hour AS t
      SELECT hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, sum(count),
        sum(cost_usd) FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    ON CONFLICT (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part)
    DO UPDATE SET count = t.count + EXCLUDED.count, cost_usd = t.cost_usd + EXCLUDED.cost_usd RETURNING 1),
  days AS (
    INSERT INTO part_day AS t
      SELECT date_trunc('day', hour, 'UTC'), workload, demo, blueprint, deployment, site, model, outcome, estimated, part,
        sum(count), sum(cost_usd) FROM gone GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    ON CONFLICT (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part)
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

-- what is there already ---------------------------------------------------------------------------------------------------------
INSERT INTO call_delta
  SELECT date_trunc('hour', at, 'UTC'), workload, coalesce(team, ''), demo, blueprint, coalesce(model, ''),
    coalesce(deployment, ''), coalesce(site, ''), endpoint, status, cache, coalesce(detail ->> 'feature', ''), count(*),
    sum(cost_usd), sum(saved_usd), sum(prefix_saved_usd), sum(prompt_tokens), sum(completion_tokens)
  FROM call GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
INSERT INTO person_delta
  SELECT date_trunc('day', at, 'UTC'), workload, coalesce(person_id, '00000000-0000-0000-0000-000000000000'),
    coalesce(key_id, '00000000-0000-0000-0000-000000000000'), demo, count(*), sum(cost_usd), sum(prompt_tokens),
    sum(completion_tokens)
  FROM call WHERE status <> 'refused' GROUP BY 1, 2, 3, 4, 5;
INSERT INTO latency_delta
  SELECT date_trunc('day', at, 'UTC'), workload, t.what, latency_bucket(t.ms), count(*)
  FROM call, LATERAL (VALUES ('whole', duration_ms), ('first', first_byte_ms)) t(what, ms)
  WHERE status = 'ok' AND t.ms IS NOT NULL GROUP BY 1, 2, 3, 4;
INSERT INTO document_delta
  SELECT date_trunc('day', at, 'UTC'), workload, '', demo, count(*), sum(cost_usd) FROM call
    WHERE status <> 'refused' AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) = 0 GROUP BY 1, 2, 4
  UNION ALL
  SELECT date_trunc('day', at, 'UTC'), workload, s.document, demo, count(*), sum(s.share)
    FROM call, LATERAL document_shares(cost_usd, detail -> 'sources') s
    WHERE status <> 'refused' AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) > 0 GROUP BY 1, 2, 3, 4;
INSERT INTO part_delta
  SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model, a.outcome,
    a.estimated, p.part, sum(p.count), sum(p.usd)
  FROM attempt a, LATERAL attempt_parts(a.cost_usd, a.parts) p WHERE a.state <> 'open'
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;
INSERT INTO charge_delta SELECT budget, period, sum(cost_usd) FROM charge GROUP BY 1, 2;
SELECT fold_rollups();

-- rights ------------------------------------------------------------------------------------------------------------------------
GRANT SELECT, INSERT, UPDATE, DELETE ON call_delta, call_hour, call_day, part_delta, part_hour, part_day, person_delta,
  person_day, person_whole, document_delta, document_day, document_whole, latency_delta,
  latency_day, charge_delta, charge_total TO %(db)s_control;
ALTER TABLE call_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE part_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE person_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
