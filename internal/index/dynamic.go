package index

import (
	"context"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

// dynamicGroup is a thing group whose members a query finds.
type dynamicGroup struct {
	name, text string
	query      *query.Query
	building   bool
}

// dynamicGroups are all of them, by name.
type dynamicGroups []dynamicGroup

func (l dynamicGroups) has(name string) bool {
	_, has := slices.BinarySearchFunc(l, name, func(g dynamicGroup, name string) int {
		switch {
		case g.name < name:
			return -1
		case g.name > name:
			return 1
		}
		return 0
	})
	return has
}

// CheckQuery gives a ResourceNotFoundException or IndexNotReadyException for an index that can't be searched, and what
// SearchIndex says to a query that is none. name and version may be nil.
func (x *Index) CheckQuery(ctx context.Context, name *string, text string, version *string) error {
	if _, err := x.parse(text, version); err != nil {
		return err
	}
	return x.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		_, _, err := ready(tx, name)
		return err
	})
}

// dynamicGroups reads the groups. A query that no longer parses, as limits were lowered, keeps the things it has.
func (x *Index) dynamicGroups(ctx context.Context) (dynamicGroups, error) {
	if x.deps.Dynamic == nil {
		return nil, nil
	}
	list, err := x.deps.Dynamic.DynamicThingGroups(ctx)
	if err != nil {
		return nil, err
	}
	var known map[string]*query.Query
	if p := x.queries.Load(); p != nil {
		known = *p
	}
	parsed := make(map[string]*query.Query, len(list))
	out := make(dynamicGroups, 0, len(list))
	for _, g := range list {
		d := dynamicGroup{name: value(g.ThingGroupName), text: value(g.QueryString), building: value(g.Status) != iot.DynamicGroupStatusActive}
		var is bool
		if d.query, is = known[d.text]; !is {
			if d.query, err = x.read(d.text); err != nil {
				x.log.Warn("a dynamic thing group follows no longer: its query does not parse", "group", d.name, "err", err)
			}
		}
		parsed[d.text] = d.query
		out = append(out, d)
	}
	x.queries.Store(&parsed)
	return out, nil
}

// regroup brings a thing's memberships in line with its document, in the transaction that writes it.
func (x *Index) regroup(ctx context.Context, list dynamicGroups, thing string, doc query.Document) error {
	var in, out []string
	for i := range list {
		switch {
		case list[i].query == nil:
		case list[i].query.Match(doc):
			in = append(in, list[i].name)
		default:
			out = append(out, list[i].name)
		}
	}
	return x.deps.Dynamic.SetDynamicThingGroups(ctx, thing, in, out)
}

// buildDynamic holds all things against the groups that are new or have a new query. What changes meanwhile is held
// against them when it is indexed.
func (x *Index) buildDynamic(ctx context.Context) error {
	var on bool
	var list dynamicGroups
	err := x.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		s, err := selectSettings(tx)
		if err != nil {
			return err
		}
		on = s.on(things)
		list, err = x.dynamicGroups(ctx)
		return err
	})
	if err != nil || !on {
		return err
	}
	for _, g := range list {
		if !g.building || g.query == nil {
			continue
		}
		if err := x.buildGroup(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// findAtOnce is how many things of a new group are looked for at once.
const findAtOnce = 1024

func (x *Index) buildGroup(ctx context.Context, g dynamicGroup) error {
	for after := int64(0); ; {
		var hits []hit
		err := x.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
			hits, err = x.find(tx, things, g.query, after, findAtOnce)
			return err
		})
		if err != nil {
			return err
		}
		if len(hits) == 0 {
			break
		}
		after = hits[len(hits)-1].number
		names := make([]string, len(hits))
		for i, h := range hits {
			names[i] = h.name
		}
		for part := range slices.Chunk(names, atOnce) {
			if err := x.rematch(ctx, part); err != nil {
				return err
			}
		}
	}
	for token := (*string)(nil); ; {
		out, err := x.deps.Dynamic.ListThingsInThingGroup(ctx, &iot.ListThingsInThingGroupRequest{
			ThingGroupName: g.name, NextToken: token, MaxResults: new(int32(atOnce)),
		})
		if err != nil {
			return err
		}
		if err := x.rematch(ctx, out.Things); err != nil {
			return err
		}
		if token = out.NextToken; token == nil {
			break
		}
	}
	return x.deps.Dynamic.DynamicThingGroupBuilt(ctx, g.name, g.text)
}

// rematch holds indexed documents against the groups, at most atOnce of them.
func (x *Index) rematch(ctx context.Context, names []string) error {
	return x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		list, err := x.dynamicGroups(ctx)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(slices.Values(names)) { // in order: nodes that wait for each other do not wait in a circle
			exists, err := x.deps.Dynamic.TouchThing(ctx, name)
			if err != nil {
				return err
			}
			if !exists {
				continue
			}
			d, err := selectDocument(tx, things, name)
			if err != nil {
				return err
			}
			if d.number == 0 {
				continue
			}
			doc, err := decode(d.content)
			if err != nil {
				return err
			}
			if err := x.regroup(ctx, list, name, doc); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}
