package provision_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/provision"
	"flotilla/internal/provision/template"
)

// vector is one case of provisioning.jsonl; the folder's README has the format.
type vector struct {
	ID, Flow, Source, Note string
	Template               json.RawMessage
	Parameters             map[string]string
	Certificate            map[string]string
	Existing               *struct {
		Thing       *thingVector
		Certificate *struct{ ID, Status string }
		Policies    *[]string
	}
	Hook *struct {
		Return         json.RawMessage
		Error          json.RawMessage
		TimeoutSeconds float64
	}
	Expect struct {
		Error               string
		Thing               *thingVector
		Certificate         *struct{ From, Value, CA, Status string }
		Policies            []policyVector
		DeviceConfiguration any
		Response            any
		ResourceArnKeys     []string
	}
}

type thingVector struct {
	Name         string
	Attributes   map[string]string
	Type         *string
	Groups       []string
	BillingGroup *string
}

type policyVector struct {
	Name           string
	DocumentEquals any
}

func readVectors(t *testing.T, file string) (out []vector) {
	t.Helper()
	dir := os.Getenv("FLOTILLA_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	f, err := os.Open(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(file, ".low.jsonl") {
		t.Skip("no vectors of low confidence")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		var v vector
		d := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, v)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("%s is empty", file)
	}
	return out
}

// TestVectorsProvisioning carries each template out by the flow that it is for, and looks at what is in the rooms.
func TestVectorsProvisioning(t *testing.T) {
	for _, v := range readVectors(t, "provisioning.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			if err := runVector(t, &v); err != nil {
				t.Errorf("%v\n%s: %s", err, v.Source, v.Note)
			}
		})
	}
}

// TestVectorsProvisioningLow says what happens where the documentation is silent; it fails on nothing.
func TestVectorsProvisioningLow(t *testing.T) {
	for _, v := range readVectors(t, "provisioning.low.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			if err := runVector(t, &v); err != nil {
				t.Logf("differs: %v\n%s: %s", err, v.Source, v.Note)
			}
		})
	}
}

// run is what a vector became.
type run struct {
	*vector
	w      *world
	body   string            // of the template
	pem    map[string]string // placeholders and what they stand for
	before []string          // names of things

	arns                 map[string]string
	certificate          string // id
	response             map[string]any
	createError, callErr error
}

