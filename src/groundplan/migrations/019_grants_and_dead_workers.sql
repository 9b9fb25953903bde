-- A grant no longer makes the heartbeat of its worker wait. While it is committed, which takes as long as the flush of
-- the write-ahead log, a grant holds a lock on its worker's row, so that nobody fences the worker and closes its books
-- before the grant is in them. That lock is weaker now: it conflicts with a change of `epoch` or `state`, and not with
-- one of `heartbeat_at`. Such a lock protects the columns of unique indexes, and for that alone this one exists: whoever
-- sets another state waits for grants under way.
CREATE UNIQUE INDEX gateway_state ON gateway (epoch, state);

-- As in 006, with the weaker lock.
CREATE OR REPLACE FUNCTION grant_budget(
  movement uuid, who uuid, name text, span text, most numeric, number int, hard boolean, need numeric, wanting numeric,
  headroom numeric, recall boolean, OUT amount numeric, OUT rest numeric, OUT contested boolean)
LANGUAGE plpgsql AS $$
DECLARE have budget_period;
BEGIN
  amount := 0; rest := 0; contested := false;
  PERFORM 1 FROM gateway g WHERE g.epoch = who AND g.state = 'live' FOR KEY SHARE;
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO budget_period (budget, period, limit_usd, blueprint) VALUES (name, span, most, number)
    ON CONFLICT (budget, period) DO NOTHING;
  SELECT * INTO STRICT have FROM budget_period b WHERE b.budget = name AND b.period = span FOR UPDATE;
  IF number >= have.blueprint THEN have.limit_usd := most; END IF;
  rest := have.limit_usd - have.granted_usd;
  contested := coalesce(have.wanted_at > now() - interval '2 seconds', false);
  amount := CASE WHEN hard THEN grant_size(need, wanting, rest, headroom, contested, 12)
                 ELSE greatest(need, wanting) + headroom END;
  UPDATE budget_period b SET limit_usd = have.limit_usd, blueprint = greatest(b.blueprint, number),
    granted_usd = b.granted_usd + amount, wanted_at = CASE WHEN amount = 0 AND recall THEN now() ELSE b.wanted_at END
    WHERE b.budget = name AND b.period = span;
  IF amount > 0 THEN
    INSERT INTO budget_slice AS s (epoch, budget, period, granted_usd) VALUES (who, name, span, amount)
      ON CONFLICT (epoch, budget, period) DO UPDATE SET granted_usd = s.granted_usd + EXCLUDED.granted_usd;
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (movement, who, name, span, amount, 'grant');
  ELSIF recall THEN
    PERFORM pg_notify('groundplan_recall', name || ' ' || span || ' ' || who);
  END IF;
  rest := rest - amount;
END $$;

CREATE OR REPLACE FUNCTION grant_limit(
  who uuid, wanted text, during text, most bigint, number int, until timestamptz, need bigint, wanting bigint,
  headroom bigint, recall boolean, OUT amount bigint, OUT rest bigint, OUT contested boolean)
LANGUAGE plpgsql AS $$
DECLARE have limit_span;
BEGIN
  amount := 0; rest := 0; contested := false;
  PERFORM 1 FROM gateway g WHERE g.epoch = who AND g.state = 'live' FOR KEY SHARE;
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

-- As in 011, with the weaker lock.
CREATE OR REPLACE FUNCTION move_hold(batch uuid, worker uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine budget_slice;
BEGIN
  IF worker IS NOT NULL THEN
    PERFORM 1 FROM gateway g WHERE g.epoch = worker AND g.state = 'live' FOR KEY SHARE;
    IF NOT FOUND THEN RAISE EXCEPTION 'the worker is fenced'; END IF;
  END IF;
  FOR mine IN SELECT * FROM budget_slice s WHERE s.epoch = batch AND NOT s.closed
      ORDER BY s.budget COLLATE "C", s.period COLLATE "C" LOOP
    PERFORM 1 FROM budget_period b WHERE b.budget = mine.budget AND b.period = mine.period FOR UPDATE;
    UPDATE budget_slice s SET released_usd = s.released_usd + amount
      WHERE s.epoch = batch AND s.budget = mine.budget AND s.period = mine.period;
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (gen_random_uuid(), batch, mine.budget, mine.period, amount, 'release');
    IF worker IS NULL THEN
      UPDATE budget_period b SET granted_usd = b.granted_usd - amount WHERE b.budget = mine.budget AND b.period = mine.period;
    ELSE
      INSERT INTO budget_slice AS s (epoch, budget, period, granted_usd) VALUES (worker, mine.budget, mine.period, amount)
        ON CONFLICT (epoch, budget, period) DO UPDATE SET granted_usd = s.granted_usd + EXCLUDED.granted_usd;
      INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
        VALUES (gen_random_uuid(), worker, mine.budget, mine.period, amount, 'grant');
    END IF;
  END LOOP;
END $$;

-- As in 006, but slices of windows that ended a while ago stay as they are: grants delete them an hour after the end, and
-- of a worker with many users there are tens of thousands. Calls waited for grants that waited for all of these to be
-- closed, or that this waited for in turn.
CREATE OR REPLACE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine text; held bigint;
BEGIN
  FOR mine IN SELECT s.name FROM limit_slice s WHERE s.epoch = who AND s.span = 'now' AND NOT s.closed
      ORDER BY s.name COLLATE "C" LOOP
    PERFORM 1 FROM limit_span s WHERE s.name = mine AND s.span = 'now' FOR UPDATE;
    SELECT s.granted - s.released INTO held FROM limit_slice s
      WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
    UPDATE limit_span s SET granted = s.granted - held WHERE s.name = mine AND s.span = 'now' AND held <> 0;
    DELETE FROM limit_slice s WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
  END LOOP;
  UPDATE limit_slice s SET closed = true FROM limit_span w WHERE s.epoch = who AND NOT s.closed
    AND w.name = s.name AND w.span = s.span AND w.ends > now() - interval '45 minutes';
END $$;
