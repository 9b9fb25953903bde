-- The calls of each worker and day are no longer counted: gateways count to daily limits in slices (006), and nobody
-- reads these sums.
--
-- As in 009, without them; new calls of several workers are grouped together.
CREATE OR REPLACE FUNCTION roll_calls() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE grounded boolean;
BEGIN
  WITH alike AS MATERIALIZED (
    SELECT date_bin('10 seconds', at, '2000-01-01 00:00+00') AS step, workload, coalesce(team, '') AS team, demo, blueprint,
      coalesce(model, '') AS model, deployment, coalesce(site, '') AS site, endpoint, status, cache,
      coalesce(detail ->> 'feature', '') AS feature, coalesce(person_id, '00000000-0000-0000-0000-000000000000') AS person,
      coalesce(key_id, '00000000-0000-0000-0000-000000000000') AS key,
      coalesce(detail -> 'sources', '[]') <> '[]' AS given, count(*) AS calls, sum(cost_usd) AS cost_usd,
      sum(saved_usd) AS saved_usd, sum(prefix_saved_usd) AS prefix_saved_usd, sum(prompt_tokens) AS prompt_tokens,
      sum(completion_tokens) AS completion_tokens
    FROM added GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
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

-- As in 006, without their rows.
CREATE OR REPLACE FUNCTION forget_settled(before timestamptz, over text[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE n bigint; gone bigint := 0; settled uuid[];
BEGIN
  SELECT array_agg(g.epoch) INTO settled FROM gateway g LEFT JOIN shipped h USING (epoch)
    WHERE g.state <> 'live' AND g.heartbeat_at < before AND coalesce(h.done, g.host = 'batch')
      AND NOT EXISTS (SELECT FROM budget_slice s WHERE s.epoch = g.epoch AND NOT s.closed);
  -- a journal that came later than its worker went told of movements then
  DELETE FROM budget_movement m WHERE m.ctid = ANY(ARRAY(
    SELECT o.ctid FROM budget_movement o WHERE o.at < before
      AND (o.epoch = ANY(settled) OR NOT EXISTS (SELECT FROM gateway g WHERE g.epoch = o.epoch)) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM budget_slice s WHERE s.ctid = ANY(ARRAY(
    SELECT o.ctid FROM unnest(settled) e (epoch) JOIN budget_slice o USING (epoch) WHERE o.period = ANY(over) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM batch_line l WHERE l.ctid = ANY(ARRAY(
    SELECT o.ctid FROM batch b JOIN batch_line o ON o.batch_id = b.id
    WHERE b.ended_at < before AND b.ended_at < (SELECT max(d.day) FROM archived_day d) AND b.id = ANY(settled)
      AND NOT EXISTS (SELECT FROM attempt a WHERE a.call_id = o.call_id) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM archived_charge c WHERE c.ctid = ANY(ARRAY(
    SELECT o.ctid FROM archived_charge o JOIN shipped h USING (epoch) WHERE h.done LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  -- last, once nothing else of them is left that goes by their rows
  SELECT array_agg(e.epoch) INTO settled FROM (
    SELECT s.epoch FROM unnest(settled) s (epoch)
    WHERE NOT EXISTS (SELECT FROM budget_slice o WHERE o.epoch = s.epoch)
      AND NOT EXISTS (SELECT FROM limit_slice o WHERE o.epoch = s.epoch)
      AND NOT EXISTS (SELECT FROM batch_line o WHERE o.batch_id = s.epoch) LIMIT 10000) e;
  DELETE FROM lost_worker l WHERE l.epoch = ANY(settled);
  DELETE FROM gateway g WHERE g.epoch = ANY(settled);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN gone + n;
END $$;

DROP FUNCTION calls_made;
DROP TABLE worker_day;
