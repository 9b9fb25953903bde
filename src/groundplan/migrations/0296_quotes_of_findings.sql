-- Words and values of documents that findings are about: everybody with a duty sees a finding, and not all of them may read
-- what it quotes. What quoted in its message until now is told anew without.
ALTER TABLE finding ADD COLUMN quote text;
UPDATE finding SET closed_at = coalesce(closed_at, now()), closed_reason = coalesce(closed_reason, 'it is told anew'),
    message = 'told anew', hint = '', detail = '{}', fix = NULL, mark = id::text
  WHERE kind IN ('knowledge.conflict', 'knowledge.structure', 'knowledge.table', 'knowledge.sensor');
