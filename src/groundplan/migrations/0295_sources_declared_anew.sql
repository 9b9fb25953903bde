-- What a source is declared to be by the blueprint that is served, as that has it. A look at the source that began under
-- another declaration writes nothing any more.
CREATE TABLE source_declared (source text PRIMARY KEY, said text NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON source_declared TO %(db)s_control;

-- The stricter of two lists of what is allowed: NULL is anything.
CREATE FUNCTION narrower(held text[], said text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN said IS NULL THEN held WHEN held IS NULL THEN said
    ELSE ARRAY(SELECT unnest(held) INTERSECT SELECT unnest(said) ORDER BY 1) END
$$;
CREATE FUNCTION state_rank(state text) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE state WHEN 'approved' THEN 0 WHEN 'draft' THEN 1 ELSE 2 END
$$;
