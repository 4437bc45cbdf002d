package server

import (
	"context"
	"encoding/json"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/function"
	"flotilla/internal/registry"
	"flotilla/internal/rules/sql"
	"flotilla/internal/shadow"
	"flotilla/internal/table"
)

// What the rules' SQL reads from rooms. Roles are not assumed: a rule reads with the
// rights of who made it.

type sqlShadows struct{ *shadow.Shadows }

func (s sqlShadows) GetThingShadow(ctx context.Context, thing, name, _ string) ([]byte, error) {
	return s.ShadowDocument(ctx, thing, name)
}

type sqlTables struct{ *table.Tables }

func (t sqlTables) GetItem(ctx context.Context, k sql.TableKey) ([]byte, error) {
	return t.Row(ctx, k.TableName, k.PartitionKey, k.PartitionValue, k.SortKey, k.SortValue)
}

type sqlRegistry struct{ *registry.Registry }

func (r sqlRegistry) RegistryData(ctx context.Context, api, thing, _ string) ([]byte, error) {
	var out any
	var err error
	switch api {
	case "DescribeThing":
		out, err = r.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: thing})
	case "ListThingGroupsForThing":
		out, err = r.ListThingGroupsForThing(ctx, &iot.ListThingGroupsForThingRequest{ThingName: thing})
	default:
		return nil, fmt.Errorf("get_registry_data of %s", api)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

type sqlLambda struct{ *function.Functions }

func (l sqlLambda) InvokeLambda(ctx context.Context, arn string, input []byte) ([]byte, error) {
	return l.Invoke(ctx, arn, input)
}

// maxSchema bounds a Protobuf descriptor set in bytes, as the SQL bounds what other systems say.
const maxSchema = 1 << 20

// sqlSchemas reads descriptor sets of decode(…, 'proto', …) from the deployment's objects.
type sqlSchemas struct{ objects }

func (s sqlSchemas) DescriptorSet(ctx context.Context, bucket, key string) ([]byte, error) {
	set, size, _, err := s.ReadRange(ctx, bucket, key, 0, maxSchema)
	if err == nil && size > maxSchema {
		err = fmt.Errorf("the descriptor set %s in bucket %s has more than %d bytes", key, bucket, maxSchema)
	}
	return set, err
}
