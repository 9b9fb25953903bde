-- Folding of deltas (008) into steps, hours, days and months, and the running sums. A fold returns how many deltas it
-- folded; a second one that runs at the same time finds nothing to do.

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

CREATE FUNCTION fold_places() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE folded bigint := 0; n bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 5) THEN RETURN 0; END IF;
  WITH gone AS (DELETE FROM person_place_delta RETURNING *),
  days AS (
    INSERT INTO person_place_day AS t
      SELECT hour, workload, person, deployment, site, sum(calls), sum(tokens) FROM gone GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, person)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1),
  months AS (
    INSERT INTO person_place_month AS t
      SELECT date_trunc('month', hour, 'UTC'), workload, person, deployment, site, sum(calls), sum(tokens) FROM gone
      GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, person)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM document_place_delta RETURNING *),
  days AS (
    INSERT INTO document_place_day AS t
      SELECT hour, workload, document, deployment, site, sum(calls), sum(tokens) FROM gone GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, document)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1),
  months AS (
    INSERT INTO document_place_month AS t
      SELECT date_trunc('month', hour, 'UTC'), workload, document, deployment, site, sum(calls), sum(tokens) FROM gone
      GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, document)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  RETURN folded + n;
END $$;

CREATE FUNCTION fold_outcomes() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 3) THEN RETURN 0; END IF;
  WITH gone AS (DELETE FROM outcome_delta RETURNING *),
  days AS (
    INSERT INTO outcome_day AS t
      SELECT hour, workload, demo, refused, sum(outcomes), sum(reported), sum(accepted), sum(value_usd)
      FROM gone GROUP BY 1, 2, 3, 4
    ON CONFLICT (hour, workload, demo, refused)
    DO UPDATE SET outcomes = t.outcomes + EXCLUDED.outcomes, reported = t.reported + EXCLUDED.reported,
      accepted = t.accepted + EXCLUDED.accepted, value_usd = t.value_usd + EXCLUDED.value_usd RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  RETURN n;
END $$;

-- Fold deltas into steps, and delete steps before the last two hours, counted from the newest step. Returns how many
-- deltas were folded.
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

-- The sum of two running sums, each given on its own days, on the days of both.
CREATE FUNCTION running_joined(a smallint[], x anyarray, b smallint[], y anyarray) RETURNS anyarray LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF b[1] > a[cardinality(a)] THEN
    RETURN x || ARRAY(SELECT x[cardinality(x)] + u.upto FROM unnest(y) WITH ORDINALITY u(upto, place) ORDER BY u.place);
  END IF;
  RETURN ARRAY(SELECT coalesce(x[width_bucket(d, a)], 0) + coalesce(y[width_bucket(d, b)], 0)
    FROM (SELECT DISTINCT unnest(a || b) AS d) u ORDER BY d);
END $$;

-- The statement that adds the result of a query for rows like those of NAME_day, from $1 up to $2, to the running sums.
CREATE FUNCTION to_running(span running_span, query text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT format(
    'INSERT INTO %%1$I AS t (month, %%2$s, days, calls, %%3$I)
     SELECT month, %%2$s, array_agg(day ORDER BY day), array_agg(calls ORDER BY day), array_agg(measure ORDER BY day)
     FROM (SELECT month, %%2$s, day, (sum(sum(calls)) OVER upto)::bigint AS calls,
         sum(sum(%%3$I)) OVER upto AS measure
       FROM (SELECT date_trunc(''month'', hour, ''UTC'') AS month, extract(day FROM hour AT TIME ZONE ''UTC'')::smallint AS day,
           %%2$s, calls, %%3$I FROM (%%4$s) r WHERE hour >= $1 AND hour < $2) d
       GROUP BY month, %%2$s, day WINDOW upto AS (PARTITION BY month, %%2$s ORDER BY day)) s
     GROUP BY month, %%2$s
     ON CONFLICT (month, %%2$s) DO UPDATE SET
       days = ARRAY(SELECT DISTINCT unnest(t.days || EXCLUDED.days) ORDER BY 1),
       calls = running_joined(t.days, t.calls, EXCLUDED.days, EXCLUDED.calls),
       %%3$I = running_joined(t.days, t.%%3$I, EXCLUDED.days, EXCLUDED.%%3$I)',
    span.name || '_running', span.keys, span.measure, query)
$$;

-- What still arrives for a day that running sums hold already is added to them, so they are what NAME_day says whatever
-- is written to it (except by a restore, which brings the rows of both).
CREATE FUNCTION roll_late() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE span running_span; query text;
BEGIN
  SELECT s.* INTO span FROM running_span s
    WHERE s.name = TG_ARGV[0] AND EXISTS (SELECT FROM added a WHERE a.hour >= s.since AND a.hour < s.until);
  IF span.name IS NULL THEN RETURN NULL; END IF;
  query := format('SELECT hour, %%s, calls, %%I FROM added', span.keys, span.measure);
  IF TG_OP = 'UPDATE' THEN
    query := query || format(' UNION ALL SELECT hour, %%s, -calls, -%%I FROM gone', span.keys, span.measure);
  END IF;
  EXECUTE to_running(span, query) USING span.since, span.until;
  RETURN NULL;
END $$;
CREATE TRIGGER person_day_added AFTER INSERT ON person_day REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_late('person');
CREATE TRIGGER person_day_changed AFTER UPDATE ON person_day REFERENCING NEW TABLE AS added OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION roll_late('person');
CREATE TRIGGER document_day_added AFTER INSERT ON document_day REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_late('document');
CREATE TRIGGER document_day_changed AFTER UPDATE ON document_day REFERENCING NEW TABLE AS added OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION roll_late('document');
CREATE TRIGGER person_place_day_added AFTER INSERT ON person_place_day REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_late('person_place');
CREATE TRIGGER person_place_day_changed AFTER UPDATE ON person_place_day REFERENCING NEW TABLE AS added OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION roll_late('person_place');
CREATE TRIGGER document_place_day_added AFTER INSERT ON document_place_day REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_late('document_place');
CREATE TRIGGER document_place_day_changed AFTER UPDATE ON document_place_day
  REFERENCING NEW TABLE AS added OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION roll_late('document_place');

-- Take in days that are over, and one more month of those before `since`, of each kind. A day in the future (of a wrong
-- clock) makes no day over.
CREATE FUNCTION keep_running() RETURNS void LANGUAGE plpgsql AS $$
DECLARE span running_span; days text; newest timestamptz; older timestamptz;
BEGIN
  IF NOT (pg_try_advisory_xact_lock(80, 1) AND pg_try_advisory_xact_lock(80, 5)) THEN RETURN; END IF;
  FOR span IN SELECT * FROM running_span LOOP
    days := format('SELECT * FROM %%I', span.name || '_day');
    EXECUTE format('SELECT max(hour) FROM %%I WHERE hour <= now()', span.name || '_day') INTO newest;
    CONTINUE WHEN newest IS NULL;
    IF span.until IS NULL THEN
      span.since := date_trunc('month', newest, 'UTC'); span.until := newest;
      EXECUTE to_running(span, days) USING span.since, newest;
    ELSIF newest > span.until THEN
      EXECUTE to_running(span, days) USING span.until, newest;
      span.until := newest;
    END IF;
    EXECUTE format('SELECT max(hour) FROM %%I WHERE hour < $1', span.name || '_day') INTO older USING span.since;
    IF older IS NOT NULL THEN
      EXECUTE to_running(span, days) USING date_trunc('month', older, 'UTC'), span.since;
      span.since := date_trunc('month', older, 'UTC');
    END IF;
    UPDATE running_span s SET since = span.since, until = span.until
      WHERE s.name = span.name AND (s.since, s.until) IS DISTINCT FROM (span.since, span.until);
  END LOOP;
END $$;
