package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const off = "OFF"

// settings are how the indexes are configured and how far they are built.
type settings struct {
	things iot.ThingIndexingConfiguration
	groups iot.ThingGroupIndexingConfiguration
	state  [kinds]state
}

// state is how far an index is built.
type state struct {
	generation, built int64
	ready             bool
}

func (s *settings) on(kind int64) bool {
	if kind == groups {
		return s.groups.ThingGroupIndexingMode == iot.ThingGroupIndexingModeOn
	}
	return s.things.ThingIndexingMode == iot.ThingIndexingModeRegistry || s.shadows()
}

func (s *settings) shadows() bool {
	return s.things.ThingIndexingMode == iot.ThingIndexingModeRegistryAndShadow
}

func (s *settings) connectivity() bool {
	return s.on(things) && value(s.things.ThingConnectivityIndexingMode) == iot.ThingConnectivityIndexingModeStatus
}

func (s *settings) named() []string {
	if !s.on(things) || value(s.things.NamedShadowIndexingMode) != iot.NamedShadowIndexingModeOn || s.things.Filter == nil {
		return nil
	}
	return s.things.Filter.NamedShadowNames
}

func selectSettings(tx store.Tx) (*settings, error) {
	s := &settings{}
	s.things.ThingIndexingMode, s.groups.ThingGroupIndexingMode = off, off
	rows, err := tx.Query(`SELECT kind, setting, generation, built, ready FROM index_setting`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind int64
		var text string
		var st state
		if err := rows.Scan(&kind, &text, &st.generation, &st.built, &st.ready); err != nil {
			return nil, err
		}
		var into any = &s.things
		if kind == groups {
			into = &s.groups
		}
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return nil, fmt.Errorf("index: setting: %w", err)
		}
		s.state[kind] = st
	}
	return s, errors.Join(rows.Err(), rows.Close())
}

