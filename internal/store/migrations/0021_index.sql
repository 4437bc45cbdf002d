-- +goose Up

-- What the index has of a thing or a thing group.
CREATE TABLE index_document (
    number  BIGINT NOT NULL PRIMARY KEY,
    kind    BIGINT NOT NULL,                  -- 0 = AWS_Things, 1 = AWS_ThingGroups
    name    TEXT COLLATE "C" NOT NULL,
    content BYTEA  NOT NULL,                  -- its values, form in internal/index/content.go; the tables below have the same for searching
    UNIQUE (kind, name)
);

-- Names of fields, such as shadow.reported.battery.
CREATE TABLE index_field (
    number BIGINT NOT NULL PRIMARY KEY,
    kind   BIGINT NOT NULL,                   -- as in index_document
    name   TEXT COLLATE "C" NOT NULL,
    UNIQUE (kind, name)
);

-- Words of values, in lower case; of values with several words also what follows from each, so that phrases are found.
CREATE TABLE index_term (
    field    BIGINT NOT NULL,
    term     TEXT COLLATE "C" NOT NULL,
    document BIGINT NOT NULL,
    whole    BOOLEAN NOT NULL,                -- it is all of a value
    PRIMARY KEY (field, term, document)
) /*WITHOUT ROWID*/;

CREATE TABLE index_number (
    field    BIGINT NOT NULL,
    number   DOUBLE PRECISION NOT NULL,
    document BIGINT NOT NULL,
    PRIMARY KEY (field, number, document)
) /*WITHOUT ROWID*/;

CREATE TABLE index_location (
    field    BIGINT NOT NULL,
    lat      DOUBLE PRECISION NOT NULL,
    lon      DOUBLE PRECISION NOT NULL,
    document BIGINT NOT NULL,
    PRIMARY KEY (field, lat, lon, document)
) /*WITHOUT ROWID*/;

-- How an index is configured and how far it is built.
CREATE TABLE index_setting (
    kind       BIGINT  NOT NULL PRIMARY KEY,
    setting    TEXT    NOT NULL,              -- JSON, ThingIndexingConfiguration or ThingGroupIndexingConfiguration
    generation BIGINT  NOT NULL,              -- rises when all must be indexed anew
    built      BIGINT  NOT NULL,              -- the generation that is in the index
    ready      BOOLEAN NOT NULL               -- it was built at least once since it was switched on
);

-- Nodes that index what is changed on them. One that is here and does not run may have left changes out.
CREATE TABLE index_node (
    node TEXT   NOT NULL PRIMARY KEY,
    seen BIGINT NOT NULL                      -- ms
);

-- Last known connection of the client that has a thing's name.
CREATE TABLE index_connectivity (
    thing     TEXT    NOT NULL PRIMARY KEY,
    connected BOOLEAN NOT NULL,
    at        BIGINT  NOT NULL,               -- ms
    reason    TEXT    NOT NULL,               -- of the disconnect
    node      TEXT    NOT NULL
);
CREATE INDEX index_connectivity_by_node ON index_connectivity (node) WHERE connected;

CREATE TABLE fleet_metric (
    name     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    metric   TEXT   NOT NULL,                 -- JSON, CreateFleetMetricRequest
    version  BIGINT NOT NULL,
    created  BIGINT NOT NULL,                 -- ms
    modified BIGINT NOT NULL                  -- ms
);

-- Dynamic groups: what their things are found by.
ALTER TABLE thing_group ADD COLUMN query TEXT NOT NULL DEFAULT '';         -- '' = a static group
ALTER TABLE thing_group ADD COLUMN query_built BIGINT NOT NULL DEFAULT 0;  -- version whose query all memberships follow; 0 = none yet
CREATE INDEX thing_group_dynamic ON thing_group (name) WHERE query <> '';

-- +goose Down
DROP INDEX thing_group_dynamic;
ALTER TABLE thing_group DROP COLUMN query_built;
ALTER TABLE thing_group DROP COLUMN query;
DROP TABLE fleet_metric;
DROP TABLE index_connectivity;
DROP TABLE index_node;
DROP TABLE index_setting;
DROP TABLE index_location;
DROP TABLE index_number;
DROP TABLE index_term;
DROP TABLE index_field;
DROP TABLE index_document;
