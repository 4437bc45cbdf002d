package sql

import (
	"context"
	"time"

	"flotilla/internal/mqtt"
)

// Input is one message with the world around it, as a statement sees it. It serves
// any number of statements and templates, one after the other: it is not safe for
// concurrent use, must not be copied, and its fields must not change after the first
// evaluation; assigning a new Input makes it ready for the next message.
type Input struct {
	// Topic is the topic as published, a Basic Ingest prefix included.
	Topic string
	// Payload is the message's payload; evaluation never writes to it.
	Payload []byte
	// AccountID is what accountid() returns.
	AccountID string
	// ClientID is the MQTT client id; empty when the message did not come over
	// MQTT, which clientid() shows as "n/a".
	ClientID string
	// PrincipalID is what principal() returns: the certificate id, for one.
	// Empty is Undefined.
	PrincipalID string
	// TraceID is what traceid() returns; empty is Undefined.
	TraceID string
	// SourceIP is what sourceip() returns; empty is Undefined.
	SourceIP string
	// Properties are the message's MQTT 5 properties; nil for none.
	Properties *mqtt.PublishProperties
	// Now is the time of timestamp(), the same for the whole message.
	Now time.Time
	// Rand returns a number in [0, 1) for rand(); nil makes rand() Undefined.
	Rand func() float64
	// NewUUID returns a random UUID as text for newuuid(); nil makes it Undefined.
	NewUUID func() string
	// Context bounds external functions; nil is context.Background().
	Context context.Context
	// External is what external functions ask; each member may be nil.
	External External
	// Failed, when not nil, hears why an external function became Undefined.
	Failed func(function string, err error)

	cache cache
}

// External holds, function by function, the systems that statements may read. A
// statement without external functions uses none of it. Implementations may block
// until ctx ends and must be safe for concurrent use. What they return is not
// changed, and must not be changed afterwards.
type External struct {
	// Lambda serves aws_lambda(functionArn, inputJson).
	Lambda Lambda
	// Shadows serves get_thing_shadow(thingName[, shadowName], roleArn).
	Shadows Shadows
	// Registry serves get_registry_data(registryAPI, thingName, roleArn).
	Registry Registry
	// Tables serves get_dynamodb(tableName, partitionKeyName, partitionKeyValue[, sortKeyName, sortKeyValue], roleArn).
	Tables Tables
	// Secrets serves get_secret(secretId, secretType[, key], roleArn).
	Secrets Secrets
	// Models serves machinelearning_predict(modelId, roleArn, record).
	Models Models
	// Schemas serves decode(value, 'proto', bucket, key, file, message).
	Schemas Schemas
}

// Lambda invokes functions.
type Lambda interface {
	// InvokeLambda invokes a function synchronously with a JSON input and returns its JSON output.
	InvokeLambda(ctx context.Context, functionARN string, input []byte) (output []byte, err error)
}

// Shadows reads device shadows.
type Shadows interface {
	// GetThingShadow returns the shadow document as the data plane does (state, metadata,
	// version, timestamp); shadowName is empty for the classic shadow. An absent shadow is an error.
	GetThingShadow(ctx context.Context, thingName, shadowName, roleARN string) (document []byte, err error)
}

// Registry reads the registry.
type Registry interface {
	// RegistryData returns the JSON response of api, "DescribeThing" or "ListThingGroupsForThing".
	RegistryData(ctx context.Context, api, thingName, roleARN string) (response []byte, err error)
}

// Tables reads DynamoDB tables.
type Tables interface {
	// GetItem returns the item with a key as one flat JSON object, or nil when there is none.
	GetItem(ctx context.Context, key TableKey) (item []byte, err error)
}

// TableKey names an item of a DynamoDB table.
type TableKey struct {
	TableName string
	// PartitionKey and SortKey are attribute names; SortKey is empty when the table has none.
	PartitionKey, SortKey string
	// PartitionValue and SortValue are JSON texts of a string or a number.
	PartitionValue, SortValue string
	RoleARN                   string
}

// Secrets reads Secrets Manager.
type Secrets interface {
	// GetSecret returns the current value; kind is "SecretString" or "SecretBinary".
	GetSecret(ctx context.Context, secretID, kind, roleARN string) (value []byte, err error)
}

// Models asks Amazon Machine Learning.
type Models interface {
	// Predict returns the JSON answer for a JSON record.
	Predict(ctx context.Context, modelID, roleARN string, record []byte) (answer []byte, err error)
}

// Schemas reads Protobuf descriptor sets.
type Schemas interface {
	// DescriptorSet returns the serialized FileDescriptorSet stored in an S3 object.
	DescriptorSet(ctx context.Context, bucket, key string) (set []byte, err error)
}

// Output is what a statement makes of a message.
type Output struct {
	// Payload is the outgoing payload. It may alias Input.Payload.
	Payload []byte
	// JSON tells whether Payload is a JSON text.
	JSON bool
}
