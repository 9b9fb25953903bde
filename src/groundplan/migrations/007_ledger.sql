-- The ledger: calls, their attempts and charges, outcomes, tickets, findings, how far each journal was shipped, and
-- what was archived. Sums of these facts are in 008, contents of prompts and answers in 012.

CREATE TABLE call (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL,
  workload text NOT NULL,
  person_id uuid,
  key_id uuid,
  team text,
  endpoint text NOT NULL,
  status text NOT NULL,  -- ok refused failed cancelled crashed
  http_status int NOT NULL,
  error_code text,
  model text,
  deployment text,
  site text,
  cost_usd numeric(30,12) NOT NULL,
  reserved_usd numeric(30,12) NOT NULL,
  prompt_tokens bigint NOT NULL DEFAULT 0,
  completion_tokens bigint NOT NULL DEFAULT 0,
  cache text NOT NULL DEFAULT 'none',
  blueprint int NOT NULL,
  epoch uuid NOT NULL,
  demo boolean NOT NULL DEFAULT false,
  duration_ms double precision,
  first_byte_ms double precision,
  detail jsonb NOT NULL,
  shipped_at timestamptz NOT NULL DEFAULT now(),  -- when the call arrived here: the order that a live tail follows
  saved_usd numeric(30,12) NOT NULL DEFAULT 0,  -- of an answer from the cache, what the same answer cost before
  -- saved by the provider's cache of prompts: tokens read from it cost less
  prefix_saved_usd numeric(30,12) NOT NULL DEFAULT 0
);
CREATE INDEX call_at ON call (at DESC);
CREATE INDEX call_workload_at ON call (workload, at DESC);

-- Rows arrive in this order, so a block range index is tiny. It is summarized by summarize_newest(), as that of
-- attempts.
CREATE INDEX call_shipped ON call USING brin (shipped_at) WITH (pages_per_range = 16);

-- "Which answers used this document" in one look-up.
CREATE INDEX call_sources ON call USING gin ((detail -> 'sources') jsonb_path_ops) WHERE detail -> 'sources' <> '[]';
CREATE INDEX call_experiment ON call ((detail -> 'route' ->> 'experiment')) WHERE detail -> 'route' ? 'experiment';

-- Calls that the gateway made on behalf of another one, which its receipt lists.
CREATE INDEX call_made_for ON call ((detail ->> 'of')) WHERE detail ->> 'of' IS NOT NULL;

-- Calls that a budget stopped are looked for every minute, among very many others.
CREATE INDEX call_budget_refused ON call (at) WHERE error_code = 'budget_exhausted';

-- What was refused to somebody, which no sum by people counts. With person_whole this finds the calls of a person who
-- made few without reading everybody's.
CREATE INDEX call_refused ON call (person_id, at DESC) WHERE status = 'refused' AND person_id IS NOT NULL;

-- Estimates, counts of tokens and uses of tools over MCP, which no model answers, are in no number of calls and in no
-- sum by people either.
CREATE INDEX call_uncounted ON call (person_id, at DESC)
  WHERE (right(endpoint, 9) = '.estimate' OR endpoint IN ('messages.count_tokens', 'responses.input_tokens', 'mcp'))
    AND status <> 'refused' AND person_id IS NOT NULL;

CREATE TABLE attempt (
  call_id uuid NOT NULL,
  number int NOT NULL,
  at timestamptz NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  model text NOT NULL,
  state text NOT NULL CHECK (state IN ('open', 'settled', 'crashed')),
  outcome text NOT NULL,
  http_status int,
  reserved_usd numeric(30,12) NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  usage jsonb NOT NULL,
  estimated boolean NOT NULL DEFAULT false,
  flags text[] NOT NULL DEFAULT '{}',
  duration_ms double precision,
  epoch uuid NOT NULL,
  started_ms double precision,  -- since the call began; connect_ms and first_byte_ms since the attempt began
  connect_ms double precision,
  first_byte_ms double precision,
  workload text NOT NULL DEFAULT '',
  blueprint int NOT NULL DEFAULT 0,
  demo boolean NOT NULL DEFAULT false,
  parts jsonb,  -- what the cost is made of: {"class": [count, picodollars]}, exactly the cost
  -- '' to answer a caller; guardrail, cascade, judge, shadow or replay where the gateway itself asked
  purpose text NOT NULL DEFAULT '',
  tier text NOT NULL DEFAULT '',  -- of its price: '' the standard one, else batch, priority, long or by time
  PRIMARY KEY (call_id, number)
);

