-- How many tokens of prompt and answer an ordered call can have at most, so that a provider that counts more is found
-- out where the cost hides it; 0: nothing is known of it, as of those that were ordered before.
ALTER TABLE batch_line ADD COLUMN most_input bigint NOT NULL DEFAULT 0;
ALTER TABLE batch_line ADD COLUMN most_output bigint NOT NULL DEFAULT 0;
