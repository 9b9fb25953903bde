-- A window of a limit is kept for two more of its kind: forgotten an hour after its end by PostgreSQL's clock, a day was granted
-- anew once a clock that was a day ahead for a moment was right again. Each window that begins takes along some of each kind.
DROP INDEX limit_span_ends;
CREATE INDEX limit_span_ends ON limit_span (length(span), ends);

CREATE OR REPLACE FUNCTION grant_limit(
  who uuid, wanted text, during text, most bigint, number int, until timestamptz, need bigint, wanting bigint,
  headroom bigint, recall boolean, OUT amount bigint, OUT rest bigint, OUT contested boolean)
LANGUAGE plpgsql AS $$
DECLARE have limit_span;
BEGIN
  amount := 0; rest := 0; contested := false;
  PERFORM 1 FROM gateway g WHERE g.epoch = who AND g.state = 'live' FOR SHARE;
  IF NOT FOUND OR until < now() - interval '30 minutes' THEN RETURN; END IF;
  INSERT INTO limit_span (name, span, amount, blueprint, ends) VALUES (wanted, during, most, number, until)
    ON CONFLICT (name, span) DO NOTHING;
  IF FOUND THEN
    DELETE FROM limit_span s WHERE (s.name, s.span) IN (
      SELECT o.name, o.span FROM (VALUES (16, interval '1 hour'), (13, interval '3 hours'), (10, interval '2 days'),
        (7, interval '2 months')) AS kind (letters, kept),
      LATERAL (SELECT w.name, w.span FROM limit_span w WHERE length(w.span) = letters AND w.ends < now() - kept
               ORDER BY w.ends LIMIT 50 FOR UPDATE SKIP LOCKED) AS o);
  END IF;
  SELECT * INTO STRICT have FROM limit_span s WHERE s.name = wanted AND s.span = during FOR UPDATE;
  IF number >= have.blueprint THEN have.amount := most; END IF;
  rest := have.amount - have.granted;
  contested := coalesce(have.wanted_at > now() - interval '2 seconds', false);
  amount := grant_size(need, wanting, rest, headroom, contested, 0);
  UPDATE limit_span s SET amount = have.amount, blueprint = greatest(s.blueprint, number),
    granted = s.granted + grant_limit.amount,
    wanted_at = CASE WHEN grant_limit.amount = 0 AND recall THEN now() ELSE s.wanted_at END
    WHERE s.name = wanted AND s.span = during;
  IF amount > 0 THEN
    INSERT INTO limit_slice AS s (epoch, name, span, granted) VALUES (who, wanted, during, grant_limit.amount)
      ON CONFLICT (epoch, name, span) DO UPDATE SET granted = s.granted + EXCLUDED.granted;
  ELSIF recall THEN
    PERFORM pg_notify('groundplan_recall', wanted || ' ' || during || ' ' || who);
  END IF;
  rest := rest - amount;
END $$;

-- What an application said of a batch as it ordered it, which its calls are told with: what it is for, and its ticket.
ALTER TABLE batch ADD COLUMN said jsonb NOT NULL DEFAULT '{}';

-- Since when somebody sends what is new in the log to the SIEM, without keeping its row meanwhile.
ALTER TABLE siem_position ADD COLUMN claimed_at timestamptz;
