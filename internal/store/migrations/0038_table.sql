-- +goose Up
-- DynamoDB's tables: see internal/table.
CREATE TABLE dynamo_table (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id          BIGINT NOT NULL,              -- of this table among all that ever had the name
    description TEXT   NOT NULL               -- JSON: key schema, time to live and the like
) /*WITHOUT ROWID*/;
CREATE UNIQUE INDEX dynamo_table_id ON dynamo_table (id);

-- Items without a table wait for their deletion.
CREATE TABLE dynamo_item (
    table_id  BIGINT NOT NULL,
    hash_key  BYTEA  NOT NULL,                -- ordered as the values are
    range_key BYTEA  NOT NULL,                -- the same; empty in a table that has none
    expires   BIGINT,                         -- seconds; NULL = never
    size      BIGINT NOT NULL,                -- as DynamoDB counts it
    item      TEXT   NOT NULL,                -- DynamoDB JSON
    PRIMARY KEY (table_id, hash_key, range_key)
) /*WITHOUT ROWID*/;
CREATE INDEX dynamo_item_expires ON dynamo_item (expires) WHERE expires IS NOT NULL;

-- +goose Down
DROP TABLE dynamo_item;
DROP TABLE dynamo_table;
