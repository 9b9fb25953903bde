-- For what an attempt was made: '' to answer a caller; guardrail, cascade, judge, shadow, replay where the gateway itself
-- asked; and at which tier of its price: '' the standard one, else batch, priority, long, by time. Sums of parts are kept by
-- both, so what judges and guardrails cost is told apart, and counted once.
ALTER TABLE attempt ADD COLUMN purpose text NOT NULL DEFAULT '', ADD COLUMN tier text NOT NULL DEFAULT '';
ALTER TABLE part_delta ADD COLUMN purpose text NOT NULL DEFAULT '', ADD COLUMN tier text NOT NULL DEFAULT '';
ALTER TABLE part_hour ADD COLUMN purpose text NOT NULL DEFAULT '', ADD COLUMN tier text NOT NULL DEFAULT '',
  DROP CONSTRAINT part_hour_pkey, ADD PRIMARY KEY (
  hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier);
ALTER TABLE part_day ADD COLUMN purpose text NOT NULL DEFAULT '', ADD COLUMN tier text NOT NULL DEFAULT '',
  DROP CONSTRAINT part_day_pkey, ADD PRIMARY KEY (
  hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier);
-- calls that the gateway made for another one, which its receipt lists
CREATE INDEX call_made_for ON call ((detail ->> 'of')) WHERE detail ->> 'of' IS NOT NULL;

CREATE OR REPLACE FUNCTION roll_attempts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO part_delta (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier,
      count, cost_usd)
    SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model, a.outcome,
      a.estimated, p.part, a.purpose, a.tier, sum(p.count), sum(p.usd)
    FROM added a, LATERAL attempt_parts(a.cost_usd, a.parts) p WHERE a.state <> 'open'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
  RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION roll_settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO part_delta (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier,
      count, cost_usd)
    SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model, a.outcome,
      a.estimated, p.part, a.purpose, a.tier, sum(a.sign * p.count), sum(a.sign * p.usd)
    FROM (SELECT 1 AS sign, * FROM settled UNION ALL SELECT -1, * FROM before) a,
      LATERAL attempt_parts(a.cost_usd, a.parts) p
    WHERE a.state <> 'open' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
  RETURN NULL;
END $$;
