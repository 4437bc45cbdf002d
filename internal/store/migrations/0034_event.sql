-- +goose Up

-- Events of the account that are to be published: written with what they tell of, deleted when they were published.
CREATE TABLE account_event (
    id      BIGINT NOT NULL PRIMARY KEY,
    node    TEXT   NOT NULL,                  -- that publishes it
    at      BIGINT NOT NULL,                  -- ms
    topic   TEXT   NOT NULL,
    payload BYTEA  NOT NULL
);
CREATE INDEX account_event_by_node ON account_event (node, id);

-- +goose Down
DROP TABLE account_event;