-- What a dead worker spent.
CREATE INDEX attempt_epoch ON attempt (epoch);
CREATE INDEX attempt_unsettled ON attempt (state) WHERE state IN ('open', 'crashed');

-- Attempts of a range of days, as when a bill is compared with them. They arrive nearly in order of time, so that a
-- block range index answers this and costs almost nothing to keep.
CREATE INDEX attempt_at ON attempt USING brin (at);

-- Attempts after the first are few: the cost of retries is read without reading every attempt.
CREATE INDEX attempt_retried ON attempt (at) WHERE number > 0;

-- Attempts with long prompts are few: which would fall under another tier of a price is read without reading every
-- attempt.
CREATE INDEX attempt_long_prompt ON attempt (at) WHERE (usage ->> 'input')::bigint > 16384;

-- Summarize the newest pages of both block range indexes; called where sums are folded. Until a page range is
-- summarized, every query for the last hour reads it whole. Vacuum comes by too late for that, and `autosummarize`
-- fills its list of 256 requests within seconds at a thousand calls a second, and then writes two lines to PostgreSQL's
-- log for each.
CREATE FUNCTION summarize_newest() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT brin_summarize_new_values('attempt_at') + brin_summarize_new_values('call_shipped')
$$;

-- Which budgets an attempt was charged to.
CREATE TABLE charge (
  call_id uuid NOT NULL,
  attempt int NOT NULL,
  budget text NOT NULL,
  period text NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (call_id, attempt, budget, period)
);

-- How far each journal was shipped.
CREATE TABLE shipped (
  epoch uuid PRIMARY KEY,
  segment int NOT NULL,
  position bigint NOT NULL,
  done boolean NOT NULL DEFAULT false,
  gaps int NOT NULL DEFAULT 0
);

