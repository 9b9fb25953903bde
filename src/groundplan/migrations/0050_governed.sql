-- What may be retrieved at all, besides who may read it. Search must obey this, and does so by the restrictive policy below
-- (it is ANDed with every other policy on `document`, so who rewrites `document_reader` need not repeat it):
--
--   A document is retrievable for `groundplan.workload` (a setting, as `groundplan.person`; unset: for no workload) if
--   it is not deleted, its `state` is approved, today (UTC) is within valid_from .. valid_until, no newer version of it stands
--   in `superseded_by`, and it names the workload, or none, and one of the workload's purposes, or none, is not more sensitive
--   than the workload, is not below its quality floor, and was scanned where the workload requires that (`workload_need`).
--
-- `kept_back(document, workload)` says in one word why one is not, or null where it is. With `groundplan.explain` = 'on' (set
-- within a transaction) the policy shows what the person may read though it is kept back, so that search can say
-- "a newer version exists": never quote what comes only then.
--
-- The columns of `document` are what holds for it: source, then folder, then the document itself, then decisions; `origins`
-- says for each where its value came from. `declared` is what folder and document say, `decided` what people decided.
ALTER TABLE source ADD COLUMN type text NOT NULL DEFAULT 'folder', ADD COLUMN steward text,
  ADD COLUMN state text NOT NULL DEFAULT 'approved', ADD COLUMN purposes text[], ADD COLUMN workloads text[],
  ADD COLUMN residency text[], ADD COLUMN licence text, ADD COLUMN review_days int, ADD COLUMN retain_days int,
  ADD COLUMN legal_hold boolean NOT NULL DEFAULT false, ADD COLUMN erase_days int NOT NULL DEFAULT 30,
  ADD COLUMN decided jsonb NOT NULL DEFAULT '{}', ADD COLUMN quality real,
  ADD COLUMN cursor jsonb,                      -- where the connector goes on: its own words
  ADD COLUMN progress jsonb,                    -- {"done": 120, "of": 400 or null, "at": time} of the run that goes on or went last
  ADD COLUMN health text NOT NULL DEFAULT 'unknown', ADD COLUMN health_reason text;
ALTER TABLE document ADD COLUMN state text NOT NULL DEFAULT 'approved'
    CHECK (state IN ('draft', 'approved', 'rejected', 'superseded', 'retired')),
  ADD COLUMN sensitivity text, ADD COLUMN owner text, ADD COLUMN steward text,
  ADD COLUMN purposes text[], ADD COLUMN workloads text[], ADD COLUMN residency text[], ADD COLUMN licence text,
  ADD COLUMN valid_from date, ADD COLUMN valid_until date, ADD COLUMN review_days int, ADD COLUMN retain_until date,
  ADD COLUMN legal_hold boolean NOT NULL DEFAULT false,
  ADD COLUMN quality real,                      -- 0 to 1, null: not scored yet
  ADD COLUMN scanned_at timestamptz,            -- this content was searched for personal data and secrets; null: not yet
  ADD COLUMN origins jsonb NOT NULL DEFAULT '{}', ADD COLUMN declared jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN decided jsonb NOT NULL DEFAULT '{}', ADD COLUMN media text, ADD COLUMN bytes bigint,
  ADD COLUMN content text,                      -- SHA-256 of the words alone, to know exact copies again
  ADD COLUMN sketch bytea;                      -- MinHash of the words, to know near ones again
CREATE INDEX document_content ON document (content) WHERE deleted_at IS NULL;

-- What the newest blueprint says a workload asks of the content that it is given.
CREATE TABLE workload_need (
  workload text PRIMARY KEY, purposes text[] NOT NULL DEFAULT '{}', sensitivity int NOT NULL DEFAULT 3,
  quality_floor real NOT NULL DEFAULT 0, scanned boolean NOT NULL DEFAULT false);
GRANT SELECT ON workload_need TO %(db)s_search;
GRANT SELECT, INSERT, UPDATE, DELETE ON workload_need TO %(db)s_control;

