-- Whether the workload of a batch had sources when the batch was made, or when it ended: its results may say what only
-- the person of the batch may read, also once the workload has no sources any more. Of batches from before nobody knows.
ALTER TABLE batch ADD COLUMN grounded boolean NOT NULL DEFAULT false;
