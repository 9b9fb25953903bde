-- What somebody answers for is looked up with each of their pages. Documents that have owner and steward of their source, as
-- most do, are found by that: they are in neither index.
CREATE INDEX document_owner ON document (owner) WHERE NOT starts_with(coalesce(origins -> 'owner' ->> 'from', ''), 'source/');
CREATE INDEX document_steward ON document (steward)
  WHERE NOT starts_with(coalesce(origins -> 'steward' ->> 'from', ''), 'source/');
CREATE INDEX finding_owner ON finding (owner) WHERE closed_at IS NULL;
