-- Rows of budgets and limits are locked in one order by everybody: that of the bytes of their names, as workers sort them. In the
-- order of another collation (en_US, the usual one of servers elsewhere) `a-b` comes behind `aa`, so that two of these waited for each
-- other until PostgreSQL ended one of them.
CREATE OR REPLACE FUNCTION hold_batch(who uuid, names text[], spans text[], limits numeric[], hards boolean[], number int, total numeric)
RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE i int; have budget_period; least_left numeric;
BEGIN
  FOR i IN SELECT n FROM generate_subscripts(names, 1) n ORDER BY names[n] COLLATE "C", spans[n] COLLATE "C" LOOP
    INSERT INTO budget_period (budget, period, limit_usd, blueprint) VALUES (names[i], spans[i], limits[i], number)
      ON CONFLICT (budget, period) DO NOTHING;
    SELECT * INTO STRICT have FROM budget_period b WHERE b.budget = names[i] AND b.period = spans[i] FOR UPDATE;
    IF number >= have.blueprint THEN
      have.limit_usd := limits[i];
      UPDATE budget_period b SET limit_usd = limits[i], blueprint = number WHERE b.budget = names[i] AND b.period = spans[i];
    END IF;
    IF hards[i] THEN
      least_left := least(least_left, have.limit_usd - have.granted_usd);
    END IF;
  END LOOP;
  IF least_left < total THEN RETURN least_left; END IF;
  INSERT INTO gateway (epoch, host, home, pid, state) VALUES (who, 'batch', '', 0, 'stopped') ON CONFLICT (epoch) DO NOTHING;
  FOR i IN SELECT generate_subscripts(names, 1) LOOP
    UPDATE budget_period b SET granted_usd = b.granted_usd + total WHERE b.budget = names[i] AND b.period = spans[i];
    INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (who, names[i], spans[i], total);
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (gen_random_uuid(), who, names[i], spans[i], total, 'grant');
  END LOOP;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION move_hold(batch uuid, worker uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine budget_slice;
BEGIN
  IF worker IS NOT NULL THEN
    PERFORM 1 FROM gateway g WHERE g.epoch = worker AND g.state = 'live' FOR SHARE;
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

CREATE OR REPLACE FUNCTION hold_order(batch uuid, who uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine budget_slice;
BEGIN
  INSERT INTO gateway (epoch, host, home, pid, state) VALUES (who, 'batch', '', 0, 'stopped') ON CONFLICT (epoch) DO NOTHING;
  FOR mine IN SELECT * FROM budget_slice s WHERE s.epoch = batch AND NOT s.closed
      ORDER BY s.budget COLLATE "C", s.period COLLATE "C" LOOP
    PERFORM 1 FROM budget_period b WHERE b.budget = mine.budget AND b.period = mine.period FOR UPDATE;
    UPDATE budget_slice s SET released_usd = s.released_usd + amount
      WHERE s.epoch = batch AND s.budget = mine.budget AND s.period = mine.period;
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (gen_random_uuid(), batch, mine.budget, mine.period, amount, 'release');
    INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (who, mine.budget, mine.period, amount);
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (gen_random_uuid(), who, mine.budget, mine.period, amount, 'grant');
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine text; held bigint;
BEGIN
  FOR mine IN SELECT s.name FROM limit_slice s WHERE s.epoch = who AND s.span = 'now' AND NOT s.closed
      ORDER BY s.name COLLATE "C" LOOP
    PERFORM 1 FROM limit_span s WHERE s.name = mine AND s.span = 'now' FOR UPDATE;
    SELECT s.granted - s.released INTO held FROM limit_slice s
      WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
    UPDATE limit_span s SET granted = s.granted - held WHERE s.name = mine AND s.span = 'now' AND held <> 0;
    UPDATE limit_slice s SET released = s.granted WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
  END LOOP;
  UPDATE limit_slice s SET closed = true WHERE s.epoch = who AND NOT s.closed;
END $$;