-- The journal's records of calls that have not ended and have an attempt in the ledger: with them these calls are ended
-- where the journal is lost. `settled` is null while the attempt is open.
CREATE TABLE open_call (
  call_id uuid NOT NULL,
  attempt integer NOT NULL,
  epoch uuid NOT NULL,
  made bytea NOT NULL,
  settled bytea,
  PRIMARY KEY (call_id, attempt)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX open_call_epoch ON open_call (epoch);

-- What a call was worth. The outcome of a ticket counts once, whatever happens to the ticket later: it is that of one
-- of its calls in each workload that worked on it, always the same one.
CREATE TABLE outcome (
  id uuid PRIMARY KEY,
  call_id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  accepted boolean,
  value_usd numeric(30,12),
  label text,
  by text NOT NULL,
  ticket text,
  workload text  -- whose call it was: outcomes of one workload are found without reading the calls of all others
);
CREATE INDEX outcome_call ON outcome (call_id);

-- Outcomes that accept or reject are read by time: do learned routers still predict what is seen?
CREATE INDEX outcome_said ON outcome (at DESC) WHERE accepted IS NOT NULL;
CREATE INDEX outcome_ticket ON outcome (ticket, at DESC) WHERE ticket IS NOT NULL;
CREATE INDEX outcome_of_workload ON outcome (workload, at DESC) WHERE accepted IS NOT NULL;

CREATE FUNCTION outcome_of() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  NEW.workload := coalesce((SELECT workload FROM call WHERE id = NEW.call_id),
    (SELECT workload FROM ticket_call WHERE call_id = NEW.call_id));
  RETURN NEW;
END $$;
CREATE TRIGGER outcome_of_call BEFORE INSERT ON outcome FOR EACH ROW EXECUTE FUNCTION outcome_of();

-- Of several outcomes of one call each field counts as the newest outcome that states it says: a thumb without a value
-- leaves the value that the ticket system reported, and a later value does not take acceptance back.
CREATE FUNCTION outcome_told(of_call uuid, without uuid, OUT accepted boolean, OUT value_usd numeric, OUT n bigint)
LANGUAGE sql STABLE SET search_path = public AS $$
  SELECT (array_agg(o.accepted ORDER BY o.at DESC, o.id DESC) FILTER (WHERE o.accepted IS NOT NULL))[1],
    (array_agg(o.value_usd ORDER BY o.at DESC, o.id DESC) FILTER (WHERE o.value_usd IS NOT NULL))[1], count(*)
  FROM outcome o WHERE o.call_id = of_call AND o.id IS DISTINCT FROM without
$$;

-- Which calls worked on which ticket of a ticket system, as their callers said (header `groundplan-ticket`). Cost and
-- count stay here when the calls are archived.
CREATE TABLE ticket_call (
  call_id uuid PRIMARY KEY,
  ticket text NOT NULL,
  workload text NOT NULL,
  at timestamptz NOT NULL,
  asked boolean NOT NULL,  -- an answered call of the caller's own, not one that the gateway made for it
  cost_usd numeric(30,12) NOT NULL
);

-- The cost of a ticket's calls is read from the index alone.
CREATE INDEX ticket_call_ticket ON ticket_call (ticket, workload, at DESC) INCLUDE (asked, cost_usd);

CREATE FUNCTION note_tickets() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO ticket_call
    SELECT id, detail ->> 'ticket', workload, at, status = 'ok' AND NOT detail ? 'of', cost_usd
    FROM added WHERE detail ? 'ticket' ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER call_added_ticket AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION note_tickets();

-- The last statement about each ticket, by workload, kept as it arrives: tickets of some days are found by its time,
-- without reading all outcomes. Acceptance and value each count as in outcome_told().
CREATE TABLE ticket_told (
  ticket text NOT NULL,
  workload text NOT NULL,
  at timestamptz NOT NULL,
  id uuid NOT NULL,
  accepted boolean,
  value_usd numeric(30,12),
  value_at timestamptz,
  value_id uuid,
  PRIMARY KEY (ticket, workload)
);
CREATE INDEX ticket_told_at ON ticket_told (at);

CREATE FUNCTION note_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO ticket_told AS k
    SELECT NEW.ticket, t.workload, NEW.at, NEW.id, NEW.accepted, NEW.value_usd,
      CASE WHEN NEW.value_usd IS NOT NULL THEN NEW.at END, CASE WHEN NEW.value_usd IS NOT NULL THEN NEW.id END
    FROM ticket_call t WHERE t.call_id = NEW.call_id
    ON CONFLICT (ticket, workload) DO NOTHING;
  UPDATE ticket_told k SET at = NEW.at, id = NEW.id, accepted = NEW.accepted FROM ticket_call t
    WHERE t.call_id = NEW.call_id AND k.ticket = NEW.ticket AND k.workload = t.workload AND (NEW.at, NEW.id) > (k.at, k.id);
  UPDATE ticket_told k SET value_usd = NEW.value_usd, value_at = NEW.at, value_id = NEW.id FROM ticket_call t
    WHERE NEW.value_usd IS NOT NULL AND t.call_id = NEW.call_id AND k.ticket = NEW.ticket AND k.workload = t.workload
      AND (k.value_id IS NULL OR (NEW.at, NEW.id) > (k.value_at, k.value_id));
  RETURN NULL;
END $$;
CREATE TRIGGER outcome_of_ticket AFTER INSERT ON outcome FOR EACH ROW WHEN (NEW.ticket IS NOT NULL)
  EXECUTE FUNCTION note_told();

-- Record what a ticket system says of a ticket. told_as: new, same (said before), differs (this event said something
-- else before), waiting (the ticket is open and was never resolved: there is nothing to take back). No row: no call
-- worked on it.
CREATE FUNCTION tell_ticket(
  of_ticket text, of_workload text, event text, is_accepted boolean, worth numeric, told_at timestamptz, actor text,
  only_back boolean, OUT told_id uuid, OUT told_call uuid, OUT told_workload text, OUT told_as text)
RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE was outcome; gave numeric;
BEGIN
  PERFORM pg_advisory_xact_lock(240, hashtext(of_ticket));
  FOR told_workload IN
    SELECT DISTINCT t.workload FROM ticket_call t
    WHERE t.ticket = of_ticket AND (of_workload IS NULL OR t.workload = of_workload) ORDER BY 1
  LOOP
    told_id := md5(of_ticket || E'\n' || event || E'\n' || told_workload)::uuid;
    SELECT o.call_id INTO told_call FROM outcome o JOIN ticket_call t ON t.call_id = o.call_id
      WHERE o.ticket = of_ticket AND t.workload = told_workload LIMIT 1;
    IF told_call IS NULL THEN
      SELECT t.call_id INTO told_call FROM ticket_call t WHERE t.ticket = of_ticket AND t.workload = told_workload
        ORDER BY t.asked DESC, t.at <= told_at DESC, t.at DESC, t.call_id DESC LIMIT 1;
    END IF;
    SELECT * INTO was FROM outcome o WHERE o.id = told_id;
    gave := worth;
    IF was.id IS NOT NULL THEN
      told_as := CASE WHEN was.accepted = is_accepted AND (worth IS NULL OR was.value_usd = worth) THEN 'same' ELSE 'differs' END;
    ELSIF only_back AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.call_id = told_call AND o.ticket = of_ticket AND o.accepted) THEN
      told_as := 'waiting';
    ELSE
      -- what is not resolved any more gives back what it was worth
      IF NOT is_accepted AND gave IS NULL AND EXISTS (SELECT 1 FROM outcome o WHERE o.call_id = told_call AND o.value_usd > 0) THEN
        gave := 0;
      END IF;
      INSERT INTO outcome (id, call_id, at, accepted, value_usd, label, by, ticket)
        VALUES (told_id, told_call, told_at, is_accepted, gave, 'ticket ' || of_ticket, actor, of_ticket);
      told_as := 'new';
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;

