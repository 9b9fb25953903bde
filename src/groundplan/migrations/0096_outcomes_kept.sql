-- What evidence asks of the ledger, kept as it arrives like other sums (0080): outcomes by the day of their call, of which
-- a call has one that counts, its newest; and how soon calls of a demo began to answer, so that they can be left out.
CREATE TABLE outcome_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, demo boolean NOT NULL, refused boolean NOT NULL,
  outcomes bigint NOT NULL, reported bigint NOT NULL, accepted bigint NOT NULL, value_usd numeric(30,12) NOT NULL);
CREATE TABLE outcome_day (LIKE outcome_delta, PRIMARY KEY (hour, workload, demo, refused));

-- whoever reports the same call at the same time waits, so that exactly one of them is its newest
CREATE FUNCTION roll_outcome() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE before outcome; counts boolean; was call;
BEGIN
  PERFORM pg_advisory_xact_lock(80, hashtext(NEW.call_id::text));
  SELECT * INTO was FROM call c WHERE c.id = NEW.call_id;
  IF was.id IS NULL THEN RETURN NULL; END IF;
  SELECT * INTO before FROM outcome o WHERE o.call_id = NEW.call_id AND o.id <> NEW.id ORDER BY o.at DESC, o.id DESC LIMIT 1;
  counts := before.id IS NULL OR (NEW.at, NEW.id) > (before.at, before.id);
  INSERT INTO outcome_delta VALUES (
    date_trunc('day', was.at, 'UTC'), was.workload, was.demo, was.status = 'refused', 1, (before.id IS NULL)::int,
    CASE WHEN counts THEN (NEW.accepted IS TRUE)::int - (before.accepted IS TRUE)::int ELSE 0 END,
    CASE WHEN counts THEN coalesce(NEW.value_usd, 0) - coalesce(before.value_usd, 0) ELSE 0 END);
  RETURN NULL;
END $$;
CREATE TRIGGER outcome_added AFTER INSERT ON outcome FOR EACH ROW EXECUTE FUNCTION roll_outcome();

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

-- 'first' counts every answered call, 'first demo' those of a demo among them
CREATE FUNCTION roll_demo() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO latency_delta
    SELECT date_trunc('day', at, 'UTC'), workload, 'first demo', latency_bucket(first_byte_ms), count(*)
    FROM added WHERE demo AND status = 'ok' AND first_byte_ms IS NOT NULL GROUP BY 1, 2, 3, 4;
  RETURN NULL;
END $$;
CREATE TRIGGER call_added_demo AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_demo();

-- what is there already ---------------------------------------------------------------------------------------------------------
INSERT INTO latency_delta
  SELECT date_trunc('day', at, 'UTC'), workload, 'first demo', latency_bucket(first_byte_ms), count(*)
  FROM call WHERE demo AND status = 'ok' AND first_byte_ms IS NOT NULL GROUP BY 1, 2, 3, 4;
INSERT INTO outcome_delta
  SELECT date_trunc('day', c.at, 'UTC'), c.workload, c.demo, c.status = 'refused', sum(o.outcomes), count(*),
    count(*) FILTER (WHERE o.accepted), sum(o.value_usd)
  FROM (SELECT DISTINCT ON (call_id) call_id, accepted, coalesce(value_usd, 0) AS value_usd,
          count(*) OVER (PARTITION BY call_id) AS outcomes
        FROM outcome ORDER BY call_id, at DESC, id DESC) o
  JOIN call c ON c.id = o.call_id GROUP BY 1, 2, 3, 4;
SELECT fold_outcomes();

-- rights ------------------------------------------------------------------------------------------------------------------------
GRANT SELECT, INSERT, UPDATE, DELETE ON outcome_delta, outcome_day TO %(db)s_control;
