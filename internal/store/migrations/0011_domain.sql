-- +goose Up
CREATE TABLE domain_configuration (
    name             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    suffix           TEXT    NOT NULL,         -- last part of its ARN, '' for the default endpoint
    domain_name      TEXT    NOT NULL,         -- lower case; '' for the default endpoint: what it is is configuration
    domain_type      TEXT    NOT NULL,         -- ENDPOINT | AWS_MANAGED | CUSTOMER_MANAGED
    status           TEXT    NOT NULL,         -- ENABLED | DISABLED
    certificate_arn  TEXT    NOT NULL,         -- '' = issued by the deployment's own authority
    authorizer       TEXT    NOT NULL,         -- default authorizer, '' = the account's
    allow_override   BOOLEAN NOT NULL,
    has_authorizer   BOOLEAN NOT NULL,         -- an authorizerConfig is set
    security_policy  TEXT    NOT NULL,
    authentication   TEXT    NOT NULL,
    application      TEXT    NOT NULL,
    created          BIGINT  NOT NULL,
    status_changed   BIGINT  NOT NULL,
    modified         BIGINT  NOT NULL
) /*WITHOUT ROWID*/;
CREATE UNIQUE INDEX domain_configuration_by_domain ON domain_configuration (domain_name);
CREATE INDEX domain_configuration_by_authorizer ON domain_configuration (authorizer);

-- +goose Down
DROP TABLE domain_configuration;
