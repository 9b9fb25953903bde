-- Files of applications, batches of calls, and orders of such calls at providers. Bytes of files are in HOME/files/<id>
-- of the installation that received them; calls of batches are in the ledger.
--
-- What a batch holds of its budgets is a slice like that of a worker, under the batch's own id, so that the sum of all
-- slices stays within each budget.

-- `upload`: a part of a file that is sent in parts. It is a file that nobody names until the whole is made, so it is
-- counted, expires and is erased like any other. A batch of Anthropic's API keeps its input as a file, too, which is
-- none of OpenAI's API.
CREATE TABLE api_file (
  id uuid PRIMARY KEY,
  workload text NOT NULL,
  key_id uuid,
  purpose text NOT NULL CHECK (purpose IN ('batch', 'batch_output', 'message_batch', 'user_data', 'vision',
    'assistants', 'upload_part')),
  filename text NOT NULL,
  bytes bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  expires_at timestamptz,
  upload uuid
);
CREATE INDEX api_file_workload ON api_file (workload, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX api_file_expires ON api_file (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX api_file_upload ON api_file (upload) WHERE upload IS NOT NULL;
CREATE INDEX api_file_deleted ON api_file (deleted_at) WHERE deleted_at IS NOT NULL AND purpose <> 'batch_output';

CREATE TABLE api_upload (
  id uuid PRIMARY KEY,
  workload text NOT NULL,
  key_id uuid NOT NULL,
  filename text NOT NULL,
  purpose text NOT NULL,
  bytes bigint NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  seconds integer,
  file uuid,
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'cancelled'))
);
CREATE INDEX api_upload_expires ON api_upload (expires_at);

-- What an Idempotency-Key was used for beside calls: the batch or file that was made. Kept for a day.
CREATE TABLE order_key (
  digest bytea PRIMARY KEY,
  asked bytea NOT NULL,
  made uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX order_key_at ON order_key (at);

CREATE TABLE batch (
  id uuid PRIMARY KEY,
  workload text NOT NULL,
  key_id uuid NOT NULL,
  person text NOT NULL,
  endpoint text NOT NULL,
  input_file uuid NOT NULL REFERENCES api_file,
  completion_window text NOT NULL,
  metadata jsonb,
  status text NOT NULL CHECK (status IN ('validating', 'failed', 'in_progress', 'completed', 'expired', 'cancelling',
    'cancelled')),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  in_progress_at timestamptz,
  cancelling_at timestamptz,
  ended_at timestamptz,
  errors jsonb NOT NULL DEFAULT '[]',
  output_file uuid REFERENCES api_file,
  error_file uuid REFERENCES api_file,
  total int NOT NULL DEFAULT 0,
  held_usd numeric(30,12) NOT NULL DEFAULT 0,
  charges jsonb NOT NULL DEFAULT '[]',  -- [[budget, period], …] that its calls belong to, whenever they are made
  cancelled int NOT NULL DEFAULT 0,  -- calls that were not made, known once it has ended; so is `expired`
  expired int NOT NULL DEFAULT 0,
  deleted_at timestamptz,
  left_usd numeric(30,12) NOT NULL DEFAULT 0,  -- what attempts of the batch cost that have left for archives
  output_seconds int,  -- how long its results are kept
  -- what the application said when it ordered the batch, to be recorded with its calls: purpose and ticket
  said jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX batch_workload ON batch (workload, id DESC);

-- Is a file still read or written by a batch? Asked as each one is deleted or downloaded.
CREATE INDEX batch_input ON batch (input_file);
CREATE INDEX batch_output ON batch (output_file) WHERE output_file IS NOT NULL;
CREATE INDEX batch_errors ON batch (error_file) WHERE error_file IS NOT NULL;

-- Lines of a batch that are ordered at a provider's own batch endpoint: one order for each deployment, sent once. Its
-- budget is a slice under the order's own id, and a journal of that id says what it cost.
CREATE TABLE batch_order (
  id uuid PRIMARY KEY,
  batch_id uuid NOT NULL REFERENCES batch,
  deployment jsonb NOT NULL,
  blueprint int NOT NULL,
  state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'sending', 'sent', 'ended')),
  created_at timestamptz NOT NULL DEFAULT now(),
  next_at timestamptz NOT NULL DEFAULT now(),
  tries int NOT NULL DEFAULT 0,
  uploading boolean NOT NULL DEFAULT false,
  provider_file text,
  sending_at timestamptz,
  provider_batches text[] NOT NULL DEFAULT '{}',  -- more than one only where a provider accepted it twice
  cancelled_at timestamptz,
  completed int NOT NULL DEFAULT 0,
  failed int NOT NULL DEFAULT 0,
  problem text NOT NULL DEFAULT '',
  ended_at timestamptz
);
CREATE INDEX batch_order_open ON batch_order (batch_id) WHERE state <> 'ended';

