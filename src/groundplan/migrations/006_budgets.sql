-- Budgets and limits: how much of each is granted to which worker. A worker takes a slice and admits calls from that
-- alone, so the sum of all slices never exceeds a budget. What calls really cost is in the ledger (007) and its sums
-- (008).
--
-- Rows of budgets and limits are locked in one order by everybody: by the bytes of their names (COLLATE "C"), as
-- workers sort them. In the order of another collation, such as en_US, `a-b` comes after `aa`, and two transactions
-- would wait for each other until PostgreSQL ended one.

-- granted = slices of live workers + what was spent of closed ones; never more than the limit of a hard budget.
-- `blueprint` is the number of the newest blueprint that set the limit, so an older worker does not bring back an old
-- limit.
CREATE TABLE budget_period (
  budget text NOT NULL,
  period text NOT NULL,
  limit_usd numeric(30,12) NOT NULL CHECK (limit_usd >= 0),
  granted_usd numeric(30,12) NOT NULL DEFAULT 0 CHECK (granted_usd >= 0),
  wanted_at timestamptz,
  blueprint int NOT NULL DEFAULT 0,
  -- a budget without periods whose key or experiment has ended for good; pages list the others
  ended boolean NOT NULL DEFAULT false,
  PRIMARY KEY (budget, period)
);

-- Budgets are shown by their current periods, among all periods that ever were.
CREATE INDEX budget_period_period ON budget_period (period);
CREATE INDEX budget_period_going ON budget_period (period) WHERE NOT ended;

CREATE TABLE budget_slice (
  epoch uuid NOT NULL REFERENCES gateway,
  budget text NOT NULL,
  period text NOT NULL,
  granted_usd numeric(30,12) NOT NULL DEFAULT 0,
  released_usd numeric(30,12) NOT NULL DEFAULT 0,
  closed boolean NOT NULL DEFAULT false,
  -- held by open calls of the worker, reported while another one is short of this budget: a caller refused for them is
  -- not told to come back when the period ends
  open_usd numeric(30,12) NOT NULL DEFAULT 0,
  open_at timestamptz,
  CHECK (released_usd <= granted_usd),
  PRIMARY KEY (epoch, budget, period),
  FOREIGN KEY (budget, period) REFERENCES budget_period
);
CREATE INDEX budget_slice_open ON budget_slice (budget, period) WHERE open_at IS NOT NULL;
CREATE INDEX budget_slice_period ON budget_slice (epoch, period);

