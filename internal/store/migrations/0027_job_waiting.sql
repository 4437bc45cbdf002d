-- +goose Up
CREATE INDEX job_waiting_by_thing ON job_waiting (thing, job_id);

-- +goose Down
DROP INDEX job_waiting_by_thing;
