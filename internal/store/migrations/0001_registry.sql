-- +goose Up

-- Names and values are compared byte by byte on both engines: pages and prefixes depend on it.
CREATE TABLE thing (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id         TEXT   NOT NULL,
    type       TEXT COLLATE "C" NOT NULL,     -- '' = none
    billing    TEXT COLLATE "C" NOT NULL,     -- billing group, '' = none
    attributes TEXT   NOT NULL,               -- JSON object of strings; thing_attribute has the same for searching
    version    BIGINT NOT NULL,
    created    BIGINT NOT NULL
);
CREATE INDEX thing_by_type ON thing (type, name) WHERE type <> '';
CREATE INDEX thing_by_billing ON thing (billing, name) WHERE billing <> '';

CREATE TABLE thing_attribute (
    name  TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    thing TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (name, value, thing)
) /*WITHOUT ROWID*/;

CREATE TABLE thing_type (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id          TEXT   NOT NULL,
    description TEXT   NOT NULL,
    searchable  TEXT   NOT NULL,              -- JSON array of attribute names
    created     BIGINT NOT NULL,
    deprecated  BIGINT NOT NULL               -- 0 = it is not
);

-- A group's parent never changes, so its ancestors are kept with it.
CREATE TABLE thing_group (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    number      BIGINT NOT NULL UNIQUE,       -- what members refer to; not used again
    id          TEXT   NOT NULL,
    parent      TEXT COLLATE "C" NOT NULL,    -- '' = a root
    ancestors   TEXT   NOT NULL,              -- JSON array of names, root first, parent last
    description TEXT   NOT NULL,
    attributes  TEXT   NOT NULL,              -- JSON object of strings
    version     BIGINT NOT NULL,
    created     BIGINT NOT NULL
);
CREATE INDEX thing_group_by_parent ON thing_group (parent, name);

CREATE TABLE thing_group_ancestor (
    ancestor TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (ancestor, name)
) /*WITHOUT ROWID*/;

-- thing_group_member has the groups that a thing was added to, thing_group_reach their ancestors.
CREATE TABLE thing_group_member (
    thing        TEXT COLLATE "C" NOT NULL,
    group_number BIGINT NOT NULL,
    PRIMARY KEY (thing, group_number)
) /*WITHOUT ROWID*/;
CREATE INDEX thing_group_member_by_group ON thing_group_member (group_number, thing);

CREATE TABLE thing_group_reach (
    group_number BIGINT NOT NULL,
    thing        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (group_number, thing)
) /*WITHOUT ROWID*/;

CREATE TABLE billing_group (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id          TEXT   NOT NULL,
    description TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    created     BIGINT NOT NULL
);

-- principal is an ARN.
CREATE TABLE thing_principal (
    thing     TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    exclusive BOOLEAN NOT NULL,
    PRIMARY KEY (thing, principal)
) /*WITHOUT ROWID*/;
CREATE INDEX thing_principal_by_principal ON thing_principal (principal, thing);

-- A row for each principal that has things. Nodes that attach it at the same time contend for the row, so that an
-- exclusive attachment stays one.
CREATE TABLE attached_principal (
    principal TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    changes   BIGINT NOT NULL
) /*WITHOUT ROWID*/;

-- Tags of any resource, by ARN.
CREATE TABLE tag (
    resource TEXT COLLATE "C" NOT NULL,
    key      TEXT COLLATE "C" NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (resource, key)
) /*WITHOUT ROWID*/;

-- +goose Down
DROP TABLE tag;
DROP TABLE attached_principal;
DROP TABLE thing_principal;
DROP TABLE billing_group;
DROP TABLE thing_group_reach;
DROP TABLE thing_group_member;
DROP TABLE thing_group_ancestor;
DROP TABLE thing_group;
DROP TABLE thing_type;
DROP TABLE thing_attribute;
DROP TABLE thing;
