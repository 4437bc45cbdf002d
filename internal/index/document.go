package index

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

// maxGroups bounds the groups of a thing that are read.
const maxGroups = 1000

// shape is a document as SearchIndex answers it; one of the two is set.
type shape struct {
	thing   *iot.ThingDocument
	group   *iot.ThingGroupDocument
	shadow  map[string]any // what thing.Shadow has
	billing string         // group; among thing.ThingGroupNames
	version int64          // of the registry
}

// load reads what the index has of a thing or group; nil when there is none, or its index is off.
func (x *Index) load(ctx context.Context, tx store.Tx, s *settings, kind int64, name string) (*shape, error) {
	if !s.on(kind) {
		return nil, nil
	}
	if kind == groups {
		return x.loadGroup(ctx, name)
	}
	t, err := x.deps.Registry.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: name})
	if _, missing := errors.AsType[*iot.ResourceNotFoundException](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &shape{thing: &iot.ThingDocument{ThingName: &name, ThingId: t.ThingId, ThingTypeName: t.ThingTypeName, Attributes: t.Attributes}, version: value(t.Version)}
	in := &iot.ListThingGroupsForThingRequest{ThingName: name, MaxResults: new(int32(250))}
	for {
		out, err := x.deps.Registry.ListThingGroupsForThing(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, g := range out.ThingGroups {
			d.thing.ThingGroupNames = append(d.thing.ThingGroupNames, value(g.GroupName))
		}
		if in.NextToken = out.NextToken; in.NextToken == nil || len(d.thing.ThingGroupNames) >= maxGroups {
			break
		}
	}
	if d.billing = value(t.BillingGroupName); d.billing != "" && !slices.Contains(d.thing.ThingGroupNames, d.billing) {
		d.thing.ThingGroupNames = append(d.thing.ThingGroupNames, d.billing)
	}
	if err := x.loadShadows(ctx, s, name, d); err != nil {
		return nil, err
	}
	if s.connectivity() {
		d.thing.Connectivity, err = selectConnectivity(tx, name)
	}
	return d, err
}

// loadShadows reads the shadows that are indexed into d.
func (x *Index) loadShadows(ctx context.Context, s *settings, thing string, d *shape) error {
	shadow := map[string]any{}
	if s.shadows() {
		classic, err := x.loadShadow(ctx, thing, nil)
		if err != nil {
			return err
		}
		if classic != nil {
			shadow = classic
		}
	}
	all := map[string]any{}
	for _, n := range s.named() {
		named, err := x.loadShadow(ctx, thing, &n)
		if err != nil {
			return err
		}
		if named != nil {
			all[n] = named
		}
	}
	if len(all) > 0 {
		shadow["name"] = all
	}
	if len(shadow) == 0 {
		return nil
	}
	text, err := json.Marshal(shadow)
	d.shadow, d.thing.Shadow = shadow, new(string(text))
	return err
}

// loadShadow gives a shadow as {desired, reported, delta, hasDelta, version}; nil when there is none.
func (x *Index) loadShadow(ctx context.Context, thing string, name *string) (map[string]any, error) {
	out, err := x.deps.Shadows.GetThingShadow(ctx, &iotdata.GetThingShadowRequest{ThingName: thing, ShadowName: name})
	if _, missing := errors.AsType[*iotdata.ResourceNotFoundException](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		State   map[string]json.RawMessage
		Version json.Number
	}
	if err := json.Unmarshal(out.Payload, &doc); err != nil {
		return nil, err
	}
	shadow := map[string]any{"hasDelta": doc.State["delta"] != nil, "version": doc.Version}
	for _, part := range []string{"desired", "reported", "delta"} {
		if doc.State[part] == nil {
			continue
		}
		dec := json.NewDecoder(strings.NewReader(string(doc.State[part])))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		shadow[part] = v
	}
	return shadow, nil
}

func (x *Index) loadGroup(ctx context.Context, name string) (*shape, error) {
	g, err := x.deps.Registry.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: name})
	if _, missing := errors.AsType[*iot.ResourceNotFoundException](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &iot.ThingGroupDocument{ThingGroupName: g.ThingGroupName, ThingGroupId: g.ThingGroupId}
	if p := g.ThingGroupProperties; p != nil {
		d.ThingGroupDescription = p.ThingGroupDescription
		if p.AttributePayload != nil {
			d.Attributes = p.AttributePayload.Attributes
		}
	}
	if m := g.ThingGroupMetadata; m != nil {
		for _, a := range m.RootToParentThingGroups {
			d.ParentGroupNames = append(d.ParentGroupNames, value(a.GroupName))
		}
	}
	return &shape{group: d}, nil
}