-- A finding is one thing that is wrong with a subject now. It is recognized by kind, subject and mark, so that looking
-- again neither repeats nor loses it. `detail` holds the figures behind the message, `fix` what is proposed, `due` by
-- when.
CREATE TABLE finding (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  kind text NOT NULL,
  severity text NOT NULL,
  subject text NOT NULL,
  message text NOT NULL,
  hint text NOT NULL,
  owner text,
  closed_at timestamptz,
  mark text NOT NULL DEFAULT gen_random_uuid()::text,
  detail jsonb NOT NULL DEFAULT '{}',
  fix jsonb,
  due date,
  seen_at timestamptz NOT NULL DEFAULT now(),
  closed_by text,
  closed_reason text,
  quiet_until timestamptz,  -- somebody said: not before then
  -- words and values of documents: everybody with a duty sees a finding, but not everybody may read what it quotes
  quote text
);
-- The planner's statistics would keep samples of contents outside of the tables that an erasure rewrites.
ALTER TABLE finding ALTER message SET STATISTICS 0, ALTER hint SET STATISTICS 0, ALTER detail SET STATISTICS 0;
CREATE UNIQUE INDEX finding_open ON finding (kind, subject, mark) WHERE closed_at IS NULL;
CREATE INDEX finding_subject ON finding (subject);
CREATE INDEX finding_owner ON finding (owner) WHERE closed_at IS NULL;