func runVector(t *testing.T, v *vector) error {
	r := &run{vector: v, pem: map[string]string{}}
	var hook provision.Hook
	if v.Hook != nil {
		hook = v.hook()
	}
	r.w = newWorld(t, openDB(t), hook, hangs(v.late()))
	if err := json.Unmarshal(v.Template, &r.body); err != nil {
		r.body = string(v.Template)
	}
	r.prepare(t)
	r.before = r.w.things(t)
	switch v.Flow {
	case "registerThing":
		r.registerThing(t)
	case "fleet":
		r.fleet(t)
	case "jitp":
		r.jitp(t)
	default:
		t.Fatalf("flow %s", v.Flow)
	}
	err := r.createError
	if err == nil {
		err = r.callErr
	}
	if v.Expect.Error != "" {
		if err == nil {
			return fmt.Errorf("succeeded, want %s", v.Expect.Error)
		}
		var exc aws.Exception
		if !errors.As(err, &exc) || exc.StatusCode() >= 500 {
			return fmt.Errorf("failed with %T %w, want %s", err, err, v.Expect.Error)
		}
		if after := r.w.things(t); !slices.Equal(r.before, after) {
			return fmt.Errorf("left behind: things %v, were %v", after, r.before)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("failed: %w", err)
	}
	return r.compare(t)
}

// late tells whether the hook does not answer in time.
func (v *vector) late() bool { return v.Hook != nil && v.Hook.TimeoutSeconds >= 5 }

// hook behaves as the vector says.
func (v *vector) hook() provision.Hook {
	return hookFunc(func(ctx context.Context, _ []byte) ([]byte, error) {
		switch {
		case len(v.Hook.Error) > 0:
			return nil, errors.New(string(v.Hook.Error))
		case v.late():
			<-ctx.Done()
			return nil, ctx.Err()
		case len(v.Hook.Return) == 0:
			return []byte(`{"allowProvisioning":true}`), nil
		}
		return v.Hook.Return, nil
	})
}

// prepare makes what exists before, and real things of what the vector has placeholders for.
func (r *run) prepare(t *testing.T) {
	plan := r.plan()
	if c := plan.Certificate; c != nil {
		switch {
		case c.SigningRequest != "":
			r.pem[c.SigningRequest] = newCSR(t)
		case c.PEM != "" && r.Flow == "registerThing":
			// A certificate that our CA has signed and that is not registered.
			made := must[*iot.CreateKeysAndCertificateResponse](t)(r.w.certificates.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{}))
			must[*iot.DeleteCertificateResponse](t)(r.w.certificates.DeleteCertificate(t.Context(), &iot.DeleteCertificateRequest{CertificateId: *made.CertificateId}))
			r.pem[c.PEM] = *made.CertificatePem
			if c.CAPEM != "" {
				r.pem[c.CAPEM] = string(r.w.authority.IssuingPEM())
			}
		case c.ID != "" && r.Flow == "registerThing":
			made := must[*iot.CreateKeysAndCertificateResponse](t)(r.w.certificates.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{}))
			r.pem[c.ID] = *made.CertificateId
			if e := r.Existing; e != nil && e.Certificate != nil && e.Certificate.Status != "INACTIVE" {
				must[*iot.UpdateCertificateResponse](t)(r.w.certificates.UpdateCertificate(t.Context(), &iot.UpdateCertificateRequest{
					CertificateId: *made.CertificateId, NewStatus: e.Certificate.Status,
				}))
			}
		}
	}
	var groups, types, billing []string
	if th := plan.Thing; th != nil && r.Expect.Error != "resourceNotFound" {
		groups, types, billing = th.Groups, []string{th.TypeName}, []string{th.BillingGroup}
	}
	old := (*thingVector)(nil)
	if r.Existing != nil {
		old = r.Existing.Thing
	}
	if old != nil {
		groups = append(slices.Clone(groups), old.Groups...)
		types, billing = append(types, deref(old.Type)), append(billing, deref(old.BillingGroup))
	}
	r.w.makeGroups(t, groups, types, billing)
	if old != nil {
		r.w.makeThing(t, old)
	}
	var policies []string
	switch {
	case r.Existing != nil && r.Existing.Policies != nil:
		policies = *r.Existing.Policies
	case r.Expect.Error != "resourceNotFound":
		for _, p := range plan.Policies {
			if p.Document == "" {
				policies = append(policies, p.Name)
			}
		}
	}
	for _, name := range policies {
		must[*iot.CreatePolicyResponse](t)(r.w.policies.CreatePolicy(t.Context(), &iot.CreatePolicyRequest{
			PolicyName:     name,
			PolicyDocument: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`,
		}))
	}
}

// plan is what the template asks for as far as that is clear before the flow; empty when it is not.
func (r *run) plan() *template.Plan {
	flow := map[string]template.Flow{"registerThing": template.RegisterThing, "fleet": template.Fleet, "jitp": template.JITP}[r.Flow]
	tpl, err := template.Parse(r.body, flow)
	if err != nil {
		return &template.Plan{}
	}
	parameters := map[string]string{}
	for k, v := range r.Parameters {
		parameters[k] = v
	}
	if r.Hook != nil && len(r.Hook.Return) > 0 {
		var answer struct{ ParameterOverrides map[string]string }
		if json.Unmarshal(r.Hook.Return, &answer) == nil {
			for k, v := range answer.ParameterOverrides {
				parameters[k] = v
			}
		}
	}
	plan, err := tpl.Resolve(template.Input{Parameters: parameters, Certificate: r.Certificate})
	if err != nil {
		return &template.Plan{}
	}
	return plan
}

// real replaces placeholders in a template's text or a parameter's value.
func (r *run) real(body string) string {
	var v any
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return body
	}
	out, err := json.Marshal(r.replace(v))
	if err != nil {
		return body
	}
	return string(out)
}

func (r *run) replace(v any) any {
	switch v := v.(type) {
	case string:
		if x, ok := r.pem[v]; ok {
			return x
		}
	case []any:
		for i := range v {
			v[i] = r.replace(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = r.replace(v[k])
		}
	}
	return v
}

func (r *run) parameters() map[string]string {
	out := make(map[string]string, len(r.Parameters))
	for k, v := range r.Parameters {
		out[k], _ = r.replace(v).(string)
	}
	return out
}

func (r *run) registerThing(t *testing.T) {
	body := r.body
	if json.Valid([]byte(body)) {
		body = r.real(body)
	}
	out, err := r.w.RegisterThing(t.Context(), &iot.RegisterThingRequest{TemplateBody: body, Parameters: r.parameters()})
	if r.callErr = err; err != nil {
		return
	}
	r.arns = out.ResourceArns
	for _, arn := range r.arns {
		if _, id, ok := strings.Cut(arn, ":cert/"); ok {
			r.certificate = id
		}
	}
}

const roleARN = "arn:aws:iam::123456789012:role/provisioning"

func (r *run) fleet(t *testing.T) {
	in := &iot.CreateProvisioningTemplateRequest{TemplateName: "T", TemplateBody: r.body, Enabled: new(true), ProvisioningRoleArn: roleARN}
	if r.Hook != nil {
		in.PreProvisioningHook = &iot.ProvisioningHook{TargetArn: "arn:aws:lambda:us-east-1:123456789012:function:hook", PayloadVersion: new("2020-04-01")}
	}
	if _, r.createError = r.w.CreateProvisioningTemplate(t.Context(), in); r.createError != nil {
		return
	}
	k := r.w.create(t, claim)
	r.certificate = k.CertificateID
	r.pem[r.Certificate["Id"]] = k.CertificateID
	answer, ok := r.w.register(t, claim, "T", k.Token, r.parameters())
	if !ok {
		e := parse[rejection](t, answer)
		if e.StatusCode >= 500 {
			t.Fatalf("%s", answer)
		}
		r.callErr = &iot.InvalidRequestException{Message: string(answer)}
		if got := r.w.status(t, r.certificate); got != iot.CertificateStatusPendingActivation {
			t.Errorf("the certificate is %s after a failure", got)
		}
		return
	}
	r.response = parse[map[string]any](t, answer)
}

func (r *run) jitp(t *testing.T) {
	made := must[*iot.CreateKeysAndCertificateResponse](t)(r.w.certificates.CreatePending(t.Context(), "", r.w.clock.now().Add(time.Hour), "", ""))
	r.certificate = *made.CertificateId
	subject := map[string]string{}
	for k, v := range r.Certificate {
		subject[k] = v
	}
	r.pem[subject["Id"]] = r.certificate
	subject["Id"] = r.certificate
	_, r.callErr = r.w.JustInTime(t.Context(), r.body, subject)
}

func (r *run) compare(t *testing.T) error {
	if want := r.Expect.Thing; want != nil {
		if diff := cmp.Diff(want, r.w.thing(t, want)); diff != "" {
			return fmt.Errorf("thing (-want +got):\n%s", diff)
		}
	}
	if want := r.Expect.Certificate; want != nil {
		if err := r.compareCertificate(t); err != nil {
			return err
		}
	}
	if len(r.Expect.Policies) > 0 {
		if err := r.comparePolicies(t); err != nil {
			return err
		}
	}
	if r.certificate != "" && r.Expect.Thing != nil {
		out := must[*iot.ListPrincipalThingsResponse](t)(r.w.registry.ListPrincipalThings(t.Context(), &iot.ListPrincipalThingsRequest{Principal: account.ARN("iot", "cert/"+r.certificate)}))
		if !slices.Contains(out.Things, r.Expect.Thing.Name) {
			return fmt.Errorf("the certificate is attached to %v", out.Things)
		}
	}
	if want := r.Expect.DeviceConfiguration; want != nil {
		if diff := cmp.Diff(normal(t, want), normal(t, r.response["deviceConfiguration"])); diff != "" {
			return fmt.Errorf("device configuration (-want +got):\n%s", diff)
		}
	}
	if want := r.Expect.Response; want != nil {
		if diff := cmp.Diff(normal(t, want), normal(t, r.response)); diff != "" {
			return fmt.Errorf("response (-want +got):\n%s", diff)
		}
	}
	for _, key := range r.Expect.ResourceArnKeys {
		if r.arns[key] == "" {
			return fmt.Errorf("resourceArns has no %s: %v", key, r.arns)
		}
	}
	return nil
}

func (r *run) compareCertificate(t *testing.T) error {
	want := r.Expect.Certificate
	d := must[*iot.DescribeCertificateResponse](t)(r.w.certificates.DescribeCertificate(t.Context(), &iot.DescribeCertificateRequest{CertificateId: r.certificate})).CertificateDescription
	if *d.Status != want.Status {
		return fmt.Errorf("the certificate is %s, want %s", *d.Status, want.Status)
	}
	real := r.pem[want.Value]
	switch want.From {
	case "id":
		if r.certificate != real {
			return fmt.Errorf("certificate %s, want %s", r.certificate, real)
		}
	case "pem":
		if strings.TrimSpace(*d.CertificatePem) != strings.TrimSpace(real) {
			return fmt.Errorf("another certificate:\n%s", *d.CertificatePem)
		}
	case "csr":
		if !samePublicKey(t, real, *d.CertificatePem) {
			return errors.New("the certificate is not for the key of the CSR")
		}
	}
	return nil
}

// comparePolicies finds the policies on the certificate, or among the answer's resources when there is none.
func (r *run) comparePolicies(t *testing.T) error {
	var names []string
	if r.certificate != "" {
		out := must[*iot.ListAttachedPoliciesResponse](t)(r.w.policies.ListAttachedPolicies(t.Context(), &iot.ListAttachedPoliciesRequest{Target: account.ARN("iot", "cert/"+r.certificate)}))
		for _, p := range out.Policies {
			names = append(names, *p.PolicyName)
		}
	} else {
		for _, arn := range r.arns {
			if _, name, ok := strings.Cut(arn, ":policy/"); ok {
				names = append(names, name)
			}
		}
	}
	if len(names) != len(r.Expect.Policies) {
		return fmt.Errorf("policies %v, want %d", names, len(r.Expect.Policies))
	}
	for _, want := range r.Expect.Policies {
		found := slices.ContainsFunc(names, func(name string) bool {
			if want.Name != "" && name != want.Name {
				return false
			}
			p := must[*iot.GetPolicyResponse](t)(r.w.policies.GetPolicy(t.Context(), &iot.GetPolicyRequest{PolicyName: name}))
			return want.DocumentEquals == nil || cmp.Equal(normal(t, want.DocumentEquals), normal(t, json.RawMessage(*p.PolicyDocument)))
		})
		if !found {
			return fmt.Errorf("no policy like %+v among %v", want, names)
		}
	}
	return nil
}

// normal is v as JSON reads it.
func normal(t *testing.T, v any) (out any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return parse[any](t, text)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