// document makes the values of a shape, in order. Dynamic groups are not among them: they follow from what is.
func (x *Index) document(d *shape, s *settings, dynamic dynamicGroups) query.Document {
	var doc query.Document
	text := func(field string, list ...*string) {
		for _, t := range list {
			if t != nil && *t != "" {
				v := query.Text(field, *t)
				doc = append(doc, v)
			}
		}
	}
	count := func(field string, n int64) {
		doc, _ = query.Leaves(doc, field, float64(n), x.cfg.MaxValues)
	}
	var attributes map[string]string
	if g := d.group; g != nil {
		attributes = g.Attributes
		text("thingGroupName", g.ThingGroupName)
		text("thingGroupId", g.ThingGroupId)
		text("thingGroupDescription", g.ThingGroupDescription)
		for _, p := range g.ParentGroupNames {
			text("parentGroupNames", &p)
		}
	} else {
		t := d.thing
		attributes = t.Attributes
		text("thingName", t.ThingName)
		text("thingId", t.ThingId)
		text("thingTypeName", t.ThingTypeName)
		count("registry.version", d.version)
		for _, g := range t.ThingGroupNames {
			if !dynamic.has(g) || g == d.billing {
				text("thingGroupNames", &g)
			}
		}
		if c := t.Connectivity; c != nil {
			count("connectivity.timestamp", value(c.Timestamp))
			doc, _ = query.Leaves(doc, "connectivity.connected", value(c.Connected), x.cfg.MaxValues)
			text("connectivity.disconnectReason", c.DisconnectReason)
		}
	}
	for k, v := range attributes {
		text("attributes."+k, &v)
	}
	if d.shadow != nil {
		doc, _ = query.Leaves(doc, "shadow", d.shadow, x.cfg.MaxValues)
	}
	if s.things.Filter != nil && d.thing != nil {
		for _, g := range s.things.Filter.GeoLocations {
			doc = locate(doc, d, value(g.Name), value(g.Order) == iot.TargetFieldOrderLonLat)
		}
	}
	slices.SortFunc(doc, compare)
	return slices.CompactFunc(doc, func(a, b query.Value) bool { return compare(a, b) == 0 })
}

func compare(a, b query.Value) int {
	return cmp.Or(strings.Compare(a.Field, b.Field), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Text, b.Text),
		cmp.Compare(a.Lat, b.Lat), cmp.Compare(a.Lon, b.Lon))
}

// locate adds the location that a field has, if it is one.
func locate(doc query.Document, d *shape, field string, lonLat bool) query.Document {
	var v any
	if name, is := strings.CutPrefix(field, "attributes."); is {
		v = d.thing.Attributes[name]
	} else if rest, is := strings.CutPrefix(field, "shadow."); is {
		v = d.shadow
		for part := range strings.SplitSeq(rest, ".") {
			m, _ := v.(map[string]any)
			v = m[part]
		}
	}
	if lat, lon, ok := query.Location(v, lonLat); ok {
		doc = append(doc, query.Value{Field: field, Located: true, Lat: lat, Lon: lon, Number: math.NaN()})
	}
	return doc
}
