-- Uses of tools by MCP, which no model answers, are in no number of calls either. The index of what no sum by people counts has
-- them, too.
DROP INDEX call_uncounted;
CREATE INDEX call_uncounted ON call (person_id, at DESC)
  WHERE (right(endpoint, 9) = '.estimate' OR endpoint IN ('messages.count_tokens', 'responses.input_tokens', 'mcp'))
    AND status <> 'refused' AND person_id IS NOT NULL;

-- As 0411 has it, without these in numbers of calls, in live figures and in times that answers took.
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
