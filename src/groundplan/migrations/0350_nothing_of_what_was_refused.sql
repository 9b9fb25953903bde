-- A call that was not accepted is worth nothing, whatever was reported of it before: what an outcome returned still counted
-- once it was taken back.
INSERT INTO outcome_delta
  SELECT date_trunc('day', c.at, 'UTC'), c.workload, c.demo, c.status = 'refused', 0, 0, 0, -sum(told.value_usd)
  FROM (SELECT DISTINCT call_id FROM outcome WHERE value_usd > 0) o
  JOIN call c ON c.id = o.call_id, LATERAL outcome_told(o.call_id, NULL) told
  WHERE told.accepted IS FALSE AND told.value_usd > 0
  GROUP BY 1, 2, 3, 4;

CREATE OR REPLACE FUNCTION roll_outcome() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
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
