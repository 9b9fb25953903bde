-- Spans of limits that ended are forgotten whoever they were of: those of keys that are never used again, such as the ones
-- of single questions, stayed for ever. Each span that begins takes at most so many along, and waits for none of them.
CREATE INDEX limit_span_ends ON limit_span (ends);

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
      SELECT o.name, o.span FROM limit_span o WHERE o.ends < now() - interval '1 hour'
      ORDER BY o.ends LIMIT 50 FOR UPDATE SKIP LOCKED);
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
