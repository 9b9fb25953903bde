-- Facts that are older than the hot window are kept as Parquet files; their rows go, sums and receipts of outcomes stay.
CREATE TABLE archived_day (
  day date PRIMARY KEY, url text NOT NULL, calls bigint NOT NULL, attempts bigint NOT NULL, charges bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL, sha256 text NOT NULL, at timestamptz NOT NULL DEFAULT now());
GRANT SELECT, INSERT ON archived_day TO %(db)s_control;

-- Deletes the facts of one day that was archived just as they are: other numbers than were written are refused.
CREATE FUNCTION drop_archived(which date) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE kept archived_day; n_calls bigint; n_attempts bigint; n_charges bigint;
  first timestamptz := which::timestamp AT TIME ZONE 'UTC'; last timestamptz := (which + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
  SELECT * INTO STRICT kept FROM archived_day d WHERE d.day = which;
  DELETE FROM charge c USING attempt a
    WHERE c.call_id = a.call_id AND c.attempt = a.number AND a.at >= first AND a.at < last AND a.state <> 'open';
  GET DIAGNOSTICS n_charges = ROW_COUNT;
  DELETE FROM attempt a WHERE a.at >= first AND a.at < last AND a.state <> 'open';
  GET DIAGNOSTICS n_attempts = ROW_COUNT;
  DELETE FROM call c WHERE c.at >= first AND c.at < last;
  GET DIAGNOSTICS n_calls = ROW_COUNT;
  IF (n_calls, n_attempts, n_charges) IS DISTINCT FROM (kept.calls, kept.attempts, kept.charges) THEN
    RAISE EXCEPTION 'facts of %% changed since they were archived', which USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN n_calls;
END $$;
REVOKE ALL ON FUNCTION drop_archived(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_archived(date) TO %(db)s_control;
