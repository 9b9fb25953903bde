-- As before, but for how grants are found: by a join, which costs nothing where there are none. Asked for with an array of
-- thousands of names, an index of no grant at all was searched for each of them, at every search.
CREATE OR REPLACE FUNCTION names_of(who uuid) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
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
    || ARRAY(SELECT DISTINCT 'source/' || g.source FROM source_grant g JOIN unnest(names) AS n(name) ON n.name = g.reader
      WHERE g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date)
    || ARRAY(SELECT 'link/' || h.link FROM link_holder h JOIN shared_link l ON l.name = h.link
      WHERE h.person_id = who AND l.withdrawn_at IS NULL
        AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date));
END $$;
-- A backup has what each sequence has given out: without, what is restored counts from 1 again, and its next set of readers,
-- edition of the index or push meets one that is there. Only who may read a sequence is told its value.
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO %(db)s_control;
-- What was restored before goes on behind the numbers that it has.
SELECT setval('acl_id_seq', max(id)) FROM acl HAVING max(id) >= (SELECT last_value FROM acl_id_seq);
SELECT setval('search_edition_id_seq', max(id)) FROM search_edition HAVING max(id) >= (SELECT last_value FROM search_edition_id_seq);
SELECT setval('pushed_change', max(number)) FROM pushed HAVING max(number) >= (SELECT last_value FROM pushed_change);
