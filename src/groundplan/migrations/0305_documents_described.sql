-- What documents are (path, owner, sensitivity, media, time) is known to the search service, since a question may be about some
-- of them only. Whoever changes it is told as whoever changes readers, unless it was numbered with it.
CREATE CONSTRAINT TRIGGER document_described AFTER UPDATE OF path, owner, sensitivity, media, modified_at ON document
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.deleted_at IS NULL AND OLD.noted = NEW.noted
    AND (OLD.path, OLD.owner, OLD.sensitivity, OLD.media, OLD.modified_at)
      IS DISTINCT FROM (NEW.path, NEW.owner, NEW.sensitivity, NEW.media, NEW.modified_at))
  EXECUTE FUNCTION document_noted();
