-- Of calls that have not ended, of which an attempt is in the ledger, the records of the journal that tell of it: with them
-- they end where the journal is lost. `settled` is null while the attempt is open.
CREATE TABLE open_call (
  call_id uuid NOT NULL, attempt integer NOT NULL, epoch uuid NOT NULL, made bytea NOT NULL, settled bytea,
  PRIMARY KEY (call_id, attempt));
CREATE INDEX open_call_epoch ON open_call (epoch);
ALTER TABLE open_call SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
GRANT SELECT, INSERT, UPDATE, DELETE ON open_call TO %(db)s_shipper;
GRANT SELECT ON open_call TO %(db)s_control;
