-- Letters as they are compared where a name is looked for: `core/letters.py` says the same.
CREATE FUNCTION letters(said text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN octet_length(said) = length(said) THEN said
    ELSE translate(normalize(said, NFKC), E'\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2212', '''''''''----') END
$$;
