package provision_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/provision"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// code is the exception's name, "" for success.
func code(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var exc aws.Exception
	if !errors.As(err, &exc) {
		t.Fatalf("%T is no exception: %v", err, err)
	}
	return strings.TrimSuffix(exc.ErrorCode(), "Exception")
}

func create(name, body string) *iot.CreateProvisioningTemplateRequest {
	return &iot.CreateProvisioningTemplateRequest{TemplateName: name, TemplateBody: body, ProvisioningRoleArn: roleARN}
}

func TestTemplateLife(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, nil)
		ctx := t.Context()
		in := create("T", fleetBody)
		in.Description = new("first")
		made := must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(ctx, in))
		arn := account.ARN("iot", "provisioningtemplate/T")
		if diff := cmp.Diff(&iot.CreateProvisioningTemplateResponse{TemplateArn: &arn, TemplateName: new("T"), DefaultVersionId: new(int32(1))}, made); diff != "" {
			t.Error(diff)
		}
		if _, err := w.CreateProvisioningTemplate(ctx, in); code(t, err) != "ResourceAlreadyExists" {
			t.Errorf("twice: %v", err)
		}
		describe := func() *iot.DescribeProvisioningTemplateResponse {
			return must[*iot.DescribeProvisioningTemplateResponse](t)(w.DescribeProvisioningTemplate(ctx, &iot.DescribeProvisioningTemplateRequest{TemplateName: "T"}))
		}
		now := &aws.Time{Time: w.clock.now().UTC().Truncate(1e6)}
		want := &iot.DescribeProvisioningTemplateResponse{
			TemplateArn: &arn, TemplateName: new("T"), Description: new("first"), CreationDate: now, LastModifiedDate: now,
			DefaultVersionId: new(int32(1)), TemplateBody: new(fleetBody), Enabled: new(false), ProvisioningRoleArn: new(roleARN),
			Type: new("FLEET_PROVISIONING"),
		}
		if diff := cmp.Diff(want, describe()); diff != "" {
			t.Error(diff)
		}

		version := func(body string, setDefault bool) (*iot.CreateProvisioningTemplateVersionResponse, error) {
			return w.CreateProvisioningTemplateVersion(ctx, &iot.CreateProvisioningTemplateVersionRequest{TemplateName: "T", TemplateBody: body, SetAsDefault: &setDefault})
		}
		second := strings.Replace(fleetBody, "dev", "two", 1)
		v := must[*iot.CreateProvisioningTemplateVersionResponse](t)(version(second, false))
		if *v.VersionId != 2 || *v.IsDefaultVersion {
			t.Errorf("version %d, default %v", *v.VersionId, *v.IsDefaultVersion)
		}
		must[*iot.UpdateProvisioningTemplateResponse](t)(w.UpdateProvisioningTemplate(ctx, &iot.UpdateProvisioningTemplateRequest{
			TemplateName: "T", DefaultVersionId: new(int32(2)), Description: new("second"), Enabled: new(true), ProvisioningRoleArn: new(roleARN + "2"),
		}))
		if d := describe(); *d.TemplateBody != second || *d.Description != "second" || !*d.Enabled || *d.ProvisioningRoleArn != roleARN+"2" {
			t.Errorf("got %+v", d)
		}
		if _, err := w.DeleteProvisioningTemplateVersion(ctx, &iot.DeleteProvisioningTemplateVersionRequest{TemplateName: "T", VersionId: 2}); code(t, err) != "DeleteConflict" {
			t.Errorf("default version: %v", err)
		}
		must[*iot.DeleteProvisioningTemplateVersionResponse](t)(w.DeleteProvisioningTemplateVersion(ctx, &iot.DeleteProvisioningTemplateVersionRequest{TemplateName: "T", VersionId: 1}))
		for n := int32(3); n <= 6; n++ {
			if v := must[*iot.CreateProvisioningTemplateVersionResponse](t)(version(fleetBody, n == 6)); *v.VersionId != n || *v.IsDefaultVersion != (n == 6) {
				t.Errorf("version %d is %d", n, *v.VersionId)
			}
		}
		if _, err := version(fleetBody, false); code(t, err) != "VersionsLimitExceeded" {
			t.Errorf("sixth version: %v", err)
		}
		var numbers []int32
		list := &iot.ListProvisioningTemplateVersionsRequest{TemplateName: "T", MaxResults: new(int32(2))}
		for {
			page := must[*iot.ListProvisioningTemplateVersionsResponse](t)(w.ListProvisioningTemplateVersions(ctx, list))
			for _, v := range page.Versions {
				numbers = append(numbers, *v.VersionId)
				if *v.IsDefaultVersion != (*v.VersionId == 6) {
					t.Errorf("version %d is the default: %v", *v.VersionId, *v.IsDefaultVersion)
				}
			}
			if list.NextToken = page.NextToken; list.NextToken == nil {
				break
			}
		}
		if diff := cmp.Diff([]int32{2, 3, 4, 5, 6}, numbers); diff != "" {
			t.Error(diff)
		}
		d := must[*iot.DescribeProvisioningTemplateVersionResponse](t)(w.DescribeProvisioningTemplateVersion(ctx, &iot.DescribeProvisioningTemplateVersionRequest{TemplateName: "T", VersionId: 2}))
		if *d.TemplateBody != second || *d.VersionId != 2 || *d.IsDefaultVersion {
			t.Errorf("got %+v", d)
		}
		must[*iot.DeleteProvisioningTemplateResponse](t)(w.DeleteProvisioningTemplate(ctx, &iot.DeleteProvisioningTemplateRequest{TemplateName: "T"}))
		_, describeErr := w.DescribeProvisioningTemplate(ctx, &iot.DescribeProvisioningTemplateRequest{TemplateName: "T"})
		_, deleteErr := w.DeleteProvisioningTemplate(ctx, &iot.DeleteProvisioningTemplateRequest{TemplateName: "T"})
		_, versionErr := w.DescribeProvisioningTemplateVersion(ctx, &iot.DescribeProvisioningTemplateVersionRequest{TemplateName: "T", VersionId: 2})
		_, claimErr := w.CreateProvisioningClaim(ctx, &iot.CreateProvisioningClaimRequest{TemplateName: "T"})
		for _, err := range []error{describeErr, deleteErr, versionErr, claimErr} {
			if code(t, err) != "ResourceNotFound" {
				t.Errorf("after deletion: %v", err)
			}
		}
	})
}

