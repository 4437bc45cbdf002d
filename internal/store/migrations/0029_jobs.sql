-- +goose Up
ALTER TABLE job ADD COLUMN windowed BOOLEAN NOT NULL DEFAULT FALSE; -- it has maintenance windows
ALTER TABLE job ADD COLUMN telling TEXT;                            -- things up to this one know that a window has begun or ended; NULL: all do
CREATE INDEX job_by_completed ON job (completed) WHERE completed IS NOT NULL;

ALTER TABLE job_target ADD COLUMN again BOOLEAN NOT NULL DEFAULT FALSE; -- its things were all found before, and are looked through anew

-- +goose Down
ALTER TABLE job_target DROP COLUMN again;
DROP INDEX job_by_completed;
ALTER TABLE job DROP COLUMN telling;
ALTER TABLE job DROP COLUMN windowed;
