-- +goose Up
CREATE TABLE node (
    node_id TEXT NOT NULL PRIMARY KEY,
    number  BIGINT NOT NULL UNIQUE
);

-- +goose Down
DROP TABLE node;