func TestListProvisioningTemplates(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	for i := range 5 {
		must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(t.Context(), create(fmt.Sprint("T", i), fleetBody)))
	}
	var names []string
	in := &iot.ListProvisioningTemplatesRequest{MaxResults: new(int32(2))}
	for {
		page := must[*iot.ListProvisioningTemplatesResponse](t)(w.ListProvisioningTemplates(t.Context(), in))
		for _, s := range page.Templates {
			names = append(names, *s.TemplateName)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			break
		}
	}
	if diff := cmp.Diff([]string{"T0", "T1", "T2", "T3", "T4"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := w.ListProvisioningTemplates(t.Context(), &iot.ListProvisioningTemplatesRequest{NextToken: new("!")}); code(t, err) != "InvalidRequest" {
		t.Errorf("bad token: %v", err)
	}
}

func TestTemplateTags(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	in := create("T", fleetBody)
	in.Tags = []*iot.Tag{{Key: "k", Value: new("v")}}
	tags := func() []*iot.Tag {
		t.Helper()
		arn := account.ARN("iot", "provisioningtemplate/T")
		return must[*iot.ListTagsForResourceResponse](t)(w.registry.ListTagsForResource(t.Context(), &iot.ListTagsForResourceRequest{ResourceArn: arn})).Tags
	}
	must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(t.Context(), in))
	if diff := cmp.Diff(in.Tags, tags()); diff != "" {
		t.Error(diff)
	}
	must[*iot.DeleteProvisioningTemplateResponse](t)(w.DeleteProvisioningTemplate(t.Context(), &iot.DeleteProvisioningTemplateRequest{TemplateName: "T"}))
	must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(t.Context(), create("T", fleetBody)))
	if left := tags(); len(left) > 0 {
		t.Errorf("the new template has the old one's tags: %v", left)
	}
}

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	deps := w.Deps
	deps.Tags = nil
	w.Templates = provision.New(provision.Config{MaxTemplates: 1}, deps)
	change := func(fn func(in *iot.CreateProvisioningTemplateRequest)) *iot.CreateProvisioningTemplateRequest {
		in := create("T", fleetBody)
		fn(in)
		return in
	}
	hook := &iot.ProvisioningHook{TargetArn: "arn:aws:lambda:us-east-1:123456789012:function:f"}
	for name, in := range map[string]*iot.CreateProvisioningTemplateRequest{
		"not JSON":     create("T", "{"),
		"other type":   change(func(in *iot.CreateProvisioningTemplateRequest) { in.Type = new("BULK") }),
		"hook":         change(func(in *iot.CreateProvisioningTemplateRequest) { in.PreProvisioningHook = hook }),
		"hook of JITP": change(func(in *iot.CreateProvisioningTemplateRequest) { in.PreProvisioningHook, in.Type = hook, new("JITP") }),
		"tags":         change(func(in *iot.CreateProvisioningTemplateRequest) { in.Tags = []*iot.Tag{{Key: "k"}} }),
		"no certificate id": change(func(in *iot.CreateProvisioningTemplateRequest) {
			in.TemplateBody = strings.Replace(fleetBody, "CertificateId", "CertificatePem", 1)
		}),
	} {
		if _, err := w.CreateProvisioningTemplate(t.Context(), in); code(t, err) != "InvalidRequest" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.CreateProvisioningTemplate(t.Context(), create("T", fleetBody)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateProvisioningTemplate(t.Context(), create("U", fleetBody)); code(t, err) != "LimitExceeded" {
		t.Errorf("second of one: %v", err)
	}
	update := &iot.UpdateProvisioningTemplateRequest{TemplateName: "T", DefaultVersionId: new(int32(9))}
	if _, err := w.UpdateProvisioningTemplate(t.Context(), update); code(t, err) != "ResourceNotFound" {
		t.Errorf("version that is not there: %v", err)
	}
	update = &iot.UpdateProvisioningTemplateRequest{TemplateName: "T", PreProvisioningHook: hook}
	if _, err := w.UpdateProvisioningTemplate(t.Context(), update); code(t, err) != "InvalidRequest" || !strings.Contains(err.Error(), "functions") {
		t.Errorf("hook: %v", err)
	}
}

// A claim certificate is for fleet templates and carries the template's name.
func TestCreateProvisioningClaim(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	out := must[*iot.CreateProvisioningClaimResponse](t)(w.CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimRequest{TemplateName: "T"}))
	active, template, err := w.certificates.Standing(t.Context(), *out.CertificateId)
	if err != nil || !active || template != "T" {
		t.Errorf("active %v, claim for %q, %v", active, template, err)
	}
	in := create("J", fleetBody)
	in.Type = new("JITP")
	must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(t.Context(), in))
	if _, err := w.CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimRequest{TemplateName: "J"}); code(t, err) != "InvalidRequest" {
		t.Errorf("JITP: %v", err)
	}
}