CREATE FUNCTION sensitivity_rank(level text) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE level WHEN 'public' THEN 0 WHEN 'internal' THEN 1 WHEN 'confidential' THEN 2 ELSE 3 END
$$;
-- Why a document is kept back from a workload, whoever asks; null where it is not. The policy below says the same.
CREATE FUNCTION kept_back(d document, for_workload text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN d.deleted_at IS NOT NULL THEN 'deleted'
    WHEN d.superseded_by IS NOT NULL THEN 'superseded'
    WHEN d.state <> 'approved' THEN d.state
    WHEN d.valid_from > (now() AT TIME ZONE 'UTC')::date THEN 'not_yet_valid'
    WHEN d.valid_until < (now() AT TIME ZONE 'UTC')::date THEN 'expired'
    WHEN NOT coalesce(for_workload = ANY (d.workloads), d.workloads IS NULL) THEN 'workload'
    WHEN NOT coalesce(d.purposes && (SELECT n.purposes FROM workload_need n WHERE n.workload = for_workload), d.purposes IS NULL)
      THEN 'purpose'
    WHEN sensitivity_rank(d.sensitivity) > coalesce((SELECT n.sensitivity FROM workload_need n WHERE n.workload = for_workload), 3)
      THEN 'sensitivity'
    WHEN coalesce((SELECT n.scanned FROM workload_need n WHERE n.workload = for_workload), false) AND d.scanned_at IS NULL
      THEN 'not_scanned'
    WHEN coalesce(d.quality, 0) < coalesce((SELECT n.quality_floor FROM workload_need n WHERE n.workload = for_workload), 0)
      THEN 'quality'
  END
$$;
CREATE POLICY document_governed ON document AS RESTRICTIVE FOR SELECT TO %(db)s_search USING (
  (deleted_at IS NULL AND superseded_by IS NULL AND state = 'approved'
   AND (valid_from IS NULL OR valid_from <= (now() AT TIME ZONE 'UTC')::date)
   AND (valid_until IS NULL OR valid_until >= (now() AT TIME ZONE 'UTC')::date)
   AND (workloads IS NULL OR coalesce(current_setting('groundplan.workload', true) = ANY (workloads), false))
   AND (purposes IS NULL OR coalesce(purposes && (
     SELECT n.purposes FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), false))
   AND CASE sensitivity WHEN 'public' THEN 0 WHEN 'internal' THEN 1 WHEN 'confidential' THEN 2 ELSE 3 END <= coalesce((
     SELECT n.sensitivity FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), 3)
   AND (scanned_at IS NOT NULL OR NOT coalesce((
     SELECT n.scanned FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), false))
   AND coalesce(quality, 0) >= coalesce((
     SELECT n.quality_floor FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), 0))
  OR (deleted_at IS NULL AND current_setting('groundplan.explain', true) = 'on'));

-- Documents that are there already are approved through the owner of their source, and as sensitive as it is. The owner of
-- the tables sees no row of theirs while row security is forced on it.
ALTER TABLE document NO FORCE ROW LEVEL SECURITY;
ALTER TABLE chunk NO FORCE ROW LEVEL SECURITY;
UPDATE document SET sensitivity = source.sensitivity, owner = source.owner FROM source WHERE source.name = document.source;

-- Content of the past: which version was what, when; the text itself is kept of the newest only.
CREATE TABLE document_version (
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE, version int NOT NULL, at timestamptz NOT NULL DEFAULT now(),
  title text NOT NULL, digest text NOT NULL, characters int NOT NULL, PRIMARY KEY (document_id, version));
INSERT INTO document_version (document_id, version, title, digest, characters)
  SELECT d.id, d.version, d.title, d.digest, coalesce((SELECT sum(length(c.text)) FROM chunk c WHERE c.document_id = d.id), 0)
  FROM document d WHERE d.deleted_at IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON document_version TO %(db)s_control;
ALTER TABLE document FORCE ROW LEVEL SECURITY;
ALTER TABLE chunk FORCE ROW LEVEL SECURITY;
