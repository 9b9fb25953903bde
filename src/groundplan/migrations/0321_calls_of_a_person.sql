-- The days on which somebody made calls are found by who it is, and what was refused to them, which no sum by people counts,
-- by an index of its own: the calls of somebody who has made few, or none, were looked for among everybody's.
CREATE INDEX person_whole_person ON person_whole (person, hour);
CREATE INDEX call_refused ON call (person_id, at DESC) WHERE status = 'refused' AND person_id IS NOT NULL;