// TestRegisterThing: https://docs.aws.amazon.com/iot/latest/developerguide/single-thing-provisioning.html
func TestRegisterThing(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	body := strings.Replace(fleetBody, `"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}`, `"CertificateSigningRequest":{"Ref":"CSR"}`, 1)
	in := &iot.RegisterThingRequest{TemplateBody: body, Parameters: map[string]string{"Serial": "1", "CSR": newCSR(t)}}
	out := must[*iot.RegisterThingResponse](t)(w.RegisterThing(t.Context(), in))
	if out.CertificatePem == nil || !strings.Contains(out.ResourceArns["certificate"], ":cert/") ||
		out.ResourceArns["thing"] != account.ARN("iot", "thing/dev-1") || !strings.Contains(out.ResourceArns["policy"], ":policy/") {
		t.Errorf("got %+v", out)
	}
	for name, c := range map[string]struct{ body, want string }{
		"bad template":  {"{", "InvalidRequest"},
		"exists":        {strings.Replace(body, `"Type":"AWS::IoT::Thing"`, `"OverrideSettings":{"AttributePayload":"FAIL"},"Type":"AWS::IoT::Thing"`, 1), "ConflictingResourceUpdate"},
		"no such group": {strings.Replace(body, `"AttributePayload":{`, `"ThingGroups":["none"],"AttributePayload":{`, 1), "ResourceRegistrationFailure"},
	} {
		parameters := map[string]string{"Serial": "1", "CSR": newCSR(t)}
		if name == "no such group" {
			parameters["Serial"] = "2"
		}
		if _, err := w.RegisterThing(t.Context(), &iot.RegisterThingRequest{TemplateBody: c.body, Parameters: parameters}); code(t, err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if diff := cmp.Diff([]string{"dev-1"}, w.things(t)); diff != "" {
		t.Error(diff)
	}
}

// What fails only when a device is provisioned is a warning to who makes the template.
func TestTemplateWarnings(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	var warnings aws.Warnings
	ctx := aws.WithWarnings(t.Context(), &warnings)
	body := strings.Replace(fleetBody, `{"serial":{"Ref":"Serial"}}`, `{"serial":{"Ref":"Undeclared"}}`, 1)
	must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(ctx, &iot.CreateProvisioningTemplateRequest{TemplateName: "T", TemplateBody: body, ProvisioningRoleArn: roleARN}))
	must[*iot.CreateProvisioningTemplateVersionResponse](t)(w.CreateProvisioningTemplateVersion(ctx, &iot.CreateProvisioningTemplateVersionRequest{TemplateName: "T", TemplateBody: body}))
	if got := warnings.List(); len(got) != 2 || !strings.Contains(got[0], "refers to Undeclared") {
		t.Errorf("%q", got)
	}
}
