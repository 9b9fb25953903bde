-- When each attempt connected and first answered, in milliseconds since it began; when it began, since its call did.
ALTER TABLE attempt ADD COLUMN started_ms double precision, ADD COLUMN connect_ms double precision,
  ADD COLUMN first_byte_ms double precision;

-- Calls in the order in which they arrive here: what a live tail follows. Rows are only ever added, so this index is tiny.
ALTER TABLE call ADD COLUMN shipped_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX call_shipped ON call USING brin (shipped_at) WITH (pages_per_range = 16, autosummarize = on);

-- How a worker sees each deployment, with its heartbeat: {"deployment": "open"}; what is not named is closed.
ALTER TABLE gateway ADD COLUMN health jsonb NOT NULL DEFAULT '{}';

-- Prompts and answers of workloads that say so, sealed under the key of whom they are about; gone after their time.
CREATE TABLE content (
  call_id uuid PRIMARY KEY, at timestamptz NOT NULL, workload text NOT NULL, kind text NOT NULL CHECK (kind IN ('redacted', 'full')),
  expires_at timestamptz NOT NULL, sealed text NOT NULL, found jsonb NOT NULL DEFAULT '{}', cut boolean NOT NULL DEFAULT false);
CREATE INDEX content_expires ON content (expires_at);
CREATE INDEX content_workload ON content (workload, at);
GRANT INSERT, SELECT (call_id) ON content TO %(db)s_shipper;
GRANT SELECT, DELETE ON content TO %(db)s_control;
