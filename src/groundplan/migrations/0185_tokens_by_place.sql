-- Tokens of answers by where they were made, of each person and on each document: what own hardware costs is told by the
-- tokens that were made on it, not by what the same people's calls cost elsewhere. Kept as it arrives (0080).
CREATE TABLE person_place_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, person uuid NOT NULL, deployment text NOT NULL, site text NOT NULL,
  calls bigint NOT NULL, tokens numeric NOT NULL);
CREATE TABLE person_place_day (LIKE person_place_delta, PRIMARY KEY (hour, deployment, site, workload, person));
CREATE TABLE person_place_month (LIKE person_place_delta, PRIMARY KEY (hour, deployment, site, workload, person));
-- in equal shares on the documents whose passages a call was given; '' without any
CREATE TABLE document_place_delta (
  hour timestamptz NOT NULL, workload text NOT NULL, document text NOT NULL, deployment text NOT NULL, site text NOT NULL,
  calls bigint NOT NULL, tokens numeric NOT NULL);
CREATE TABLE document_place_day (LIKE document_place_delta, PRIMARY KEY (hour, deployment, site, workload, document));
CREATE TABLE document_place_month (LIKE document_place_delta, PRIMARY KEY (hour, deployment, site, workload, document));

CREATE FUNCTION roll_places() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO person_place_delta
    SELECT date_trunc('day', at, 'UTC'), workload, coalesce(person_id, '00000000-0000-0000-0000-000000000000'), deployment,
      coalesce(site, ''), count(*), sum(prompt_tokens + completion_tokens)
    FROM added WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5;
  INSERT INTO document_place_delta
    SELECT date_trunc('day', at, 'UTC'), workload, '', deployment, coalesce(site, ''), count(*),
      sum(prompt_tokens + completion_tokens)
    FROM added WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
      AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) = 0 GROUP BY 1, 2, 4, 5
    UNION ALL
    SELECT date_trunc('day', at, 'UTC'), workload, s.document, deployment, coalesce(site, ''), count(*),
      sum(s.share) * 1e12
    FROM added, LATERAL document_shares((prompt_tokens + completion_tokens) * 1e-12, detail -> 'sources') s
    WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
      AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) > 0 GROUP BY 1, 2, 3, 4, 5;
  RETURN NULL;
END $$;
CREATE TRIGGER call_added_places AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_places();

CREATE FUNCTION fold_places() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE folded bigint := 0; n bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 5) THEN RETURN 0; END IF;
  WITH gone AS (DELETE FROM person_place_delta RETURNING *),
  days AS (
    INSERT INTO person_place_day AS t
      SELECT hour, workload, person, deployment, site, sum(calls), sum(tokens) FROM gone GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, person)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1),
  months AS (
    INSERT INTO person_place_month AS t
      SELECT date_trunc('month', hour, 'UTC'), workload, person, deployment, site, sum(calls), sum(tokens) FROM gone
      GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, person)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  folded := folded + n;
  WITH gone AS (DELETE FROM document_place_delta RETURNING *),
  days AS (
    INSERT INTO document_place_day AS t
      SELECT hour, workload, document, deployment, site, sum(calls), sum(tokens) FROM gone GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, document)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1),
  months AS (
    INSERT INTO document_place_month AS t
      SELECT date_trunc('month', hour, 'UTC'), workload, document, deployment, site, sum(calls), sum(tokens) FROM gone
      GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (hour, deployment, site, workload, document)
    DO UPDATE SET calls = t.calls + EXCLUDED.calls, tokens = t.tokens + EXCLUDED.tokens RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  RETURN folded + n;
END $$;

-- what is there already
INSERT INTO person_place_delta
  SELECT date_trunc('day', at, 'UTC'), workload, coalesce(person_id, '00000000-0000-0000-0000-000000000000'), deployment,
    coalesce(site, ''), count(*), sum(prompt_tokens + completion_tokens)
  FROM call WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
  GROUP BY 1, 2, 3, 4, 5;
INSERT INTO document_place_delta
  SELECT date_trunc('day', at, 'UTC'), workload, '', deployment, coalesce(site, ''), count(*),
    sum(prompt_tokens + completion_tokens)
  FROM call WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
    AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) = 0 GROUP BY 1, 2, 4, 5
  UNION ALL
  SELECT date_trunc('day', at, 'UTC'), workload, s.document, deployment, coalesce(site, ''), count(*),
    sum(s.share) * 1e12
  FROM call, LATERAL document_shares((prompt_tokens + completion_tokens) * 1e-12, detail -> 'sources') s
  WHERE status <> 'refused' AND cache NOT IN ('exact', 'semantic') AND deployment IS NOT NULL
    AND jsonb_array_length(coalesce(detail -> 'sources', '[]')) > 0 GROUP BY 1, 2, 3, 4, 5;
SELECT fold_places();

GRANT SELECT, INSERT, UPDATE, DELETE ON person_place_delta, person_place_day, person_place_month, document_place_delta,
  document_place_day, document_place_month TO %(db)s_control;
ALTER TABLE person_place_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE document_place_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
