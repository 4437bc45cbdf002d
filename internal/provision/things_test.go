package provision_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// things stands for the registry: it keeps what it is told in the store, so that it takes part in transactions as
// the room does.
type things struct{ db *store.DB }

// thingRow is what is kept of a thing.
type thingRow struct {
	Name          string
	Attributes    map[string]string
	Type, Billing *string
	Groups        []string
}

func newThings(t testing.TB, w *world, _ *bus) *things {
	t.Helper()
	err := w.db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE test_registry (kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, name))`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return &things{w.db}
}

func (s *things) get(ctx context.Context, kind, name string, to any) error {
	return s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var text string
		err := tx.QueryRow(`SELECT value FROM test_registry WHERE kind = $1 AND name = $2`, kind, name).Scan(&text)
		if errors.Is(err, store.ErrNotFound) {
			return &iot.ResourceNotFoundException{Message: kind + " " + name + " not found"}
		}
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(text), to)
	})
}

func (s *things) put(ctx context.Context, kind, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO test_registry (kind, name, value) VALUES ($1, $2, $3) ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value`,
			kind, name, string(text))
		return err
	})
}

// change reads a thing, changes it and writes it back.
func (s *things) change(ctx context.Context, name string, fn func(ctx context.Context, th *thingRow) error) error {
	return s.db.Write(ctx, func(ctx context.Context, _ store.Tx) error {
		var th thingRow
		if err := s.get(ctx, "thing", name, &th); err != nil {
			return err
		}
		if err := fn(ctx, &th); err != nil {
			return err
		}
		return s.put(ctx, "thing", name, &th)
	})
}

func (s *things) DescribeThing(ctx context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error) {
	var th thingRow
	if err := s.get(ctx, "thing", in.ThingName, &th); err != nil {
		return nil, err
	}
	return &iot.DescribeThingResponse{
		ThingName: &th.Name, ThingArn: new(account.ARN("iot", "thing/"+th.Name)), Attributes: th.Attributes,
		ThingTypeName: th.Type, BillingGroupName: th.Billing,
	}, nil
}

func (s *things) CreateThing(ctx context.Context, in *iot.CreateThingRequest) (*iot.CreateThingResponse, error) {
	th := &thingRow{Name: in.ThingName, Attributes: map[string]string{}, Type: in.ThingTypeName, Billing: in.BillingGroupName}
	if p := in.AttributePayload; p != nil {
		maps.Copy(th.Attributes, p.Attributes)
	}
	for kind, name := range map[string]*string{"type": th.Type, "billing group": th.Billing} {
		if name != nil {
			if err := s.get(ctx, kind, *name, new(any)); err != nil {
				return nil, err
			}
		}
	}
	if err := s.put(ctx, "thing", th.Name, th); err != nil {
		return nil, err
	}
	return &iot.CreateThingResponse{ThingName: &th.Name, ThingArn: new(account.ARN("iot", "thing/"+th.Name))}, nil
}

