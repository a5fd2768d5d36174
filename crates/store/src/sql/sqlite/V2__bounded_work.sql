-- Nothing that a list or a background task reads may walk what is stored.

-- Jobs of one state, in the order of lists.
CREATE INDEX jobs_by_status ON jobs (status, seq);
-- Failed ones of one recipe; costs a job that succeeds nothing.
CREATE INDEX jobs_failed ON jobs (recipe, seq) WHERE error IS NOT NULL;
-- What expiry looks for.
CREATE INDEX jobs_ended ON jobs (status, finished_at) WHERE finished_at IS NOT NULL;
-- The few that run are found by their status.
DROP INDEX jobs_running;
-- Jobs that are due, recipe by recipe: each has its turn, however many another one has.
DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs (recipe, run_at, seq) WHERE status IN ('queued', 'waiting');
-- The connection that a job waits for, so that it goes on when that does.
ALTER TABLE jobs ADD COLUMN waits_for INTEGER;
CREATE INDEX jobs_waiting ON jobs (waits_for, run_at) WHERE waits_for IS NOT NULL;
-- A batch knows whose events it holds and how many, how often it was begun without an end, and why it was set aside.
ALTER TABLE sync_batches ADD COLUMN endpoint INTEGER;
ALTER TABLE sync_batches ADD COLUMN events INTEGER;
ALTER TABLE sync_batches ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sync_batches ADD COLUMN reason TEXT;
-- Values of keys that have no column, some of these keys, whether the table is to be filled again, what was seen.
ALTER TABLE sync_states ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sync_states ADD COLUMN left_out_keys TEXT;
ALTER TABLE sync_states ADD COLUMN resync INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sync_states ADD COLUMN note TEXT;
-- The one batch of a sync that is under way, those that were set aside, and those that are loaded from a position on.
CREATE INDEX sync_batches_open ON sync_batches (sync) WHERE state IN ('begun', 'packed');
CREATE INDEX sync_batches_aside ON sync_batches (sync, batch) WHERE state IN ('aside', 'lost');
CREATE INDEX sync_batches_by_position ON sync_batches (sync, last_seq) WHERE state = 'loaded';

-- Of a document that was applied: whether a command has changed it since.
ALTER TABLE resources ADD COLUMN by_hand INTEGER;
-- Recipes that were deleted: their jobs are still found by their names.
CREATE INDEX deleted_recipes ON resources (workspace, kind, name, deleted_at) WHERE deleted_at IS NOT NULL;
-- A job whose condition a worker still has to evaluate: it is shown when that holds, and gone when not.
ALTER TABLE jobs ADD COLUMN is_deferred INTEGER NOT NULL DEFAULT 0;
