-- The attempts at a step one by one, as JSON; nothing for steps from before this was kept.
ALTER TABLE steps ADD COLUMN attempt_log TEXT;
