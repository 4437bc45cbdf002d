package provision_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"

	"flotilla/internal/aws/iot"
)

// things lists the names of all things.
func (w *world) things(t testing.TB) (names []string) {
	t.Helper()
	out := must[*iot.ListThingsResponse](t)(w.registry.ListThings(t.Context(), &iot.ListThingsRequest{}))
	for _, th := range out.Things {
		names = append(names, *th.ThingName)
	}
	slices.Sort(names)
	return names
}

// makeGroups makes thing groups, thing types and billing groups, each once.
func (w *world) makeGroups(t testing.TB, groups, types, billing []string) {
	t.Helper()
	for _, g := range unique(groups) {
		must[*iot.CreateThingGroupResponse](t)(w.registry.CreateThingGroup(t.Context(), &iot.CreateThingGroupRequest{ThingGroupName: g}))
	}
	for _, n := range unique(types) {
		must[*iot.CreateThingTypeResponse](t)(w.registry.CreateThingType(t.Context(), &iot.CreateThingTypeRequest{ThingTypeName: n}))
	}
	for _, g := range unique(billing) {
		must[*iot.CreateBillingGroupResponse](t)(w.registry.CreateBillingGroup(t.Context(), &iot.CreateBillingGroupRequest{BillingGroupName: g}))
	}
}

func unique(names []string) (out []string) {
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (w *world) makeThing(t testing.TB, v *thingVector) {
	t.Helper()
	must[*iot.CreateThingResponse](t)(w.registry.CreateThing(t.Context(), &iot.CreateThingRequest{
		ThingName: v.Name, ThingTypeName: v.Type, AttributePayload: &iot.AttributePayload{Attributes: v.Attributes}, BillingGroupName: v.BillingGroup,
	}))
	for _, g := range v.Groups {
		must[*iot.AddThingToThingGroupResponse](t)(w.registry.AddThingToThingGroup(t.Context(), &iot.AddThingToThingGroupRequest{ThingName: &v.Name, ThingGroupName: &g}))
	}
}

// thing is what the registry has of a thing, in the form and with the order of want.
func (w *world) thing(t testing.TB, want *thingVector) *thingVector {
	t.Helper()
	d, err := w.registry.DescribeThing(t.Context(), &iot.DescribeThingRequest{ThingName: want.Name})
	if err != nil {
		return nil
	}
	out := &thingVector{Name: *d.ThingName, Attributes: d.Attributes}
	if out.Attributes == nil {
		out.Attributes = map[string]string{}
	}
	if want.Attributes == nil {
		out.Attributes = nil
	}
	if want.Type != nil {
		out.Type = d.ThingTypeName
	}
	if want.BillingGroup != nil {
		out.BillingGroup = d.BillingGroupName
	}
	if want.Groups == nil {
		return out
	}
	out.Groups = []string{}
	groups := must[*iot.ListThingGroupsForThingResponse](t)(w.registry.ListThingGroupsForThing(t.Context(), &iot.ListThingGroupsForThingRequest{ThingName: want.Name}))
	for _, g := range groups.ThingGroups {
		out.Groups = append(out.Groups, *g.GroupName)
	}
	place := func(g string) int {
		if i := slices.Index(want.Groups, g); i >= 0 {
			return i
		}
		return len(want.Groups)
	}
	slices.SortFunc(out.Groups, func(a, b string) int { return place(a) - place(b) })
	return out
}

// samePublicKey tells whether a certificate is for the key of a signing request.
func samePublicKey(t testing.TB, csr, cert string) bool {
	t.Helper()
	a, _ := pem.Decode([]byte(csr))
	b, _ := pem.Decode([]byte(cert))
	if a == nil || b == nil {
		return false
	}
	r, err := x509.ParseCertificateRequest(a.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	return ok && key.Equal(c.PublicKey)
}
