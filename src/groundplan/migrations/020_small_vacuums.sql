-- The tables that grow with each call are vacuumed after a fixed number of new rows instead of a fifth of the table: a
-- fifth of some million rows is gigabytes at once, which every other write to that disk waited for, such as the journal's
-- of calls. New pages are still in memory then, and the checkpoint that writes them has them once.
ALTER TABLE call SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
ALTER TABLE attempt SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
ALTER TABLE charge SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 300000);
ALTER TABLE audit_entry SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