-- A line is `running` before it is sent, and is never sent again. `held_usd` is what the batch holds for it while it is
-- pending.
CREATE TABLE batch_line (
  batch_id uuid NOT NULL REFERENCES batch,
  number int NOT NULL,
  custom_id text NOT NULL,
  place bigint NOT NULL,
  length int NOT NULL,
  held_usd numeric(30,12) NOT NULL,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'ordered', 'done')),
  call_id uuid UNIQUE,
  epoch uuid,
  ok boolean,
  result text,
  order_id uuid REFERENCES batch_order,
  -- the most tokens of prompt and answer that an ordered call can have: a provider that counts more is found out even
  -- where the cost hides it; 0: not known
  most_input bigint NOT NULL DEFAULT 0,
  most_output bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (batch_id, number),
  UNIQUE (batch_id, custom_id)
);
CREATE INDEX batch_line_open ON batch_line (batch_id, number) WHERE state <> 'done';

-- Each worker asks twice a second for the lines that are under way, among all that wait.
CREATE INDEX batch_line_running ON batch_line (batch_id, state) WHERE state IN ('running', 'ordered');
CREATE INDEX batch_line_order ON batch_line (order_id, number) WHERE order_id IS NOT NULL;

-- How many lines of each batch are done, written by every statement that ends some: counting fifty thousand lines for
-- each look at a batch took longer than callers wait. Rows are only added, so that nobody who ends lines waits for
-- somebody else; a gateway merges them now and then.
CREATE TABLE batch_done (
  batch_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  completed int NOT NULL,
  failed int NOT NULL,
  PRIMARY KEY (batch_id, id)
);

CREATE FUNCTION count_done() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO batch_done (batch_id, completed, failed)
      SELECT a.batch_id, count(*) FILTER (WHERE a.ok), count(*) FILTER (WHERE NOT a.ok) FROM added a
      WHERE a.state = 'done' GROUP BY 1;
  ELSE
    INSERT INTO batch_done (batch_id, completed, failed)
      SELECT d.batch_id, coalesce(sum(d.n) FILTER (WHERE d.ok), 0), coalesce(sum(d.n) FILTER (WHERE NOT d.ok), 0) FROM (
        SELECT a.batch_id, a.ok, 1 AS n FROM added a WHERE a.state = 'done'
        UNION ALL SELECT g.batch_id, g.ok, -1 FROM gone g WHERE g.state = 'done') d
      GROUP BY 1 HAVING coalesce(sum(d.n) FILTER (WHERE d.ok), 0) <> 0 OR coalesce(sum(d.n) FILTER (WHERE NOT d.ok), 0) <> 0;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER batch_line_added AFTER INSERT ON batch_line REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION count_done();
CREATE TRIGGER batch_line_changed AFTER UPDATE ON batch_line REFERENCING NEW TABLE AS added OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION count_done();

-- Hold `total` of every budget for a batch, or nothing: returns NULL when held, otherwise the least that is left of one
-- of them.
CREATE FUNCTION hold_batch(who uuid, names text[], spans text[], limits numeric[], hards boolean[], number int, total numeric)
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

-- Move a part of what a batch holds to the worker that makes its next calls; without a worker, back to the budgets.
CREATE FUNCTION move_hold(batch uuid, worker uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
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

-- Move a part of what a batch holds to an order; nothing goes back to the budgets.
CREATE FUNCTION hold_order(batch uuid, who uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
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

-- Rights. Files that a person uploaded, and their names, are erased with everything else that is kept of that person.
GRANT SELECT, DELETE ON api_upload TO %(db)s_control;
GRANT SELECT ON api_file, order_key, batch, batch_order, batch_line, batch_done TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE, DELETE ON order_key, batch_line TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE ON api_file, batch, batch_order TO %(db)s_gateway;
GRANT SELECT, INSERT, DELETE ON api_upload, batch_done TO %(db)s_gateway;
GRANT UPDATE (filename, deleted_at) ON api_file TO %(db)s_control;
GRANT UPDATE (file, status) ON api_upload TO %(db)s_gateway;
