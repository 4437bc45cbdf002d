-- +goose Up
CREATE TABLE lease (
    name  TEXT   NOT NULL PRIMARY KEY,
    node  TEXT   NOT NULL,
    until BIGINT NOT NULL                      -- ms
);

-- +goose Down
DROP TABLE lease;
