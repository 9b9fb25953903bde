-- Some steps were said otherwise when they came than they are now. A database that had one of them in between, as of a version
-- of those hours, has what it said then: here it gets what was added or corrected. Where all is there nothing changes.

-- 0052: who erases may write tables anew; 0075: nobody listens to it.
DO $$ BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON chunk, document, document_version, document_reader, pushed TO %(db)s_control';
  END IF;
END $$;
GRANT UPDATE (data, told) ON pushed TO %(db)s_control;
DROP TRIGGER IF EXISTS held_call_told ON held_call;
DROP FUNCTION IF EXISTS tell_held();

-- 0190: a backup, which is read as control, was refused.
GRANT SELECT ON semantic_region TO %(db)s_control;

-- 0240, 0367: read where there are many calls, or many lines of batches
CREATE INDEX IF NOT EXISTS call_budget_refused ON call (at) WHERE error_code = 'budget_exhausted';
CREATE INDEX IF NOT EXISTS batch_line_running ON batch_line (batch_id, state) WHERE state IN ('running', 'ordered');

-- 0255: the owner of the tables sees rows in this function and nowhere else.
CREATE OR REPLACE FUNCTION changed_after(after bigint, in_edition int, most int) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  found jsonb;
BEGIN
  PERFORM set_config('groundplan.looks_for_changes', 'on', true);
  SELECT jsonb_object_agg(d.id, CASE
      WHEN d.deleted_at IS NULL AND (d.version = 1 OR EXISTS (SELECT FROM chunk c
        WHERE c.document_id = d.id AND c.edition = in_edition AND c.changed <= after))
      THEN coalesce(d.acl, -1) ELSE -1 END) INTO found
    FROM (SELECT id, acl, version, deleted_at FROM document WHERE noted > after ORDER BY noted LIMIT most) d;
  PERFORM set_config('groundplan.looks_for_changes', 'off', true);
  RETURN found;
END $$;
ALTER POLICY document_changed ON document USING (current_setting('groundplan.looks_for_changes', true) = 'on');
ALTER POLICY chunk_changed ON chunk USING (current_setting('groundplan.looks_for_changes', true) = 'on');

-- 0295: kept was a digest of what is declared, of which nothing can be told; 0320: calls in sums were of another type.
DO $$ DECLARE t text; BEGIN
  IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'source_declared'::regclass AND attname = 'mark' AND NOT attisdropped)
  THEN
    DELETE FROM source_declared;
    ALTER TABLE source_declared RENAME COLUMN mark TO said;
  END IF;
  FOR t IN SELECT attrelid::regclass FROM pg_attribute WHERE attname = 'calls' AND atttypid = 'numeric[]'::regtype
      AND attrelid = ANY ('{person_running,document_running,person_place_running,document_place_running}'::regclass[]) LOOP
    EXECUTE format('ALTER TABLE %%s ALTER COLUMN calls TYPE bigint[] USING calls::bigint[]', t);
  END LOOP;
END $$;
DROP FUNCTION IF EXISTS running_joined(smallint[], numeric[], smallint[], numeric[]);
CREATE OR REPLACE FUNCTION running_joined(a smallint[], x anyarray, b smallint[], y anyarray) RETURNS anyarray LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF b[1] > a[cardinality(a)] THEN
    RETURN x || ARRAY(SELECT x[cardinality(x)] + u.upto FROM unnest(y) WITH ORDINALITY u(upto, place) ORDER BY u.place);
  END IF;
  RETURN ARRAY(SELECT coalesce(x[width_bucket(d, a)], 0) + coalesce(y[width_bucket(d, b)], 0)
    FROM (SELECT DISTINCT unnest(a || b) AS d) u ORDER BY d);
END $$;
CREATE OR REPLACE FUNCTION to_running(span running_span, query text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT format(
    'INSERT INTO %%1$I AS t (month, %%2$s, days, calls, %%3$I)
     SELECT month, %%2$s, array_agg(day ORDER BY day), array_agg(calls ORDER BY day), array_agg(measure ORDER BY day)
     FROM (SELECT month, %%2$s, day, (sum(sum(calls)) OVER upto)::bigint AS calls,
         sum(sum(%%3$I)) OVER upto AS measure
       FROM (SELECT date_trunc(''month'', hour, ''UTC'') AS month, extract(day FROM hour AT TIME ZONE ''UTC'')::smallint AS day,
           %%2$s, calls, %%3$I FROM (%%4$s) r WHERE hour >= $1 AND hour < $2) d
       GROUP BY month, %%2$s, day WINDOW upto AS (PARTITION BY month, %%2$s ORDER BY day)) s
     GROUP BY month, %%2$s
     ON CONFLICT (month, %%2$s) DO UPDATE SET
       days = ARRAY(SELECT DISTINCT unnest(t.days || EXCLUDED.days) ORDER BY 1),
       calls = running_joined(t.days, t.calls, EXCLUDED.days, EXCLUDED.calls),
       %%3$I = running_joined(t.days, t.%%3$I, EXCLUDED.days, EXCLUDED.%%3$I)',
    span.name || '_running', span.keys, span.measure, query)
$$;

-- 0322: what attempts of a batch that have left for Parquet cost. What left before this is not known any more.
ALTER TABLE batch ADD COLUMN IF NOT EXISTS left_usd numeric(30,12) NOT NULL DEFAULT 0;
