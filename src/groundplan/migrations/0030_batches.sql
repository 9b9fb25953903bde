-- Files of applications, and batches of calls. A file's bytes are in HOME/files/<id> of the installation that took it.
CREATE TABLE api_file (
  id uuid PRIMARY KEY, workload text NOT NULL, key_id uuid, purpose text NOT NULL CHECK (purpose IN ('batch', 'batch_output')),
  filename text NOT NULL, bytes bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz);
CREATE INDEX api_file_workload ON api_file (workload, id DESC) WHERE deleted_at IS NULL;
CREATE TABLE batch (
  id uuid PRIMARY KEY, workload text NOT NULL, key_id uuid NOT NULL, person text NOT NULL, endpoint text NOT NULL,
  input_file uuid NOT NULL REFERENCES api_file, completion_window text NOT NULL, metadata jsonb, status text NOT NULL CHECK (
    status IN ('validating', 'failed', 'in_progress', 'completed', 'expired', 'cancelling', 'cancelled')),
  created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, in_progress_at timestamptz,
  cancelling_at timestamptz, ended_at timestamptz, errors jsonb NOT NULL DEFAULT '[]', output_file uuid REFERENCES api_file,
  error_file uuid REFERENCES api_file, total int NOT NULL DEFAULT 0, held_usd numeric(30,12) NOT NULL DEFAULT 0,
  charges jsonb NOT NULL DEFAULT '[]');     -- [[budget, period], ...] that its calls belong to, whenever they are made
CREATE INDEX batch_workload ON batch (workload, id DESC);
-- A line is `running` before it is sent, and never sent again. `held_usd`: what the batch holds for it while it is pending.
CREATE TABLE batch_line (
  batch_id uuid NOT NULL REFERENCES batch, number int NOT NULL, custom_id text NOT NULL, place bigint NOT NULL, length int NOT NULL,
  held_usd numeric(30,12) NOT NULL, state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done')),
  call_id uuid UNIQUE, epoch uuid, ok boolean, result text, PRIMARY KEY (batch_id, number), UNIQUE (batch_id, custom_id));
CREATE INDEX batch_line_open ON batch_line (batch_id, number) WHERE state <> 'done';

-- What a batch holds of its budgets is a slice like a worker's, under the batch's own id, so that the sum of all slices stays
-- within each budget. Takes `total` of every budget or nothing: NULL when taken, else the least that is left of one.
CREATE FUNCTION hold_batch(who uuid, names text[], spans text[], limits numeric[], hards boolean[], number int, total numeric)
RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE i int; have budget_period; least_left numeric;
BEGIN
  FOR i IN SELECT n FROM generate_subscripts(names, 1) n ORDER BY names[n], spans[n] LOOP
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

-- A part of what a batch holds goes to the worker that makes its next calls; without one, back to the budgets.
CREATE FUNCTION move_hold(batch uuid, worker uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine budget_slice;
BEGIN
  IF worker IS NOT NULL THEN
    PERFORM 1 FROM gateway g WHERE g.epoch = worker AND g.state = 'live' FOR SHARE;
    IF NOT FOUND THEN RAISE EXCEPTION 'the worker is fenced'; END IF;
  END IF;
  FOR mine IN SELECT * FROM budget_slice s WHERE s.epoch = batch AND NOT s.closed ORDER BY s.budget, s.period LOOP
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

GRANT SELECT, INSERT, UPDATE ON api_file, batch TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_line TO %(db)s_gateway;
GRANT SELECT (id, status) ON call TO %(db)s_gateway;
GRANT SELECT ON shipped TO %(db)s_gateway;
GRANT SELECT ON api_file, batch, batch_line TO %(db)s_control;
