-- What people and documents cost from the beginning of a month up to each of its days: any days of a month are one of these
-- sums less another, in one row each, where up to half a month of daily rows was read.
SELECT pg_advisory_xact_lock(80, 1), pg_advisory_xact_lock(80, 5); -- nothing is folded until this is done

-- `days` on which there was something, ascending, and the sums up to each of them
CREATE TABLE person_running (
  month timestamptz NOT NULL, workload text NOT NULL, person uuid NOT NULL, days smallint[] NOT NULL, calls bigint[] NOT NULL,
  cost_usd numeric[] NOT NULL, PRIMARY KEY (month, workload, person));
CREATE TABLE document_running (
  month timestamptz NOT NULL, workload text NOT NULL, document text NOT NULL, days smallint[] NOT NULL,
  calls bigint[] NOT NULL, cost_usd numeric[] NOT NULL, PRIMARY KEY (month, workload, document));
CREATE TABLE person_place_running (
  month timestamptz NOT NULL, workload text NOT NULL, person uuid NOT NULL, deployment text NOT NULL, site text NOT NULL,
  days smallint[] NOT NULL, calls bigint[] NOT NULL, tokens numeric[] NOT NULL,
  PRIMARY KEY (month, deployment, site, workload, person));
CREATE TABLE document_place_running (
  month timestamptz NOT NULL, workload text NOT NULL, document text NOT NULL, deployment text NOT NULL, site text NOT NULL,
  days smallint[] NOT NULL, calls bigint[] NOT NULL, tokens numeric[] NOT NULL,
  PRIMARY KEY (month, deployment, site, workload, document));

-- They hold the days of NAME_day from `since`, the beginning of a month, up to `until`; a day follows when it is over.
CREATE TABLE running_span (
  name text PRIMARY KEY, keys text NOT NULL, measure text NOT NULL, since timestamptz, until timestamptz);
INSERT INTO running_span (name, keys, measure) VALUES
  ('person', 'workload, person', 'cost_usd'), ('document', 'workload, document', 'cost_usd'),
  ('person_place', 'workload, person, deployment, site', 'tokens'),
  ('document_place', 'workload, document, deployment, site', 'tokens');

-- The sum of two running sums, each told on its own days, on the days of both.
CREATE FUNCTION running_joined(a smallint[], x anyarray, b smallint[], y anyarray) RETURNS anyarray LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF b[1] > a[cardinality(a)] THEN
    RETURN x || ARRAY(SELECT x[cardinality(x)] + u.upto FROM unnest(y) WITH ORDINALITY u(upto, place) ORDER BY u.place);
  END IF;
  RETURN ARRAY(SELECT coalesce(x[width_bucket(d, a)], 0) + coalesce(y[width_bucket(d, b)], 0)
    FROM (SELECT DISTINCT unnest(a || b) AS d) u ORDER BY d);
END $$;

-- The statement that adds what a query for rows like those of NAME_day finds, from $1 up to $2, to the running sums.
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

-- What still comes for a day that they hold: they are what NAME_day says, whatever is written to it (but for a restore, whose
-- rows are those of both).
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

-- Takes in days that are over, and one month of those that were there before these sums were kept, of each; whoever comes
-- second finds nothing to do. A time that has not come yet (of a wrong clock) makes no day over.
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

GRANT SELECT, INSERT, UPDATE, DELETE ON person_running, document_running, person_place_running, document_place_running
  TO %(db)s_control;
GRANT SELECT, UPDATE ON running_span TO %(db)s_control;
