-- Who somebody is, from lists that are looked up by an index: with plans that are kept, and the same for one group and for
-- thousands. It says what it said before; every search asks it first.
--
-- All names a person reads by. `public` is everybody, also nobody in particular (null); whoever has left has none. Names of
-- rules (`public`, `source/…`, `link/…`) are never those of a group or a person, whatever somebody calls one.
CREATE FUNCTION names_of(who uuid) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  own text;
  mine uuid[];
  more uuid[];
  names text[];
BEGIN
  IF who IS NULL THEN
    RETURN '{public}';
  END IF;
  SELECT email INTO own FROM person WHERE id = who AND active;
  IF NOT FOUND THEN
    RETURN '{}';
  END IF;
  more := ARRAY(SELECT m.group_id FROM membership m WHERE m.person_id = who);
  mine := more;
  WHILE cardinality(more) > 0 LOOP
    more := ARRAY(SELECT DISTINCT m.group_id FROM membership m
      WHERE m.member_group_id = ANY (more) AND m.group_id <> ALL (mine));
    mine := mine || more;
  END LOOP;
  names := ARRAY(SELECT n.name FROM (
      SELECT g.name FROM people_group g WHERE g.id = ANY (mine) UNION ALL SELECT own UNION ALL SELECT 'everyone') n
    WHERE n.name <> 'public' AND NOT starts_with(n.name, 'source/') AND NOT starts_with(n.name, 'link/'));
  RETURN names || 'public'::text
    || ARRAY(SELECT DISTINCT 'source/' || g.source FROM source_grant g WHERE g.reader = ANY (names)
      AND (g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date))
    || ARRAY(SELECT 'link/' || h.link FROM link_holder h JOIN shared_link l ON l.name = h.link
      WHERE h.person_id = who AND l.withdrawn_at IS NULL
        AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date));
END $$;
CREATE OR REPLACE FUNCTION reading_names(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT unnest(names_of(who))
$$;
-- The sets of readers that somebody has: named in one, and not refused in it.
CREATE FUNCTION acls_of(who uuid) RETURNS int[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  names text[] := names_of(who);
BEGIN
  RETURN ARRAY(SELECT a.acl FROM acl_name a WHERE a.name = ANY (names) GROUP BY a.acl HAVING NOT bool_or(a.deny));
END $$;
CREATE OR REPLACE FUNCTION acls_now() RETURNS int[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  who text := coalesce(current_setting('groundplan.person', true), '');
  kept text := coalesce(current_setting('groundplan.acls', true), '');
BEGIN
  IF starts_with(kept, who || ':') THEN
    RETURN substr(kept, length(who) + 2)::int[];
  END IF;
  RETURN acls_of(nullif(who, '')::uuid);
END $$;
DROP FUNCTION visible_acls(uuid), granted_sources(uuid);
-- Up to which number followers know that no change is missing.
GRANT SELECT ON SEQUENCE chunk_change TO %(db)s_control;
