-- How many lines of each batch are done, told by every statement that ends some, also one of an earlier version: to count
-- fifty thousand lines for each look at a batch took longer than callers wait. Rows are only added, so that nobody who
-- ends lines waits for another one; the gateway makes one of them now and then.
CREATE TABLE batch_done (
  batch_id uuid NOT NULL, id uuid NOT NULL DEFAULT gen_random_uuid(), completed int NOT NULL, failed int NOT NULL,
  PRIMARY KEY (batch_id, id));

-- What an Idempotency-Key was used for beside calls: the batch or file that was made. For a day.
CREATE TABLE order_key (
  digest bytea PRIMARY KEY, asked bytea NOT NULL, made uuid NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX order_key_at ON order_key (at);

-- Of batches that have ended no line changes any more: these are counted before anybody has to wait.
INSERT INTO batch_done (batch_id, completed, failed)
  SELECT b.id, count(*) FILTER (WHERE l.ok), count(*) FILTER (WHERE NOT l.ok)
  FROM batch b LEFT JOIN batch_line l ON l.batch_id = b.id AND l.state = 'done'
  WHERE b.status IN ('failed', 'completed', 'expired', 'cancelled') GROUP BY 1;

SET LOCAL lock_timeout = '500ms';         -- whoever has one of these and needs another gets it before it counts as a deadlock
LOCK TABLE batch, api_file, batch_line IN ACCESS EXCLUSIVE MODE;
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
INSERT INTO batch_done (batch_id, completed, failed)
  SELECT batch_id, count(*) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok) FROM batch_line
  WHERE state = 'done'
    AND batch_id IN (SELECT b.id FROM batch b WHERE NOT EXISTS (SELECT FROM batch_done d WHERE d.batch_id = b.id))
  GROUP BY 1;

-- Those that are under way: each worker asks for them twice a second, and read all that wait.
CREATE INDEX batch_line_running ON batch_line (batch_id, state) WHERE state IN ('running', 'ordered');

-- Files may say how long they are kept, and an order how long its results are.
ALTER TABLE api_file ADD COLUMN expires_at timestamptz;
CREATE INDEX api_file_expires ON api_file (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
ALTER TABLE batch ADD COLUMN output_seconds int;
-- Whose results a file is.
CREATE INDEX batch_output ON batch (output_file) WHERE output_file IS NOT NULL;
CREATE INDEX batch_errors ON batch (error_file) WHERE error_file IS NOT NULL;

GRANT SELECT, INSERT, DELETE ON batch_done TO %(db)s_gateway;
GRANT SELECT ON batch_done, order_key TO %(db)s_control;   -- for backups, too
GRANT SELECT, INSERT, UPDATE, DELETE ON order_key TO %(db)s_gateway;
