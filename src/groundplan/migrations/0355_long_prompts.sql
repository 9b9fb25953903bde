-- Attempts with long prompts are few: which of them would have another tier of a price, were prompts longer or shorter, is
-- read without reading every attempt.
CREATE INDEX attempt_long_prompt ON attempt (at) WHERE (usage ->> 'input')::bigint > 16384;