-- Each grant and each release, once, by the id that its holder gave it.
CREATE TABLE budget_movement (
  id uuid PRIMARY KEY,
  epoch uuid NOT NULL,
  budget text NOT NULL,
  period text NOT NULL,
  amount_usd numeric(30,12) NOT NULL,
  type text NOT NULL CHECK (type IN ('grant', 'release', 'recovered')),
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX budget_movement_at ON budget_movement USING brin (at) WITH (autosummarize = true);

-- How much to take of what is left of a limit: enough for those who wait, and some for those who come next. `need` is
-- the least that helps anybody, `wanting` what all who wait lack, `headroom` what the next second may need. Nothing is
-- taken where it would help nobody; what is contested is taken exactly as needed; otherwise at most an eighth of the
-- rest is taken ahead.
CREATE FUNCTION grant_size(need numeric, wanting numeric, rest numeric, headroom numeric, contested boolean, digits int)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN rest < need OR rest <= 0 THEN 0
    ELSE least(rest, greatest(need, wanting)
      + CASE WHEN contested THEN 0 ELSE greatest(0, least(trunc(rest / 8, digits), headroom)) END) END
$$;

-- Grant the worker `who` a part of a budget, or ask the others for their idle slices (`recall`). A budget that is not
-- `hard` is granted beyond its limit. Returns what was granted, what is left after it, and whether others want it, too.
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

-- Callers that were refused are told at once when there is room again: after a release, or when the limit was raised.
CREATE FUNCTION tell_freed_budget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('groundplan_freed', NEW.budget || ' ' || NEW.period);
  RETURN NULL;
END $$;
CREATE TRIGGER budget_freed AFTER UPDATE OF granted_usd, limit_usd ON budget_period FOR EACH ROW
  WHEN (NEW.limit_usd - NEW.granted_usd > OLD.limit_usd - OLD.granted_usd AND NEW.wanted_at > now() - interval '5 seconds')
  EXECUTE FUNCTION tell_freed_budget();

-- The same for limits on requests, tokens and concurrent calls. `span` is a UTC time such as 2026-11-25T14:33, or 'now'
-- for concurrent calls. granted = slices of live workers + what was used.
CREATE TABLE limit_span (
  name text NOT NULL,
  span text NOT NULL,
  amount bigint NOT NULL CHECK (amount >= 0),
  granted bigint NOT NULL DEFAULT 0 CHECK (granted >= 0),
  blueprint int NOT NULL DEFAULT 0,
  ends timestamptz NOT NULL,
  wanted_at timestamptz,
  PRIMARY KEY (name, span)
);
CREATE INDEX limit_span_ends ON limit_span (length(span), ends);

CREATE TABLE limit_slice (
  epoch uuid NOT NULL REFERENCES gateway,
  name text NOT NULL,
  span text NOT NULL,
  granted bigint NOT NULL DEFAULT 0,
  released bigint NOT NULL DEFAULT 0,
  closed boolean NOT NULL DEFAULT false,
  CHECK (released <= granted),
  PRIMARY KEY (epoch, name, span),
  FOREIGN KEY (name, span) REFERENCES limit_span ON DELETE CASCADE
);
CREATE INDEX limit_slice_span ON limit_slice (name, span);

-- Like grant_budget. Spans that ended long ago are deleted, whichever key they are of, also one that is never used
-- again: each new span takes at most fifty of each kind along, and waits for no lock on them. Each is kept for two more
-- of its kind: deleted an hour after its end by PostgreSQL's clock, a day was granted anew when a clock that had been a
-- day ahead for a moment was right again. Nothing is granted of a span that ended more than half an hour ago.
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

-- `total` is all that the worker ever gave back of this span, so that the same message may arrive twice.
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

-- Close what a worker that is dead and fenced held. Windows count as used until they end: their slices are closed at
-- once, without locking the spans that others are being granted of. Concurrent calls are given back, one limit after
-- the other, and their slices are deleted, since no window of theirs ever ends. What is still held of a limit is read
-- only after its span is locked: the worker's last message may still be on its way, and would be given back twice.
CREATE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
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
  UPDATE limit_slice s SET closed = true WHERE s.epoch = who AND NOT s.closed;
END $$;

CREATE FUNCTION tell_freed_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('groundplan_freed', NEW.name || ' ' || NEW.span);
  RETURN NULL;
END $$;
CREATE TRIGGER limit_freed AFTER UPDATE OF granted, amount ON limit_span FOR EACH ROW
  WHEN (NEW.amount - NEW.granted > OLD.amount - OLD.granted AND NEW.wanted_at > now() - interval '5 seconds')
  EXECUTE FUNCTION tell_freed_limit();

-- Whether a period such as 2026-11-23..2026-11-30 or 2026-11-24T23:00..2026-11-25T23:00 (UTC) includes a moment.
CREATE FUNCTION is_current_span(period text, at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN period LIKE '____-__-__%%..____-__-__%%'
    THEN (split_part(period, '..', 1)::timestamp AT TIME ZONE 'UTC') <= at
     AND at < (split_part(period, '..', 2)::timestamp AT TIME ZONE 'UTC')
    ELSE false END
$$;

-- Rows that nothing follows from any more are deleted: all of these tables would grow for ever.
--
-- Deletes some of what is older than `before` of workers whose journals were shipped whole and whose slices are closed:
-- movements, slices of periods that are over (`over`), lines of batches whose facts are archived, counts of worker
-- days, charges of archived facts, and last the worker's own row. Returns how many rows.
CREATE FUNCTION forget_settled(before timestamptz, over text[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE n bigint; gone bigint := 0; settled uuid[];
BEGIN
  SELECT array_agg(g.epoch) INTO settled FROM gateway g LEFT JOIN shipped h USING (epoch)
    WHERE g.state <> 'live' AND g.heartbeat_at < before AND coalesce(h.done, g.host = 'batch')
      AND NOT EXISTS (SELECT FROM budget_slice s WHERE s.epoch = g.epoch AND NOT s.closed);
  -- a journal that came later than its worker went told of movements then
  DELETE FROM budget_movement m WHERE m.ctid = ANY(ARRAY(
    SELECT o.ctid FROM budget_movement o WHERE o.at < before
      AND (o.epoch = ANY(settled) OR NOT EXISTS (SELECT FROM gateway g WHERE g.epoch = o.epoch)) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM budget_slice s WHERE s.ctid = ANY(ARRAY(
    SELECT o.ctid FROM unnest(settled) e (epoch) JOIN budget_slice o USING (epoch) WHERE o.period = ANY(over) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM batch_line l WHERE l.ctid = ANY(ARRAY(
    SELECT o.ctid FROM batch b JOIN batch_line o ON o.batch_id = b.id
    WHERE b.ended_at < before AND b.ended_at < (SELECT max(d.day) FROM archived_day d) AND b.id = ANY(settled)
      AND NOT EXISTS (SELECT FROM attempt a WHERE a.call_id = o.call_id) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM worker_day w WHERE w.ctid = ANY(ARRAY(
    SELECT o.ctid FROM worker_day o WHERE o.day < (before AT TIME ZONE 'UTC')::date LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM archived_charge c WHERE c.ctid = ANY(ARRAY(
    SELECT o.ctid FROM archived_charge o JOIN shipped h USING (epoch) WHERE h.done LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  -- last, once nothing else of them is left that goes by their rows
  SELECT array_agg(e.epoch) INTO settled FROM (
    SELECT s.epoch FROM unnest(settled) s (epoch)
    WHERE NOT EXISTS (SELECT FROM budget_slice o WHERE o.epoch = s.epoch)
      AND NOT EXISTS (SELECT FROM limit_slice o WHERE o.epoch = s.epoch)
      AND NOT EXISTS (SELECT FROM batch_line o WHERE o.batch_id = s.epoch) LIMIT 10000) e;
  DELETE FROM lost_worker l WHERE l.epoch = ANY(settled);
  DELETE FROM gateway g WHERE g.epoch = ANY(settled);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN gone + n;
END $$;

-- Whether a budget without periods was that of a key (with all keys that it was rotated to) or of an experiment that
-- ended before `before`.
CREATE FUNCTION has_ended_for_good(of_budget text, before timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = public, pg_temp AS $$
DECLARE whose uuid;
BEGIN
  IF of_budget !~ '^(key|experiment)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN RETURN false; END IF;
  whose := split_part(of_budget, '/', 2)::uuid;
  IF of_budget LIKE 'experiment/%%' THEN
    RETURN EXISTS (SELECT FROM experiment e WHERE e.id = whose AND e.state = 'ended' AND e.ended_at < before);
  END IF;
  RETURN EXISTS (SELECT FROM api_key k WHERE k.id = whose AND least(k.revoked_at, k.expires_at) < before)
    AND NOT EXISTS (SELECT FROM api_key k WHERE k.family = whose AND coalesce(least(k.revoked_at, k.expires_at) >= before, true));
END $$;

-- Deletes some of what such budgets and deleted files left behind, and returns how many rows. What was granted of such
-- a budget and charged to it stays.
CREATE FUNCTION forget_ended(before timestamptz) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE n bigint; gone bigint := 0;
BEGIN
  DELETE FROM budget_slice s WHERE s.ctid = ANY(ARRAY(
    SELECT o.ctid FROM gateway g LEFT JOIN shipped h USING (epoch) JOIN budget_slice o USING (epoch)
    WHERE g.state <> 'live' AND g.heartbeat_at < before AND coalesce(h.done, g.host = 'batch')
      AND NOT EXISTS (SELECT FROM budget_slice c WHERE c.epoch = g.epoch AND NOT c.closed)
      AND o.period = 'total' AND has_ended_for_good(o.budget, before) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  UPDATE budget_period p SET ended = true WHERE (p.budget, p.period) IN (
    SELECT o.budget, o.period FROM budget_period o
      JOIN api_key k ON o.budget = 'key/' || k.id AND least(k.revoked_at, k.expires_at) < before
    WHERE o.period = 'total' AND NOT o.ended AND has_ended_for_good(o.budget, before) LIMIT 10000);
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM api_file f WHERE f.ctid = ANY(ARRAY(
    SELECT o.ctid FROM api_file o WHERE o.deleted_at < before AND o.deleted_at IS NOT NULL AND o.purpose <> 'batch_output'
      AND NOT EXISTS (SELECT FROM batch b WHERE b.input_file = o.id)
      AND NOT EXISTS (SELECT FROM batch b WHERE b.output_file = o.id)
      AND NOT EXISTS (SELECT FROM batch b WHERE b.error_file = o.id) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN gone + n;
END $$;

-- Rights
GRANT SELECT, INSERT, UPDATE, DELETE ON budget_period, budget_slice TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE, DELETE ON limit_span, limit_slice TO %(db)s_control, %(db)s_gateway;
GRANT SELECT, INSERT ON budget_movement TO %(db)s_control, %(db)s_gateway, %(db)s_shipper;
GRANT SELECT, INSERT, UPDATE ON budget_period, budget_slice TO %(db)s_gateway, %(db)s_shipper;
GRANT SELECT, UPDATE, DELETE ON limit_slice TO %(db)s_shipper;
GRANT SELECT, UPDATE ON limit_span TO %(db)s_shipper;
REVOKE ALL ON FUNCTION forget_settled, forget_ended FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_settled, forget_ended TO %(db)s_control;