-- Facts older than the hot window are kept as Parquet files. Their rows are deleted; sums and receipts of outcomes
-- stay. A day leaves in several parts, each in a transaction of seconds: everything of the day that is older than
-- `until`, or all of it where that is null. A fact of a day that was archived already, as of a gateway that was cut off
-- for weeks, leaves in a further part.
CREATE TABLE archived_day (
  day date,
  url text NOT NULL,
  calls bigint NOT NULL,
  attempts bigint NOT NULL,
  charges bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  sha256 text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  part integer NOT NULL DEFAULT 0 CHECK (part >= 0),
  until timestamptz,
  PRIMARY KEY (day, part)
);

-- The ids of archived calls and attempts (with their numbers), about a hundredth of what left. By these a fact is
-- recognized that arrives once more, as from a journal that was restored with its folder. In chunks of ten thousand,
-- each with its first and last id: one row for a day was read whole for each question, and with fifteen million calls
-- was more than a backup can write.
CREATE TABLE archived_fact (
  day date NOT NULL,
  part integer NOT NULL,
  chunk integer NOT NULL,  -- calls from 0 on, attempts from -1 down; one that is empty: there are none
  first uuid,
  last uuid,
  calls uuid[] STORAGE EXTERNAL NOT NULL,
  attempts uuid[] STORAGE EXTERNAL NOT NULL,
  numbers integer[] NOT NULL,
  PRIMARY KEY (day, part, chunk)
);

-- What archived attempts were charged, of workers whose slices were not closed then: it is still spent when these are
-- closed.
CREATE TABLE archived_charge (
  epoch uuid NOT NULL,
  budget text NOT NULL,
  period text NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (epoch, budget, period)
);

