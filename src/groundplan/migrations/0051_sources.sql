-- How sources are read again, what of their documents is gone and must stay so, and how good they were when.
ALTER TABLE document ADD COLUMN token text,     -- the source's own word for this state of the document and its readers
  ADD COLUMN settled text NOT NULL DEFAULT '',  -- digest of everything that holds for it, to see at once that nothing changed
  ADD COLUMN chunked text NOT NULL DEFAULT '',  -- how it was parsed and cut
  ADD COLUMN lines int NOT NULL DEFAULT 0, ADD COLUMN notes text[] NOT NULL DEFAULT '{}',
  ADD COLUMN supersedes text[] NOT NULL DEFAULT '{}',   -- paths in its source that it replaces, as it says itself
  ADD COLUMN personal jsonb,                    -- what the scan found: {"email": 3}; null: not scanned yet
  ADD COLUMN checked jsonb;                     -- what else reading its text told: {"structure": [...], "glossary": [...]}
ALTER TABLE chunk ADD COLUMN headings text[] NOT NULL DEFAULT '{}';
CREATE INDEX chunk_unembedded ON chunk (document_id) WHERE embedding IS NULL AND text <> '';
CREATE INDEX document_unscanned ON document (source) WHERE scanned_at IS NULL AND deleted_at IS NULL;
CREATE INDEX document_newer ON document (superseded_by) WHERE superseded_by IS NOT NULL;

-- A document that was deleted by decision, not because it left its source. It does not come back by itself, whatever the
-- source says; `erased_at` is when nothing of it was left on the disk, at the latest `due`. The same lines stand in
-- HOME/tombstones.jsonl, which a restored backup is held against.
CREATE TABLE tombstone (
  id uuid PRIMARY KEY, document_id uuid NOT NULL, source text NOT NULL, path text NOT NULL, digest text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), by text NOT NULL, reason text NOT NULL, due timestamptz NOT NULL,
  erased_at timestamptz, lifted_at timestamptz, receipt uuid);
CREATE UNIQUE INDEX tombstone_standing ON tombstone (source, path) WHERE lifted_at IS NULL;
CREATE INDEX tombstone_due ON tombstone (due) WHERE erased_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON tombstone TO %(db)s_control;

-- What applications push, until and for as long as it is a document.
CREATE TABLE pushed (
  source text NOT NULL, path text NOT NULL, data bytea NOT NULL, media text NOT NULL DEFAULT '', readers text[],
  told jsonb NOT NULL DEFAULT '{}', gone boolean NOT NULL DEFAULT false, number bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (source, path));
CREATE INDEX pushed_number ON pushed (source, number);
CREATE SEQUENCE pushed_change;
GRANT SELECT, INSERT, UPDATE, DELETE ON pushed TO %(db)s_control;
GRANT USAGE ON SEQUENCE pushed_change TO %(db)s_control;

-- One line for a source and a day: its score, and what it was made of.
CREATE TABLE source_quality (
  source text NOT NULL, day date NOT NULL, score real NOT NULL, documents int NOT NULL, parts jsonb NOT NULL,
  PRIMARY KEY (source, day));
GRANT SELECT, INSERT, UPDATE, DELETE ON source_quality TO %(db)s_control;

-- "Which answers used this document" in one look.
CREATE INDEX call_sources ON call USING gin ((detail -> 'sources') jsonb_path_ops) WHERE detail -> 'sources' <> '[]';
