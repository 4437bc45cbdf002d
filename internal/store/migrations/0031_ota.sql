-- +goose Up
CREATE TABLE stream (
    stream_id   TEXT   NOT NULL PRIMARY KEY,
    version     BIGINT NOT NULL,             -- 1, one more for each update
    description TEXT,
    role_arn    TEXT   NOT NULL,
    files       TEXT   NOT NULL,             -- JSON, []file of internal/ota
    created     BIGINT NOT NULL,             -- ms
    modified    BIGINT NOT NULL              -- ms
);
CREATE INDEX stream_by_age ON stream (created, stream_id);

CREATE TABLE ota_update (
    ota_update_id TEXT    NOT NULL PRIMARY KEY,
    definition    TEXT    NOT NULL,          -- JSON, CreateOTAUpdateRequest
    job_id        TEXT    NOT NULL,
    stream_id     TEXT    NOT NULL,          -- '': none, its files go by HTTP alone
    owns_stream   BOOLEAN NOT NULL,          -- it was made for this update
    created       BIGINT  NOT NULL           -- ms
);
CREATE INDEX ota_update_by_stream ON ota_update (stream_id) WHERE stream_id <> '';

-- +goose Down
DROP TABLE ota_update;
DROP TABLE stream;
