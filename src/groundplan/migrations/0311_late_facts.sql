-- A fact of a day that was archived already, such as of a gateway that was cut off for weeks, leaves in a further part.
ALTER TABLE archived_day ADD COLUMN part integer NOT NULL DEFAULT 0 CHECK (part >= 0);
ALTER TABLE archived_day DROP CONSTRAINT archived_day_pkey;
ALTER TABLE archived_day ADD PRIMARY KEY (day, part);

-- Deletes the facts of one day that were archived just as they are: other numbers than were written are refused.
DROP FUNCTION drop_archived(date);
CREATE FUNCTION drop_archived(which date, nth integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
DECLARE kept archived_day; n_calls bigint; n_attempts bigint; n_charges bigint;
  first timestamptz := which::timestamp AT TIME ZONE 'UTC'; last timestamptz := (which + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
  SELECT * INTO STRICT kept FROM archived_day d WHERE d.day = which AND d.part = nth;
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
REVOKE ALL ON FUNCTION drop_archived(date, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_archived(date, integer) TO %(db)s_control;
