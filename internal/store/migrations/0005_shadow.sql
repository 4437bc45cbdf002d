-- +goose Up
CREATE TABLE shadow (
    thing    TEXT   NOT NULL,
    name     TEXT   NOT NULL,                 -- '' = the classic shadow
    version  BIGINT NOT NULL,
    document BYTEA,                           -- state and metadata, form in internal/shadow/doc; NULL = deleted, version kept for a while
    modified BIGINT NOT NULL,
    PRIMARY KEY (thing, name)
);
CREATE INDEX shadow_deleted ON shadow (modified) WHERE document IS NULL;

-- +goose Down
DROP TABLE shadow;
