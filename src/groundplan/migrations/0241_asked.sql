-- Requests that several workloads made alike, found without keeping any: of one request in eight a keyed digest is kept for
-- the day. When the day is over, what was alike is counted, and digests and key are deleted: then nobody can try guesses
-- against anything. Neither table is in a backup, nor in the write-ahead log (unlogged); a crash empties both.
CREATE UNLOGGED TABLE asked_key (day date PRIMARY KEY, key bytea NOT NULL);
CREATE UNLOGGED TABLE asked (
  id uuid PRIMARY KEY, day date NOT NULL, digest bytea NOT NULL, workload text NOT NULL, cost_usd numeric(30,12) NOT NULL);
CREATE INDEX asked_of_day ON asked (day);
-- by which workloads asked alike: how many requests, how many calls these were, what all but one of each cost, and how many
-- calls were of the workload that made fewest of each
CREATE TABLE asked_day (
  day date NOT NULL, workloads text[] NOT NULL, requests bigint NOT NULL, calls bigint NOT NULL,
  repeated_usd numeric(30,12) NOT NULL, fewest bigint NOT NULL, PRIMARY KEY (day, workloads));

-- The key of a day, made at its first use; NULL for a day that is over and counted, or is yet to come.
CREATE FUNCTION key_of_asked(of_day date) RETURNS bytea LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE today date := (now() AT TIME ZONE 'UTC')::date; found bytea;
BEGIN
  IF of_day BETWEEN today AND today + 1 THEN
    INSERT INTO asked_key VALUES (of_day, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))
      ON CONFLICT DO NOTHING;
  END IF;
  SELECT key INTO found FROM asked_key WHERE day = of_day;
  RETURN found;
END $$;

CREATE FUNCTION alike(first_day date, last_day date)
RETURNS TABLE (day date, workloads text[], requests bigint, calls bigint, repeated_usd numeric, fewest bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  WITH each AS (
    SELECT a.day, a.digest, a.workload, count(*) AS n, sum(a.cost_usd) AS cost FROM asked a
    WHERE a.day BETWEEN first_day AND last_day GROUP BY 1, 2, 3),
  same AS (
    SELECT e.day, e.digest, array_agg(e.workload ORDER BY e.workload) AS workloads, sum(e.n)::bigint AS n,
      sum(e.cost) AS cost, min(e.n) AS least
    FROM each e GROUP BY 1, 2 HAVING count(*) > 1)
  SELECT s.day, s.workloads, count(*), sum(s.n)::bigint, sum(s.cost * (s.n - 1) / s.n), sum(s.least)::bigint
  FROM same s GROUP BY 1, 2
$$;

-- Count the days that are over (ten minutes of grace for what is on its way), and forget what was asked on them.
CREATE FUNCTION fold_asked(at timestamptz) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE last date := ((at - interval '10 minutes') AT TIME ZONE 'UTC')::date - 1; n int;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 241) THEN RETURN 0; END IF;
  DELETE FROM asked_key WHERE day <= last;
  INSERT INTO asked_day AS d SELECT * FROM alike('-infinity', last)
    ON CONFLICT (day, workloads) DO UPDATE SET requests = d.requests + EXCLUDED.requests, calls = d.calls + EXCLUDED.calls,
      repeated_usd = d.repeated_usd + EXCLUDED.repeated_usd, fewest = d.fewest + EXCLUDED.fewest;
  DELETE FROM asked WHERE day <= last;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

-- rights: nobody but the owner of the schema reads a digest, and the control process reads no key -------------------------------
REVOKE ALL ON FUNCTION key_of_asked, alike, fold_asked FROM PUBLIC;
GRANT INSERT ON asked TO %(db)s_gateway;
GRANT EXECUTE ON FUNCTION key_of_asked TO %(db)s_gateway;
GRANT SELECT ON asked_day TO %(db)s_control;
GRANT EXECUTE ON FUNCTION alike, fold_asked TO %(db)s_control;
