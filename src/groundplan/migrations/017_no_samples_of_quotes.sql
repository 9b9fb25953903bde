-- No samples of contents in the planner's statistics, which would outlive an erasure: of the head rows of passages,
-- the quotes of findings, and versions that a legal hold keeps. Setting a column's type, even to the type that it has,
-- is what removes samples that were taken before; no row is written anew for it.
ALTER TABLE chunk ALTER head SET STATISTICS 0, ALTER head TYPE text;
ALTER TABLE finding ALTER quote SET STATISTICS 0, ALTER quote TYPE text;
ALTER TABLE held_version ALTER title SET STATISTICS 0, ALTER title TYPE text, ALTER declared SET STATISTICS 0,
  ALTER declared TYPE jsonb, ALTER text SET STATISTICS 0, ALTER text TYPE text, ALTER data SET STATISTICS 0,
  ALTER data TYPE bytea;
