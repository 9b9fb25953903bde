-- Attempts are found by their time through a summary of pages, and new pages were not summarized before a fifth of the table
-- was new: until then, whatever was asked of the last hour looked at all of them. Now each range is, as soon as it is full.
ALTER INDEX attempt_at SET (autosummarize = on);
SELECT brin_summarize_new_values('attempt_at');
