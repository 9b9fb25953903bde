-- A document whose residency is bounded is given only to workloads that run nowhere else. `residency` of a workload: for each
-- jurisdiction where it may run the names that contain it (`NO|EEA`); none: it may run anywhere.
ALTER TABLE workload_need ADD COLUMN residency text[] NOT NULL DEFAULT '{}';

CREATE FUNCTION stays_within(places text[], allowed text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT cardinality(places) > 0
    AND NOT EXISTS (SELECT 1 FROM unnest(places) p WHERE NOT string_to_array(p, '|') && allowed)
$$;

CREATE OR REPLACE FUNCTION kept_back(d document, for_workload text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN d.deleted_at IS NOT NULL THEN 'deleted'
    WHEN d.superseded_by IS NOT NULL THEN 'superseded'
    WHEN d.state <> 'approved' THEN d.state
    WHEN d.valid_from > (now() AT TIME ZONE 'UTC')::date THEN 'not_yet_valid'
    WHEN d.valid_until < (now() AT TIME ZONE 'UTC')::date THEN 'expired'
    WHEN NOT coalesce(for_workload = ANY (d.workloads), d.workloads IS NULL) THEN 'workload'
    WHEN NOT coalesce(d.purposes && (SELECT n.purposes FROM workload_need n WHERE n.workload = for_workload), d.purposes IS NULL)
      THEN 'purpose'
    WHEN d.residency IS NOT NULL AND NOT coalesce(
      (SELECT stays_within(n.residency, d.residency) FROM workload_need n WHERE n.workload = for_workload), false)
      THEN 'residency'
    WHEN sensitivity_rank(d.sensitivity) > coalesce((SELECT n.sensitivity FROM workload_need n WHERE n.workload = for_workload), 3)
      THEN 'sensitivity'
    WHEN coalesce((SELECT n.scanned FROM workload_need n WHERE n.workload = for_workload), false) AND d.scanned_at IS NULL
      THEN 'not_scanned'
    WHEN coalesce(d.quality, 0) < coalesce((SELECT n.quality_floor FROM workload_need n WHERE n.workload = for_workload), 0)
      THEN 'quality'
  END
$$;

-- beside the policy of 0050, which stays as it is: both must let a document through
CREATE POLICY document_residency ON document AS RESTRICTIVE FOR SELECT TO %(db)s_search USING (
  residency IS NULL
  OR coalesce((SELECT stays_within(n.residency, document.residency) FROM workload_need n
       WHERE n.workload = current_setting('groundplan.workload', true)), false)
  OR current_setting('groundplan.explain', true) = 'on');