func saveSetting(tx store.Tx, kind int64, setting any, on bool) error {
	text, err := json.Marshal(setting)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO index_setting (kind, setting, generation, built, ready) VALUES ($1, $2, 1, 0, FALSE)
		ON CONFLICT (kind) DO UPDATE SET setting = excluded.setting, generation = index_setting.generation + 1, ready = index_setting.ready AND $3`,
		kind, string(text), on)
	return err
}

// UpdateIndexingConfiguration says what is indexed; everything is then indexed anew in the background.
//
// Errors: iot.InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateIndexingConfiguration.html
func (x *Index) UpdateIndexingConfiguration(ctx context.Context, in *iot.UpdateIndexingConfigurationRequest) (*iot.UpdateIndexingConfigurationResponse, error) {
	t, g := in.ThingIndexingConfiguration, in.ThingGroupIndexingConfiguration
	if t != nil {
		if err := checkThings(t); err != nil {
			return nil, err
		}
	}
	if g != nil {
		g.ManagedFields = nil
		if err := checkFields(g.CustomFields, []string{"attributes."}); err != nil {
			return nil, err
		}
	}
	err := x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if t != nil {
			if err := saveSetting(tx, things, t, t.ThingIndexingMode != off); err != nil {
				return err
			}
			if !(&settings{things: *t}).connectivity() {
				if err := forgetConnectivity(tx); err != nil {
					return err
				}
			}
		}
		if g != nil {
			if err := saveSetting(tx, groups, g, g.ThingGroupIndexingMode != off); err != nil {
				return err
			}
		}
		x.db.AfterCommit(ctx, func() { x.deps.Changes.Changed(kindSetting, "") })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateIndexingConfigurationResponse{}, nil
}

func checkThings(t *iot.ThingIndexingConfiguration) error {
	t.ManagedFields = nil // they are ours to say
	if value(t.DeviceDefenderIndexingMode) == iot.DeviceDefenderIndexingModeViolations {
		return &aws.CommonError{Status: http.StatusNotImplemented, Code: "NotImplementedException", Message: "deviceDefenderIndexingMode VIOLATIONS is not implemented."}
	}
	if t.ThingIndexingMode == off {
		for _, mode := range []*string{t.ThingConnectivityIndexingMode, t.NamedShadowIndexingMode} {
			if mode != nil && *mode != off {
				return invalid("Connectivity and named shadows can't be indexed when thingIndexingMode is OFF")
			}
		}
	}
	prefixes := []string{"attributes."}
	if t.ThingIndexingMode == iot.ThingIndexingModeRegistryAndShadow {
		prefixes = append(prefixes, "shadow.desired.", "shadow.reported.")
	}
	var names []string
	if t.Filter != nil {
		names = t.Filter.NamedShadowNames
	}
	isOn := value(t.NamedShadowIndexingMode) == iot.NamedShadowIndexingModeOn
	if isOn && len(names) == 0 {
		return invalid("namedShadowNames is required when namedShadowIndexingMode is ON")
	}
	if !isOn && len(names) > 0 {
		return invalid("namedShadowIndexingMode must be ON to index named shadows")
	}
	for _, n := range names {
		prefixes = append(prefixes, "shadow.name."+n+".desired.", "shadow.name."+n+".reported.")
	}
	if t.Filter != nil {
		for _, g := range t.Filter.GeoLocations {
			if !hasPrefix(value(g.Name), prefixes) {
				return invalid("Invalid geolocation field %s", value(g.Name))
			}
		}
	}
	return checkFields(t.CustomFields, prefixes)
}

func checkFields(fields []*iot.Field, prefixes []string) error {
	seen := map[string]bool{}
	for _, f := range fields {
		name := value(f.Name)
		if !hasPrefix(name, prefixes) {
			return invalid("Invalid custom field %s: it is in nothing that is indexed", name)
		}
		if seen[name] {
			return invalid("Custom field %s is given twice", name)
		}
		seen[name] = true
	}
	return nil
}

func hasPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) && len(s) > len(p) })
}

// fieldTypes are the fields of an index whose types are known.
func (s *settings) fieldTypes(kind int64) (managed, custom []*iot.Field) {
	add := func(typ string, names ...string) {
		for _, n := range names {
			managed = append(managed, &iot.Field{Name: new(n), Type: new(typ)})
		}
	}
	if kind == groups {
		add(iot.FieldTypeString, "thingGroupName", "thingGroupId", "thingGroupDescription", "parentGroupNames")
		return managed, s.groups.CustomFields
	}
	add(iot.FieldTypeString, "thingName", "thingId", "registry.thingTypeName", "registry.thingGroupNames")
	add(iot.FieldTypeNumber, "registry.version")
	if s.shadows() {
		add(iot.FieldTypeNumber, "shadow.version")
		add(iot.FieldTypeBoolean, "shadow.hasDelta")
	}
	for _, n := range s.named() {
		add(iot.FieldTypeNumber, "shadow.name."+n+".version")
		add(iot.FieldTypeBoolean, "shadow.name."+n+".hasDelta")
	}
	if s.connectivity() {
		add(iot.FieldTypeBoolean, "connectivity.connected")
		add(iot.FieldTypeNumber, "connectivity.timestamp", "connectivity.version")
		add(iot.FieldTypeString, "connectivity.disconnectReason")
	}
	return managed, s.things.CustomFields
}

func (x *Index) settings(ctx context.Context) (s *settings, err error) {
	err = x.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		s, err = selectSettings(tx)
		return err
	})
	return s, err
}

// GetIndexingConfiguration tells what is indexed.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetIndexingConfiguration.html
func (x *Index) GetIndexingConfiguration(ctx context.Context, _ *iot.GetIndexingConfigurationRequest) (*iot.GetIndexingConfigurationResponse, error) {
	s, err := x.settings(ctx)
	if err != nil {
		return nil, err
	}
	out := &iot.GetIndexingConfigurationResponse{ThingIndexingConfiguration: &s.things, ThingGroupIndexingConfiguration: &s.groups}
	if s.on(things) {
		s.things.ManagedFields, _ = s.fieldTypes(things)
	}
	for _, mode := range []**string{&s.things.ThingConnectivityIndexingMode, &s.things.DeviceDefenderIndexingMode, &s.things.NamedShadowIndexingMode} {
		if *mode == nil {
			*mode = new(off)
		}
	}
	if s.on(groups) {
		s.groups.ManagedFields, _ = s.fieldTypes(groups)
	}
	return out, nil
}

// kindOf finds an index by its name.
func (s *settings) kindOf(name string) (int64, error) {
	kind := int64(slices.Index(indexNames[:], name))
	if kind < 0 || !s.on(kind) {
		return 0, &iot.ResourceNotFoundException{Message: "Index " + name + " does not exist"}
	}
	return kind, nil
}

func (s *settings) status(kind int64) string {
	switch st := s.state[kind]; {
	case st.built == st.generation:
		return iot.IndexStatusActive
	case st.ready:
		return iot.IndexStatusRebuilding
	}
	return iot.IndexStatusBuilding
}

// DescribeIndex tells of an index.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeIndex.html
func (x *Index) DescribeIndex(ctx context.Context, in *iot.DescribeIndexRequest) (*iot.DescribeIndexResponse, error) {
	s, err := x.settings(ctx)
	if err != nil {
		return nil, err
	}
	kind, err := s.kindOf(in.IndexName)
	if err != nil {
		return nil, err
	}
	schema := "REGISTRY"
	switch {
	case kind == groups:
		schema = "THING_GROUPS"
	case s.shadows():
		schema = "REGISTRY_AND_SHADOW"
	}
	if kind == things && s.connectivity() {
		schema += "_AND_CONNECTIVITY_STATUS"
	}
	if len(s.named()) > 0 {
		schema = "MULTI_INDEXING_MODE"
	}
	return &iot.DescribeIndexResponse{IndexName: &in.IndexName, IndexStatus: new(s.status(kind)), Schema: &schema}, nil
}

// ListIndices lists the indexes that are switched on.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListIndices.html
func (x *Index) ListIndices(ctx context.Context, _ *iot.ListIndicesRequest) (*iot.ListIndicesResponse, error) {
	s, err := x.settings(ctx)
	if err != nil {
		return nil, err
	}
	out := &iot.ListIndicesResponse{IndexNames: []string{}}
	for kind := range kinds {
		if s.on(kind) {
			out.IndexNames = append(out.IndexNames, indexNames[kind])
		}
	}
	return out, nil
}
