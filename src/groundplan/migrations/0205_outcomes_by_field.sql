-- Of several outcomes of one call, each field counts as the newest one that says it: a thumb that names no value leaves the
-- value that the ticket system reported, and a value that comes later does not take acceptance back.
CREATE FUNCTION outcome_told(of_call uuid, without uuid, OUT accepted boolean, OUT value_usd numeric, OUT n bigint)
LANGUAGE sql STABLE SET search_path = public AS $$
  SELECT (array_agg(o.accepted ORDER BY o.at DESC, o.id DESC) FILTER (WHERE o.accepted IS NOT NULL))[1],
    (array_agg(o.value_usd ORDER BY o.at DESC, o.id DESC) FILTER (WHERE o.value_usd IS NOT NULL))[1], count(*)
  FROM outcome o WHERE o.call_id = of_call AND o.id IS DISTINCT FROM without
$$;

-- what was added up by the newest outcome alone; calls that are archived keep it
INSERT INTO outcome_delta
  SELECT date_trunc('day', c.at, 'UTC'), c.workload, c.demo, c.status = 'refused', 0, 0,
    sum((told.accepted IS TRUE)::int - (last.accepted IS TRUE)::int),
    sum(coalesce(told.value_usd, 0) - coalesce(last.value_usd, 0))
  FROM (SELECT DISTINCT ON (call_id) call_id, accepted, value_usd FROM outcome ORDER BY call_id, at DESC, id DESC) last
  JOIN call c ON c.id = last.call_id, LATERAL outcome_told(last.call_id, NULL) told
  WHERE told.accepted IS DISTINCT FROM last.accepted OR told.value_usd IS DISTINCT FROM last.value_usd
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
    coalesce(now_told.value_usd, 0) - coalesce(before.value_usd, 0));
  RETURN NULL;
END $$;
