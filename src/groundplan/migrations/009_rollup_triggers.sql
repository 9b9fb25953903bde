-- What each statement on the ledger (007) adds to the sums (008), and functions that gateways read sums by. Folding of
-- deltas is in 010.

CREATE FUNCTION latency_bucket(ms double precision) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT floor(ln(greatest(ms, 1e-3)) / ln(1.02))::int
$$;

-- (document, USD) of a call: equal shares that add up exactly to its cost.
CREATE FUNCTION document_shares(cost numeric, sources jsonb) RETURNS TABLE (document text, share numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  WITH given AS (
    SELECT d.document, row_number() OVER (ORDER BY d.document) - 1 AS place, count(*) OVER () AS n
    FROM (SELECT DISTINCT s ->> 0 AS document FROM jsonb_array_elements(sources) s) d)
  SELECT g.document, (div(cost * 1e12, g.n) + CASE WHEN g.place < mod(cost * 1e12, g.n) THEN 1 ELSE 0 END) * 1e-12
  FROM given g
$$;

-- Estimates, counts of tokens and uses of tools are left out of numbers of calls, of live figures and of latencies,
-- since no model answers them. Their rows by person and day stay: by these it is known where somebody's facts are. Also
-- counts the calls of each worker and day.
--
-- The new calls are read twice: once grouped by everything that any of these sums is kept by, from which each then
-- takes its own, and once for their latencies. Those that were given passages are read again for their documents.
CREATE FUNCTION roll_calls() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
      SELECT step, workload, coalesce(deployment, ''), status, sum(calls), sum(cost_usd) FROM alike
      WHERE right(endpoint, 9) <> '.estimate'
        AND endpoint NOT IN ('messages.count_tokens', 'responses.input_tokens', 'mcp')
      GROUP BY 1, 2, 3, 4),
  by_hour AS (
    INSERT INTO call_delta
      SELECT date_bin('1 hour', step, '2000-01-01 00:00+00'), workload, team, demo, blueprint, model, coalesce(deployment, ''),
        site, endpoint, status, cache, feature, sum(calls), sum(cost_usd), sum(saved_usd), sum(prefix_saved_usd),
        sum(prompt_tokens), sum(completion_tokens)
      FROM alike GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
  accepted AS (
    SELECT date_bin('1 day', step, '2000-01-01 00:00+00') AS day, *,
      CASE WHEN right(endpoint, 9) <> '.estimate' AND endpoint NOT IN ('messages.count_tokens', 'responses.input_tokens', 'mcp')
        THEN calls ELSE 0 END AS answered
    FROM alike WHERE status <> 'refused'),
  by_person AS (
    INSERT INTO person_delta
      SELECT day, workload, person, key, demo, sum(answered), sum(cost_usd), sum(prompt_tokens), sum(completion_tokens)
      FROM accepted GROUP BY 1, 2, 3, 4, 5),
  by_document AS (
    INSERT INTO document_delta
      SELECT day, workload, '', demo, sum(answered), sum(cost_usd) FROM accepted WHERE NOT given GROUP BY 1, 2, 4),
  by_worker AS (
    INSERT INTO worker_day AS t
      SELECT (day AT TIME ZONE 'UTC')::date, workload, epoch, sum(calls) FROM accepted
      WHERE NOT starts_with(feature, 'experiment/') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
      ON CONFLICT (day, workload, epoch) DO UPDATE SET calls = t.calls + EXCLUDED.calls),
  made AS (
    SELECT * FROM accepted WHERE cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL),
  by_person_and_place AS (
    INSERT INTO person_place_delta
      SELECT day, workload, person, deployment, site, sum(answered), sum(prompt_tokens + completion_tokens)
      FROM made GROUP BY 1, 2, 3, 4, 5),
  by_document_and_place AS (
    INSERT INTO document_place_delta
      SELECT day, workload, '', deployment, site, sum(answered), sum(prompt_tokens + completion_tokens)
      FROM made WHERE NOT given GROUP BY 1, 2, 4, 5)
  SELECT coalesce(bool_or(given), false) INTO grounded FROM accepted;
  INSERT INTO latency_delta
    SELECT date_bin('1 day', at, '2000-01-01 00:00+00'), workload, t.what, latency_bucket(t.ms), count(*)
    FROM added, LATERAL (VALUES ('whole', duration_ms), ('first', first_byte_ms),
      ('first demo', CASE WHEN demo THEN first_byte_ms END)) t(what, ms)
    WHERE status = 'ok' AND t.ms IS NOT NULL AND right(endpoint, 9) <> '.estimate'
      AND endpoint NOT IN ('messages.count_tokens', 'responses.input_tokens', 'mcp') GROUP BY 1, 2, 3, 4;
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
CREATE TRIGGER call_added AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION roll_calls();

-- Add what a call costs more after it was counted, to all sums of calls: a call that was written off because nobody had
-- its journal, whose journal then arrives after all, even if the call has left for an archive.
CREATE FUNCTION roll_more(c call, more numeric) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE day timestamptz := date_bin('1 day', c.at, '2000-01-01 00:00+00');
BEGIN
  INSERT INTO call_step_delta VALUES (
    date_bin('10 seconds', c.at, '2000-01-01 00:00+00'), c.workload, coalesce(c.deployment, ''), c.status, 0, more);
  INSERT INTO call_delta VALUES (
    date_bin('1 hour', c.at, '2000-01-01 00:00+00'), c.workload, coalesce(c.team, ''), c.demo, c.blueprint,
    coalesce(c.model, ''), coalesce(c.deployment, ''), coalesce(c.site, ''), c.endpoint, c.status, c.cache,
    coalesce(c.detail ->> 'feature', ''), 0, more, 0, 0, 0, 0);
  IF c.status <> 'refused' THEN
    INSERT INTO person_delta VALUES (
      day, c.workload, coalesce(c.person_id, '00000000-0000-0000-0000-000000000000'),
      coalesce(c.key_id, '00000000-0000-0000-0000-000000000000'), c.demo, 0, more, 0, 0);
    IF coalesce(c.detail -> 'sources', '[]') = '[]' THEN
      INSERT INTO document_delta VALUES (day, c.workload, '', c.demo, 0, more);
    ELSE -- shares are of what is positive: what is left of a division goes to the first ones
      INSERT INTO document_delta
        SELECT day, c.workload, s.document, c.demo, 0, sign(more) * sum(s.share)
        FROM document_shares(abs(more), c.detail -> 'sources') s GROUP BY s.document;
    END IF;
  END IF;
END $$;

CREATE FUNCTION roll_cost() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM roll_more(NEW, NEW.cost_usd - OLD.cost_usd);
  RETURN NULL;
END $$;
CREATE TRIGGER call_costs_more AFTER UPDATE OF cost_usd ON call FOR EACH ROW
  WHEN (NEW.cost_usd IS DISTINCT FROM OLD.cost_usd) EXECUTE FUNCTION roll_cost();

-- (part, count, USD) of an attempt, and 'attempt' for the attempt itself. 'whole': what the cost is made of is not
-- known.
CREATE FUNCTION attempt_parts(cost numeric, parts jsonb) RETURNS TABLE (part text, count numeric, usd numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p.key, (p.value ->> 0)::numeric, (p.value ->> 1)::numeric * 1e-12 FROM jsonb_each(parts) p
    WHERE parts IS NOT NULL AND parts <> '{}'
  UNION ALL SELECT 'whole', 0, cost WHERE (parts IS NULL OR parts = '{}') AND cost <> 0
  UNION ALL SELECT 'attempt', 1, 0
$$;

-- Attempts that are made of the usual parts and of nothing else, which nearly all are, are summed up without taking
-- each apart.
CREATE FUNCTION roll_attempts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
CREATE TRIGGER attempt_added AFTER INSERT ON attempt REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_attempts();

-- An attempt that was open is settled later, once.
CREATE FUNCTION roll_settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO part_delta (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier,
      count, cost_usd)
    SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model, a.outcome,
      a.estimated, p.part, a.purpose, a.tier, sum(a.sign * p.count), sum(a.sign * p.usd)
    FROM (SELECT 1 AS sign, * FROM settled UNION ALL SELECT -1, * FROM before) a,
      LATERAL attempt_parts(a.cost_usd, a.parts) p
    WHERE a.state <> 'open' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt_settled AFTER UPDATE ON attempt REFERENCING OLD TABLE AS before NEW TABLE AS settled
  FOR EACH STATEMENT EXECUTE FUNCTION roll_settled();

CREATE FUNCTION roll_charges() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO charge_delta SELECT budget, period, sum(cost_usd) FROM added GROUP BY 1, 2;
  RETURN NULL;
END $$;
CREATE TRIGGER charge_added AFTER INSERT ON charge REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_charges();

-- What an attempt of a HOME that was declared lost cost after all: its journal replaces the bound that was charged.
CREATE FUNCTION roll_charge() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO charge_delta VALUES (NEW.budget, NEW.period, NEW.cost_usd - OLD.cost_usd);
  RETURN NULL;
END $$;
CREATE TRIGGER charge_corrected AFTER UPDATE OF cost_usd ON charge FOR EACH ROW
  WHEN (NEW.cost_usd IS DISTINCT FROM OLD.cost_usd) EXECUTE FUNCTION roll_charge();

-- Whoever reports on the same call at the same time waits, so that each counts what it changed. A call that was not
-- accepted is worth nothing, whatever was reported of it before.
CREATE FUNCTION roll_outcome() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE before record; now_told record; was call;
BEGIN
  PERFORM pg_advisory_xact_lock(80, hashtext(NEW.call_id::text));
  SELECT * INTO was FROM call c WHERE c.id = NEW.call_id;
  IF was.id IS NULL THEN RETURN NULL; END IF;
  SELECT * INTO before FROM outcome_told(NEW.call_id, NEW.id);
  SELECT * INTO now_told FROM outcome_told(NEW.call_id, NULL);
  INSERT INTO outcome_delta VALUES (
    date_trunc('day', was.at, 'UTC'), was.workload, was.demo, was.status = 'refused', 1, (before.n = 0)::int,
    (now_told.accepted IS TRUE)::int - (before.accepted IS TRUE)::int,
    CASE WHEN now_told.accepted IS FALSE THEN 0 ELSE coalesce(now_told.value_usd, 0) END
      - CASE WHEN before.accepted IS FALSE THEN 0 ELSE coalesce(before.value_usd, 0) END);
  RETURN NULL;
END $$;
CREATE TRIGGER outcome_added AFTER INSERT ON outcome FOR EACH ROW EXECUTE FUNCTION roll_outcome();

CREATE FUNCTION step_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT date_bin('10 seconds', at, '2000-01-01 00:00+00')
$$;

-- An attempt that was open counts from when it is settled, once; any later change counts as a difference.
CREATE FUNCTION step_settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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

-- Calls of workloads on a day, of all workers but one; those of experiments are left out.
CREATE FUNCTION calls_made(which text[], on_day date, but uuid) RETURNS TABLE (workload text, calls bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT w.workload, sum(w.calls)::bigint FROM worker_day w
  WHERE w.day = on_day AND w.workload = ANY(which) AND w.epoch <> but GROUP BY w.workload
$$;

-- The people for whom calls of workloads were made in the last days, without refused ones.
CREATE FUNCTION people_seen(which text[], days int) RETURNS TABLE (workload text, person uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT p.workload, p.person FROM (
    SELECT d.workload, d.person, d.hour FROM person_day d UNION ALL SELECT d.workload, d.person, d.hour FROM person_delta d) p
  WHERE p.workload = ANY(which) AND p.hour >= date_trunc('day', now() - make_interval(days => days), 'UTC')
    AND p.person <> '00000000-0000-0000-0000-000000000000'
  GROUP BY 1, 2
$$;

-- Rights
REVOKE ALL ON FUNCTION roll_calls, roll_more, roll_cost, roll_attempts, roll_settled, roll_charges, roll_charge,
  roll_outcome, step_settled, calls_made, people_seen FROM PUBLIC;
GRANT EXECUTE ON FUNCTION roll_more TO %(db)s_shipper;
GRANT EXECUTE ON FUNCTION calls_made, people_seen TO %(db)s_gateway;
