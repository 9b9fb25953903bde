-- Lines of a batch that are ordered at a provider's own batch endpoint: one order for each deployment, sent once. What it holds
-- of its budgets is a slice under the order's own id, and what it turned out to cost is told by a journal of that id.
CREATE TABLE batch_order (
  id uuid PRIMARY KEY, batch_id uuid NOT NULL REFERENCES batch, deployment jsonb NOT NULL, blueprint int NOT NULL,
  state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'sending', 'sent', 'ended')),
  created_at timestamptz NOT NULL DEFAULT now(), next_at timestamptz NOT NULL DEFAULT now(), tries int NOT NULL DEFAULT 0,
  uploading boolean NOT NULL DEFAULT false, provider_file text, sending_at timestamptz,
  provider_batches text[] NOT NULL DEFAULT '{}',  -- more than one only where a provider took it twice
  cancelled_at timestamptz, completed int NOT NULL DEFAULT 0, failed int NOT NULL DEFAULT 0, problem text NOT NULL DEFAULT '',
  ended_at timestamptz);
CREATE INDEX batch_order_open ON batch_order (batch_id) WHERE state <> 'ended';
ALTER TABLE batch_line ADD COLUMN order_id uuid REFERENCES batch_order;
ALTER TABLE batch_line DROP CONSTRAINT batch_line_state_check;
ALTER TABLE batch_line ADD CONSTRAINT batch_line_state_check CHECK (state IN ('pending', 'running', 'ordered', 'done'));
CREATE INDEX batch_line_order ON batch_line (order_id, number) WHERE order_id IS NOT NULL;

-- A part of what a batch holds becomes the order's; nothing goes back to the budgets.
CREATE FUNCTION hold_order(batch uuid, who uuid, amount numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine budget_slice;
BEGIN
  INSERT INTO gateway (epoch, host, home, pid, state) VALUES (who, 'batch', '', 0, 'stopped') ON CONFLICT (epoch) DO NOTHING;
  FOR mine IN SELECT * FROM budget_slice s WHERE s.epoch = batch AND NOT s.closed ORDER BY s.budget, s.period LOOP
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

GRANT SELECT, INSERT, UPDATE ON batch_order TO %(db)s_gateway;
GRANT SELECT ON batch_order TO %(db)s_control;
