-- How many calls of a day each worker made, added up as they arrive: gateways ask five times a second what others made of
-- a workload that may only make so many, and must not count a day's calls for it.
CREATE TABLE worker_day (
  day date NOT NULL, workload text NOT NULL, epoch uuid NOT NULL, calls bigint NOT NULL, PRIMARY KEY (day, workload, epoch));
INSERT INTO worker_day
  SELECT (at AT TIME ZONE 'UTC')::date, workload, epoch, count(*) FROM call
  WHERE at >= date_trunc('day', now(), 'UTC') AND status <> 'refused'
    AND NOT starts_with(coalesce(detail ->> 'feature', ''), 'experiment/')
  GROUP BY 1, 2, 3;
GRANT SELECT ON worker_day TO %(db)s_control;

CREATE FUNCTION roll_worker_days() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO worker_day AS t
    SELECT (at AT TIME ZONE 'UTC')::date, workload, epoch, count(*) FROM added
    WHERE status <> 'refused' AND NOT starts_with(coalesce(detail ->> 'feature', ''), 'experiment/')
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (day, workload, epoch) DO UPDATE SET calls = t.calls + EXCLUDED.calls;
  RETURN NULL;
END $$;
CREATE TRIGGER call_of_worker AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_worker_days();

DROP FUNCTION calls_made(text[], timestamptz, uuid);
-- Calls of workloads that may make only so many a day, of all workers but one; those of experiments are beside.
CREATE FUNCTION calls_made(which text[], on_day date, but uuid) RETURNS TABLE (workload text, calls bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT w.workload, sum(w.calls)::bigint FROM worker_day w
  WHERE w.day = on_day AND w.workload = ANY(which) AND w.epoch <> but GROUP BY w.workload
$$;
-- The people for whom calls of workloads were made in the last days, refused ones aside.
CREATE FUNCTION people_seen(which text[], days int) RETURNS TABLE (workload text, person uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT p.workload, p.person FROM (
    SELECT d.workload, d.person, d.hour FROM person_day d UNION ALL SELECT d.workload, d.person, d.hour FROM person_delta d) p
  WHERE p.workload = ANY(which) AND p.hour >= date_trunc('day', now() - make_interval(days => days), 'UTC')
    AND p.person <> '00000000-0000-0000-0000-000000000000'
  GROUP BY 1, 2
$$;
REVOKE ALL ON FUNCTION calls_made(text[], date, uuid), people_seen(text[], int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION calls_made(text[], date, uuid), people_seen(text[], int) TO %(db)s_gateway;