func (s *things) UpdateThing(ctx context.Context, in *iot.UpdateThingRequest) (*iot.UpdateThingResponse, error) {
	err := s.change(ctx, in.ThingName, func(ctx context.Context, th *thingRow) error {
		if p := in.AttributePayload; p != nil {
			if p.Merge == nil || !*p.Merge {
				th.Attributes = map[string]string{}
			}
			maps.Copy(th.Attributes, p.Attributes)
		}
		if in.ThingTypeName != nil {
			th.Type = in.ThingTypeName
			return s.get(ctx, "type", *th.Type, new(any))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateThingResponse{}, nil
}

func (s *things) AttachThingPrincipal(ctx context.Context, in *iot.AttachThingPrincipalRequest) (*iot.AttachThingPrincipalResponse, error) {
	err := s.change(ctx, in.ThingName, func(ctx context.Context, _ *thingRow) error {
		var names []string
		if err := s.get(ctx, "principal", in.Principal, &names); err != nil && !notFound(err) {
			return err
		}
		return s.put(ctx, "principal", in.Principal, append(names, in.ThingName))
	})
	if err != nil {
		return nil, err
	}
	return &iot.AttachThingPrincipalResponse{}, nil
}

func (s *things) ListPrincipalThings(ctx context.Context, in *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error) {
	out := &iot.ListPrincipalThingsResponse{}
	if err := s.get(ctx, "principal", in.Principal, &out.Things); err != nil && !notFound(err) {
		return nil, err
	}
	return out, nil
}

func (s *things) ListThings(ctx context.Context, _ *iot.ListThingsRequest) (*iot.ListThingsResponse, error) {
	out := &iot.ListThingsResponse{}
	err := s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		rows, err := tx.Query(`SELECT name FROM test_registry WHERE kind = 'thing'`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			out.Things = append(out.Things, &iot.ThingAttribute{ThingName: &name})
		}
		return rows.Err()
	})
	return out, err
}

func (s *things) ListThingGroupsForThing(ctx context.Context, in *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error) {
	var th thingRow
	if err := s.get(ctx, "thing", in.ThingName, &th); err != nil {
		return nil, err
	}
	out := &iot.ListThingGroupsForThingResponse{}
	for _, g := range th.Groups {
		out.ThingGroups = append(out.ThingGroups, &iot.GroupNameAndArn{GroupName: &g})
	}
	return out, nil
}

func (s *things) AddThingToThingGroup(ctx context.Context, in *iot.AddThingToThingGroupRequest) (*iot.AddThingToThingGroupResponse, error) {
	err := s.change(ctx, *in.ThingName, func(ctx context.Context, th *thingRow) error {
		th.Groups = append(th.Groups, *in.ThingGroupName)
		return s.get(ctx, "group", *in.ThingGroupName, new(any))
	})
	if err != nil {
		return nil, err
	}
	return &iot.AddThingToThingGroupResponse{}, nil
}

func (s *things) RemoveThingFromThingGroup(ctx context.Context, in *iot.RemoveThingFromThingGroupRequest) (*iot.RemoveThingFromThingGroupResponse, error) {
	err := s.change(ctx, *in.ThingName, func(_ context.Context, th *thingRow) error {
		th.Groups = slices.DeleteFunc(th.Groups, func(g string) bool { return g == *in.ThingGroupName })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.RemoveThingFromThingGroupResponse{}, nil
}

func (s *things) AddThingToBillingGroup(ctx context.Context, in *iot.AddThingToBillingGroupRequest) (*iot.AddThingToBillingGroupResponse, error) {
	err := s.change(ctx, *in.ThingName, func(ctx context.Context, th *thingRow) error {
		th.Billing = in.BillingGroupName
		return s.get(ctx, "billing group", *in.BillingGroupName, new(any))
	})
	if err != nil {
		return nil, err
	}
	return &iot.AddThingToBillingGroupResponse{}, nil
}

func (s *things) CreateThingGroup(ctx context.Context, in *iot.CreateThingGroupRequest) (*iot.CreateThingGroupResponse, error) {
	return &iot.CreateThingGroupResponse{}, s.put(ctx, "group", in.ThingGroupName, true)
}

func (s *things) CreateThingType(ctx context.Context, in *iot.CreateThingTypeRequest) (*iot.CreateThingTypeResponse, error) {
	return &iot.CreateThingTypeResponse{}, s.put(ctx, "type", in.ThingTypeName, true)
}

func (s *things) CreateBillingGroup(ctx context.Context, in *iot.CreateBillingGroupRequest) (*iot.CreateBillingGroupResponse, error) {
	return &iot.CreateBillingGroupResponse{}, s.put(ctx, "billing group", in.BillingGroupName, true)
}

// What policy asks of the registry.

func (s *things) PolicyThing(context.Context, string, string) (*lang.Thing, error) { return nil, nil }

func (s *things) ThingGroupsOfPrincipal(context.Context, string) ([]string, error) { return nil, nil }

func (s *things) DescribeThingGroup(_ context.Context, in *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error) {
	return nil, &iot.ResourceNotFoundException{Message: in.ThingGroupName}
}
