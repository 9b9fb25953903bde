-- budgets: one statement for a grant ---------------------------------------------------------------------------------------
-- `blueprint` is the number of the newest blueprint that set the limit: an older worker does not bring an old limit back.
ALTER TABLE budget_period ADD COLUMN blueprint int NOT NULL DEFAULT 0;
CREATE INDEX attempt_unsettled ON attempt (state) WHERE state IN ('open', 'crashed');

-- How much to take of the rest of a limit: enough for those who wait, and some for those who come next. `need` is the
-- least that helps anybody, `wanting` what all who wait lack, `headroom` what the next second may need. Nothing is taken
-- that helps nobody; what is contested is taken to measure; else at most an eighth of the rest is taken ahead.
CREATE FUNCTION grant_size(need numeric, wanting numeric, rest numeric, headroom numeric, contested boolean, digits int)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN rest < need OR rest <= 0 THEN 0
    ELSE least(rest, greatest(need, wanting)
      + CASE WHEN contested THEN 0 ELSE greatest(0, least(trunc(rest / 8, digits), headroom)) END) END
$$;

-- The worker `who` takes what it needs of a budget, or calls the others' idle slices back (`recall`). A budget that is not
-- `hard` is granted beyond its limit. Returns what was taken, what is left after it, and whether others want it too.
CREATE FUNCTION grant_budget(
  movement uuid, who uuid, name text, span text, most numeric, number int, hard boolean, need numeric, wanting numeric,
  headroom numeric, recall boolean, OUT amount numeric, OUT rest numeric, OUT contested boolean)
LANGUAGE plpgsql AS $$
DECLARE have budget_period;
BEGIN
  amount := 0; rest := 0; contested := false;
  PERFORM 1 FROM gateway g WHERE g.epoch = who AND g.state = 'live' FOR SHARE;
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

-- Whoever was refused hears at once when there is room again: something was given back, or the limit was raised.
CREATE FUNCTION tell_freed_budget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('groundplan_freed', NEW.budget || ' ' || NEW.period);
  RETURN NULL;
END $$;
CREATE TRIGGER budget_freed AFTER UPDATE OF granted_usd, limit_usd ON budget_period FOR EACH ROW
  WHEN (NEW.limit_usd - NEW.granted_usd > OLD.limit_usd - OLD.granted_usd AND NEW.wanted_at > now() - interval '5 seconds')
  EXECUTE FUNCTION tell_freed_budget();

-- limits: the same for requests, tokens and concurrent calls ------------------------------------------------------------------
-- span: a UTC time such as 2026-11-25T14:33, or 'now' for concurrent calls. granted = live slices + what was used of them.
CREATE TABLE limit_span (
  name text NOT NULL, span text NOT NULL, amount bigint NOT NULL CHECK (amount >= 0),
  granted bigint NOT NULL DEFAULT 0 CHECK (granted >= 0), blueprint int NOT NULL DEFAULT 0, ends timestamptz NOT NULL,
  wanted_at timestamptz, PRIMARY KEY (name, span));
CREATE TABLE limit_slice (
  epoch uuid NOT NULL REFERENCES gateway, name text NOT NULL, span text NOT NULL, granted bigint NOT NULL DEFAULT 0,
  released bigint NOT NULL DEFAULT 0, closed boolean NOT NULL DEFAULT false, CHECK (released <= granted),
  PRIMARY KEY (epoch, name, span), FOREIGN KEY (name, span) REFERENCES limit_span ON DELETE CASCADE);
CREATE INDEX limit_slice_span ON limit_slice (name, span);

-- As grant_budget. Spans that ended an hour ago are forgotten, and nothing is granted of one that ended long before.
CREATE FUNCTION grant_limit(
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
  IF FOUND THEN DELETE FROM limit_span s WHERE s.name = wanted AND s.ends < now() - interval '1 hour'; END IF;
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

-- `total`: all that the worker ever gave back of it, so that it may be told twice.
CREATE FUNCTION return_limit(who uuid, given text, during text, total bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE before bigint;
BEGIN
  PERFORM 1 FROM limit_span s WHERE s.name = given AND s.span = during FOR UPDATE;
  SELECT s.released INTO before FROM limit_slice s
    WHERE s.epoch = who AND s.name = given AND s.span = during AND NOT s.closed;
  IF before < total THEN
    UPDATE limit_slice s SET released = total WHERE s.epoch = who AND s.name = given AND s.span = during;
    UPDATE limit_span s SET granted = s.granted - (total - before) WHERE s.name = given AND s.span = during;
  END IF;
END $$;

-- A worker is dead and fenced: its concurrent calls are over; what it held of a window counts as used until that ends.
CREATE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine limit_slice;
BEGIN
  FOR mine IN SELECT * FROM limit_slice s WHERE s.epoch = who AND NOT s.closed ORDER BY s.name, s.span LOOP
    PERFORM 1 FROM limit_span s WHERE s.name = mine.name AND s.span = mine.span FOR UPDATE;
    IF mine.span = 'now' THEN
      UPDATE limit_span s SET granted = s.granted - (mine.granted - mine.released)
        WHERE s.name = mine.name AND s.span = mine.span;
      UPDATE limit_slice s SET released = s.granted WHERE s.epoch = who AND s.name = mine.name AND s.span = mine.span;
    END IF;
    UPDATE limit_slice s SET closed = true WHERE s.epoch = who AND s.name = mine.name AND s.span = mine.span;
  END LOOP;
END $$;

CREATE FUNCTION tell_freed_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('groundplan_freed', NEW.name || ' ' || NEW.span);
  RETURN NULL;
END $$;
CREATE TRIGGER limit_freed AFTER UPDATE OF granted, amount ON limit_span FOR EACH ROW
  WHEN (NEW.amount - NEW.granted > OLD.amount - OLD.granted AND NEW.wanted_at > now() - interval '5 seconds')
  EXECUTE FUNCTION tell_freed_limit();

GRANT SELECT, INSERT, UPDATE, DELETE ON limit_span, limit_slice TO %(db)s_gateway, %(db)s_control;
GRANT SELECT, UPDATE ON limit_span, limit_slice TO %(db)s_shipper;

-- keys: what one may do, what it may spend, and which key it took the place of ------------------------------------------------
-- family: the first of a line of rotated keys, whose budget and limits the others go on with.
ALTER TABLE api_key ADD COLUMN family uuid, ADD COLUMN replaced_by uuid REFERENCES api_key, ADD COLUMN tags text[] NOT NULL DEFAULT '{}',
  ADD COLUMN networks text[] NOT NULL DEFAULT '{}', ADD COLUMN models text[] NOT NULL DEFAULT '{}',
  ADD COLUMN budget_usd numeric(30,12) CHECK (budget_usd >= 0), ADD COLUMN budget_period text,
  ADD CHECK ((budget_usd IS NULL) = (budget_period IS NULL));

-- an attempt that cost more than its bound stops its workload: the shipper, which sees it, throws the kill switch --------------
GRANT SELECT, INSERT ON kill_switch, policy_change TO %(db)s_shipper;
GRANT SELECT, UPDATE ON policy_epoch TO %(db)s_shipper;

-- whether a period such as 2026-11-23..2026-11-30 or 2026-11-24T23:00..2026-11-25T23:00 (UTC) is the one of a moment
CREATE FUNCTION is_current_span(period text, at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN period LIKE '____-__-__%%..____-__-__%%'
    THEN (split_part(period, '..', 1)::timestamp AT TIME ZONE 'UTC') <= at
     AND at < (split_part(period, '..', 2)::timestamp AT TIME ZONE 'UTC')
    ELSE false END
$$;