-- Delete the facts of one part of a day, note their ids and charges, and fail where they changed since they were
-- written to files. Returns how many calls were deleted.
CREATE FUNCTION drop_archived(which date, nth integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE kept archived_day; n_calls bigint; n_attempts bigint; n_charges bigint; last timestamptz;
  first timestamptz := which::timestamp AT TIME ZONE 'UTC';
BEGIN
  SELECT * INTO STRICT kept FROM archived_day d WHERE d.day = which AND d.part = nth;
  last := least(kept.until, (which + 1)::timestamp AT TIME ZONE 'UTC');
  WITH went AS (
    DELETE FROM charge c USING attempt a
    WHERE c.call_id = a.call_id AND c.attempt = a.number AND a.at >= first AND a.at < last AND a.state <> 'open'
    RETURNING a.epoch, c.budget, c.period, c.cost_usd),
  noted AS (
    INSERT INTO archived_charge AS t SELECT w.epoch, w.budget, w.period, sum(w.cost_usd) FROM went w
      WHERE NOT EXISTS (SELECT FROM shipped s WHERE s.epoch = w.epoch AND s.done) GROUP BY 1, 2, 3
    ON CONFLICT (epoch, budget, period) DO UPDATE SET cost_usd = t.cost_usd + EXCLUDED.cost_usd)
  SELECT count(*) INTO n_charges FROM went;
  WITH went AS (
    DELETE FROM attempt a WHERE a.at >= first AND a.at < last AND a.state <> 'open'
    RETURNING a.call_id, a.number, a.cost_usd),
  of_batches AS (
    UPDATE batch b SET left_usd = b.left_usd + s.cost_usd FROM (
      SELECT l.batch_id, sum(w.cost_usd) AS cost_usd FROM went w JOIN batch_line l USING (call_id) GROUP BY 1) s
    WHERE b.id = s.batch_id),
  noted AS (
    INSERT INTO archived_fact SELECT which, nth, c.chunk, c.ids[1], c.ids[cardinality(c.ids)], '{}', c.ids, c.numbers FROM (
      SELECT n.chunk, array_agg(n.id ORDER BY n.id, n.number) AS ids, array_agg(n.number ORDER BY n.id, n.number) AS numbers
      FROM (SELECT -1 - (row_number() OVER (ORDER BY w.call_id, w.number) - 1) / 10000 AS chunk, w.call_id AS id, w.number
            FROM went w) n GROUP BY 1) c)
  SELECT count(*) INTO n_attempts FROM went;
  WITH went AS (DELETE FROM call c WHERE c.at >= first AND c.at < last RETURNING c.id),
  noted AS (
    INSERT INTO archived_fact SELECT which, nth, c.chunk, c.ids[1], c.ids[cardinality(c.ids)], c.ids, '{}', '{}' FROM (
      SELECT n.chunk, array_agg(n.id ORDER BY n.id) AS ids
      FROM (SELECT (row_number() OVER (ORDER BY w.id) - 1) / 10000 AS chunk, w.id FROM went w) n GROUP BY 1) c)
  SELECT count(*) INTO n_calls FROM went;
  IF n_calls = 0 THEN
    INSERT INTO archived_fact VALUES (which, nth, 0, NULL, NULL, '{}', '{}', '{}');
  END IF;
  IF (n_calls, n_attempts, n_charges) IS DISTINCT FROM (kept.calls, kept.attempts, kept.charges) THEN
    RAISE EXCEPTION 'facts of %% changed since they were archived', which USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN n_calls;
END $$;

-- Of some documents that are erased with their names: calls name them by path and id, and from now on by id alone.
-- Returns how many calls were changed.
CREATE FUNCTION forget_passages(documents uuid[]) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  WITH found AS (
    UPDATE call c SET detail = jsonb_set(c.detail, '{sources}', (
        SELECT jsonb_agg(CASE WHEN (p.passage ->> 0) = ANY (documents::text[]) THEN jsonb_set(p.passage, '{1}', p.passage -> 0)
          ELSE p.passage END ORDER BY p.place)
        FROM jsonb_array_elements(c.detail -> 'sources') WITH ORDINALITY AS p(passage, place)))
    FROM (SELECT DISTINCT x.id FROM unnest(documents) d CROSS JOIN LATERAL (
        SELECT o.id FROM call o WHERE o.detail -> 'sources' <> '[]'
          AND o.detail -> 'sources' @> jsonb_build_array(jsonb_build_array(d::text)) OFFSET 0) x) used
    WHERE c.id = used.id
    RETURNING 1)
  SELECT count(*) FROM found
$$;

-- Rights. Applications report outcomes with their API key at a gateway, which reads of calls what it needs for that and
-- for lines of batches: whether anything was sent for a line (it has attempts), and whether all its attempts were
-- refused unbilled, so that another worker may make it.
GRANT SELECT, INSERT, UPDATE, DELETE ON shipped, outcome, finding TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON archived_charge TO %(db)s_control;
GRANT SELECT, INSERT ON call, attempt, charge, archived_day, archived_fact TO %(db)s_control;
GRANT SELECT ON open_call, ticket_call, ticket_told TO %(db)s_control;
GRANT SELECT, INSERT ON outcome TO %(db)s_gateway;
GRANT SELECT ON shipped TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON open_call TO %(db)s_shipper;
GRANT SELECT, INSERT, UPDATE ON call, attempt, charge, shipped TO %(db)s_shipper;
GRANT SELECT, INSERT ON finding TO %(db)s_shipper;
GRANT SELECT ON archived_fact, archived_charge TO %(db)s_shipper;
GRANT SELECT (id, at, workload, person_id, status, epoch) ON call TO %(db)s_gateway;
GRANT SELECT (call_id, outcome) ON attempt TO %(db)s_gateway;
REVOKE ALL ON FUNCTION summarize_newest, outcome_of, note_tickets, note_told, tell_ticket, drop_archived,
  forget_passages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION summarize_newest, drop_archived, forget_passages TO %(db)s_control;
GRANT EXECUTE ON FUNCTION tell_ticket TO %(db)s_control, %(db)s_gateway;
