-- The planner's statistics keep samples of what columns hold, outside the tables that an erasure writes anew; none are
-- kept of content.
DO $$
DECLARE each text[];
BEGIN
  FOREACH each SLICE 1 IN ARRAY ARRAY[
    ['chunk', 'text'], ['chunk', 'headings'], ['chunk', 'embedding'], ['document', 'title'], ['document', 'content'],
    ['document', 'sketch'], ['document', 'lines'], ['document', 'notes'], ['document', 'declared'],
    ['document', 'decided'], ['document', 'personal'], ['document', 'origins'], ['document_version', 'title'],
    ['document_conflict', 'one_says'], ['document_conflict', 'other_says'], ['pushed', 'data'], ['pushed', 'told'],
    ['finding', 'message'], ['finding', 'hint'], ['finding', 'detail']] LOOP
    EXECUTE format('ALTER TABLE %%I ALTER COLUMN %%I SET STATISTICS 0', each[1], each[2]);
  END LOOP;
END $$;
