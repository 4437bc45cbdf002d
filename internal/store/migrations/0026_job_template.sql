-- +goose Up
CREATE TABLE job_template (
    job_template_id TEXT   NOT NULL PRIMARY KEY,
    definition      TEXT   NOT NULL,            -- JSON, type templateDefinition of internal/jobs
    created         BIGINT NOT NULL             -- ms
);

-- +goose Down
DROP TABLE job_template;
