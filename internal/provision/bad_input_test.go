package provision_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision"
)

// refused checks that a request was rejected with a code, that nothing was made, and that the operator finds out why.
func (w *world) refused(t *testing.T, answer []byte, ok bool, code, step, why string) {
	t.Helper()
	if e := parse[rejection](t, answer); ok || e.ErrorCode != code || e.StatusCode/100 != 4 || e.ErrorMessage == "" {
		t.Errorf("accepted %v: %s, want %s", ok, answer, code)
	}
	w.explained(t, claim.ClientID, code, step, why)
	if got := w.things(t); len(got) > 0 {
		t.Errorf("things %v", got)
	}
}

// explained checks what is kept of the last attempt of a client.
func (w *world) explained(t *testing.T, client, code, step, why string) {
	t.Helper()
	all := w.explain(t, client)
	i := slices.IndexFunc(all, func(a *flotilla.ProvisioningAttempt) bool { return *a.Outcome == "rejected" })
	if i < 0 {
		t.Fatalf("no rejected attempt of %s is known", client)
	}
	a := all[i]
	last := a.Steps[len(a.Steps)-1]
	text := story(t, a)
	if *a.ErrorCode != code || last.Failed == nil || *last.Name != step || !strings.Contains(text, why) {
		t.Errorf("kept %s; want code %s, step %s, %q", text, code, step, why)
	}
}

func replaced(old, with string) string { return strings.Replace(fleetBody, old, with, 1) }

// Templates that refer to what does not exist.
func TestBadTemplateReferences(t *testing.T) {
	const thing = `"AttributePayload":{"serial":{"Ref":"Serial"}}`
	for _, c := range []struct{ name, body, code, step, why string }{
		{"policy", replaced(`"PolicyDocument":"`+document+`"`, `"PolicyName":"Nope"`), "ResourceNotFound", "policy", "Nope"},
		{"group", replaced(thing, `"ThingGroups":["nope"]`), "ResourceNotFound", "group", "nope"},
		{"type", replaced(thing, `"ThingTypeName":"nope"`), "ResourceNotFound", "thing", "nope"},
		{"billing group", replaced(thing, `"BillingGroup":"nope"`), "ResourceNotFound", "thing", "nope"},
		{"parameter", replaced(thing, `"AttributePayload":{"a":{"Ref":"Undeclared"}}`), "InvalidParameters", "resolve", "Undeclared"},
		{"mapping key", replaced(thing, `"AttributePayload":{"a":{"Fn::FindInMap":["M","k","none"]}}`), "InvalidParameters", "resolve", "none"},
		{"index", replaced(thing, `"AttributePayload":{"a":{"Fn::Select":["5",["x"]]}}`), "InvalidParameters", "resolve", "index 5"},
		{"policy of no JSON", replaced(`"PolicyDocument":"`+document+`"`, `"PolicyDocument":{"Fn::Sub":"x${Serial}"}`), "InvalidTemplate", "resolve", "JSON"},
		{"policy of no policy", replaced(`"PolicyDocument":"`+document+`"`, `"PolicyDocument":"{}"`), "MalformedPolicy", "policy", "MalformedPolicy"},
		{"attribute value", replaced(thing, `"AttributePayload":{"a":"`+strings.Repeat("x", 801)+`"}`), "InvalidRequest", "thing", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, openDB(t), nil)
			w.fleetTemplate(t, "T", c.body)
			k := w.create(t, claim)
			answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "1"})
			w.refused(t, answer, ok, c.code, c.step, c.why)
			if got := w.status(t, k.CertificateID); got != iot.CertificateStatusPendingActivation {
				t.Errorf("the certificate is %s", got)
			}
		})
	}
}

// Parameters that are missing, of another type, too long or too many.
func TestBadParameters(t *testing.T) {
	many := map[string]string{}
	for i := range 257 {
		many[fmt.Sprint(i)] = "x"
	}
	for _, c := range []struct {
		name       string
		parameters any
		code, why  string
	}{
		{"missing", map[string]string{}, "InvalidParameters", "parameter Serial has no value"},
		{"null", nil, "InvalidParameters", "parameter Serial has no value"},
		{"number", map[string]any{"Serial": 1}, "InvalidPayload", "wrong type"},
		{"boolean", map[string]any{"Serial": true}, "InvalidPayload", "wrong type"},
		{"list", map[string]any{"Serial": []string{"1"}}, "InvalidPayload", "wrong type"},
		{"object", map[string]any{"Serial": map[string]string{"a": "b"}}, "InvalidPayload", "wrong type"},
		{"list of parameters", []string{"Serial"}, "InvalidPayload", "wrong type"},
		{"long value", map[string]string{"Serial": strings.Repeat("x", 4097)}, "InvalidRequest", "longer than"},
		{"long name", map[string]string{"Serial": "1", strings.Repeat("x", 2049): "1"}, "InvalidRequest", "longer than"},
		{"too many", many, "InvalidRequest", "More than 256"},
		{"no thing name", map[string]string{"Serial": "a b"}, "InvalidParameters", "ThingName"},
		{"long thing name", map[string]string{"Serial": strings.Repeat("x", 129)}, "InvalidParameters", "ThingName"},
		{"control characters", map[string]string{"Serial": "\x00\x1b[2J"}, "InvalidParameters", "ThingName"},
	} {
		for _, format := range []string{"json", "cbor"} {
			t.Run(c.name+"/"+format, func(t *testing.T) {
				w := newWorld(t, openDB(t), nil)
				w.fleetTemplate(t, "T", fleetBody)
				k := w.create(t, claim)
				encode := json.Marshal
				if format == "cbor" {
					encode = cbor.Marshal
				}
				payload := must[[]byte](t)(encode(map[string]any{"certificateOwnershipToken": k.Token, "parameters": c.parameters}))
				answer, ok := w.call(t, claim, "$aws/provisioning-templates/T/provision/"+format, payload)
				step := map[string]string{"InvalidParameters": "resolve", "InvalidPayload": "payload", "InvalidRequest": "payload"}[c.code]
				if format == "cbor" {
					var v map[string]any
					if err := cbor.Unmarshal(answer, &v); err != nil {
						t.Fatal(err)
					}
					answer = must[[]byte](t)(json.Marshal(v))
				}
				if c.code == "InvalidRequest" {
					step = "parameters"
				}
				w.refused(t, answer, ok, c.code, step, c.why)
			})
		}
	}
}

// Hooks that hang, fail, deny or answer nonsense: the device hears ACCESS_DENIED, the operator why.
func TestBadHooks(t *testing.T) {
	many := map[string]string{}
	for i := range 300 {
		many[fmt.Sprint(i)] = "x"
	}
	overrides := func(v any) string {
		return string(must[[]byte](t)(json.Marshal(map[string]any{"allowProvisioning": true, "parameterOverrides": v})))
	}
	for _, c := range []struct {
		name, answer string
		err          error
		hangs        bool
		code, why    string
	}{
		{"hangs", "", nil, true, "ACCESS_DENIED", "did not answer within"},
		{"fails", "", errors.New("function f: Unhandled"), false, "ACCESS_DENIED", "it failed: function f: Unhandled"},
		{"unknown function", "", errors.New("there is no function arn:f"), false, "ACCESS_DENIED", "there is no function"},
		{"denies", `{"allowProvisioning":false}`, nil, false, "ACCESS_DENIED", "did not answer allowProvisioning true"},
		{"empty", ``, nil, false, "ACCESS_DENIED", "not understood"},
		{"nonsense", `<html>`, nil, false, "ACCESS_DENIED", "not understood"},
		{"depth", strings.Repeat("[", 100<<10), nil, false, "ACCESS_DENIED", "not understood"},
		{"long", `{"x":"` + strings.Repeat("x", 200<<10) + `"}`, nil, false, "ACCESS_DENIED", "too long"},
		{"overrides of another type", overrides(map[string]any{"Serial": 1}), nil, false, "ACCESS_DENIED", "wrong type: JSON number"},
		{"overrides are a list", overrides([]string{"x"}), nil, false, "ACCESS_DENIED", "wrong type"},
		{"long override", overrides(map[string]string{"Serial": strings.Repeat("x", 5000)}), nil, false, "ACCESS_DENIED", "parameterOverrides are refused"},
		{"many overrides", overrides(many), nil, false, "ACCESS_DENIED", "parameterOverrides are refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, openDB(t), hookFunc(func(ctx context.Context, _ []byte) ([]byte, error) {
				if c.hangs {
					<-ctx.Done()
				}
				return []byte(c.answer), c.err
			}), hangs(c.hangs))
			w.fleetTemplate(t, "T", fleetBody)
			w.setHook(t, "T")
			k := w.create(t, claim)
			answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"})
			w.refused(t, answer, ok, c.code, "hook", c.why)
			if strings.Contains(string(answer), c.why) {
				t.Errorf("the device hears %s", answer)
			}
		})
	}
	t.Run("override that is no thing name", func(t *testing.T) {
		w := newWorld(t, openDB(t), hookFunc(func(context.Context, []byte) ([]byte, error) {
			return []byte(`{"allowProvisioning":true,"parameterOverrides":{"Serial":"a b","AWS::IoT::Certificate::Id":"other"}}`), nil
		}))
		w.fleetTemplate(t, "T", fleetBody)
		w.setHook(t, "T")
		k := w.create(t, claim)
		answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"})
		w.refused(t, answer, ok, "InvalidParameters", "resolve", "ThingName")
	})
}

// Tokens that are not who shows them's.
func TestBadTokens(t *testing.T) {
	thief, reconnected := claim, claim
	thief.PrincipalID, thief.ConnectionID = strings.Repeat("d", 64), "connection-9"
	reconnected.ConnectionID = "connection-2"
	for _, c := range []struct {
		name   string
		from   mqtt.Source
		change func(w *world, token string) string
		step   string
		why    string
	}{
		{"another principal", thief, nil, "token", "given to client dev-1 with principal " + claim.PrincipalID},
		{"another connection", reconnected, nil, "token", "on another connection"},
		{"expired", claim, func(w *world, token string) string { w.clock.advance(provision.TokenLifetime); return token }, "token", "its hour is over"},
		{"empty", claim, func(*world, string) string { return "" }, "token", "the request has none"},
		{"never one", claim, func(*world, string) string { return strings.Repeat("x", 43) }, "token", "no such token"},
		{"huge", claim, func(*world, string) string { return strings.Repeat("x", 1<<20) }, "token", "no such token"},
		{"SQL", claim, func(*world, string) string { return "' OR '1'='1" }, "token", "no such token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, openDB(t), nil)
			w.fleetTemplate(t, "T", fleetBody)
			k := w.create(t, claim)
			token := k.Token
			if c.change != nil {
				token = c.change(w, token)
			}
			answer, ok := w.register(t, c.from, "T", token, map[string]string{"Serial": "7"})
			w.refused(t, answer, ok, "InvalidCertificateOwnershipToken", c.step, c.why)
			if token != "" && strings.Contains(story(t, w.explain(t, claim.ClientID)[0]), token) {
				t.Error("the token is kept")
			}
		})
	}
	t.Run("reused", func(t *testing.T) {
		w := newWorld(t, openDB(t), nil)
		w.fleetTemplate(t, "T", fleetBody)
		k := w.create(t, claim)
		if answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"}); !ok {
			t.Fatalf("%s", answer)
		}
		answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "8"})
		if e := parse[rejection](t, answer); ok || e.ErrorCode != "InvalidCertificateOwnershipToken" || w.thingExists(t, "dev-8") {
			t.Errorf("%s", answer)
		}
		w.explained(t, claim.ClientID, "InvalidCertificateOwnershipToken", "token", "it was used before")
	})
	t.Run("certificate revoked", func(t *testing.T) {
		w := newWorld(t, openDB(t), nil)
		w.fleetTemplate(t, "T", fleetBody)
		k := w.create(t, claim)
		must[*iot.UpdateCertificateResponse](t)(w.certificates.UpdateCertificate(t.Context(), &iot.UpdateCertificateRequest{CertificateId: k.CertificateID, NewStatus: iot.CertificateStatusRevoked}))
		answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"})
		w.refused(t, answer, ok, "InvalidCertificateOwnershipToken", "token", "REVOKED")
	})
}

// weakCSR is for an RSA key of 1,024 bits, which this Go does not make any more.
const weakCSR = `-----BEGIN CERTIFICATE REQUEST-----
MIIBTjCBuAIBADAPMQ0wCwYDVQQDDAR3ZWFrMIGfMA0GCSqGSIb3DQEBAQUAA4GN
ADCBiQKBgQC8wkR5f+oYiqtgG/RfJ8vCRHH+EeqPc3CCjo9oJMNuTTptmMpPHG/u
f9sxF/m3C6MPUyzssgP3SwQ2oE1d+2IolNRxSThoqhT4ge/5H1PTvH+xazgAP6u6
Ciy3gljH5bDxJZ70A+seB7YfSIY2BZLYgD0Pr6yBv0dyfzjigpmfgwIDAQABoAAw
DQYJKoZIhvcNAQELBQADgYEAhNAZCcTpg/04RC0BYoRLw6Zha3Zvf4FLj9cQ4mVA
ZYw0K/zDrYw0kRZuVRVwczIEYaLI/T9pbj87Hf1JMFWZpnixqplFTHXeTmM7AFU5
g2zDQG2mpKC6+YeVagdcA6KjUmmAYGcUgBV1Rzj+EGomFK9WVzz14zfYd+9CSNDz
pcQ=
-----END CERTIFICATE REQUEST-----
`

// Certificate signing requests that are none, or for keys that are too weak.
func TestBadCSRs(t *testing.T) {
	good := newCSR(t)
	block, _ := pem.Decode([]byte(good))
	broken := bytes.Clone(block.Bytes)
	broken[len(broken)-1] ^= 1
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	p224 := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))
	asPEM := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for _, c := range []struct{ name, csr, why string }{
		{"RSA of 1024 bits", weakCSR, "2048"},
		{"P-224", asPEM("CERTIFICATE REQUEST", p224), "Invalid CSR"},
		{"bad signature", asPEM("CERTIFICATE REQUEST", broken), "signature"},
		{"not PEM", "certificate, please", "PEM"},
		{"DER", string(block.Bytes), "PEM"},
		{"a certificate", asPEM("CERTIFICATE", block.Bytes), "PEM"},
		{"a private key", asPEM("EC PRIVATE KEY", block.Bytes), "PEM"},
		{"two", good + good, "PEM"},
		{"cut", asPEM("CERTIFICATE REQUEST", block.Bytes[:len(block.Bytes)/2]), "parse"},
		{"1 MB", asPEM("CERTIFICATE REQUEST", bytes.Repeat([]byte{0x30, 0x80}, 512<<10)), "parse"},
		{"1 MB of dashes", strings.Repeat("-----BEGIN CERTIFICATE REQUEST-----\n", 30000), "PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, openDB(t), nil)
			payload := must[[]byte](t)(json.Marshal(map[string]string{"certificateSigningRequest": strings.ToValidUTF8(c.csr, "?")}))
			answer, ok := w.call(t, claim, "$aws/certificates/create-from-csr/json", payload)
			w.refused(t, answer, ok, "InvalidRequest", "certificate", c.why)
			list := must[*iot.ListCertificatesResponse](t)(w.certificates.ListCertificates(t.Context(), &iot.ListCertificatesRequest{}))
			if len(list.Certificates) > 0 {
				t.Errorf("%d certificates", len(list.Certificates))
			}
		})
	}
}

// Payloads that would take a careless decoder's memory or stack. Each is refused at a small multiple of its size.
func TestPayloadBombs(t *testing.T) {
	const size = 1 << 20
	in := func(bomb []byte) []byte { // as a member that is not known: {"x": bomb}
		return append([]byte{0xa1, 0x61, 'x'}, bomb...)
	}
	repeat := func(b ...byte) []byte { return bytes.Repeat(b, size/len(b)) }
	keys := append([]byte{0xba, 0, 2, 0, 0}, repeat(0x61, 'a', 0x61, 'b')...) // 131,072 times the same name
	cases := map[string][]byte{
		"cbor/nested arrays":                repeat(0x81),
		"cbor/nested arrays in a member":    in(repeat(0x81)),
		"cbor/nested maps":                  repeat(0xa1, 0x61, 'a'),
		"cbor/indefinite arrays":            in(repeat(0x9f)),
		"cbor/indefinite maps":              in(repeat(0xbf, 0x61, 'a')),
		"cbor/indefinite text":              in(append([]byte{0x7f}, repeat(0x61, 'a')...)),
		"cbor/endless array":                in(append([]byte{0x9f}, repeat(0x01)...)),
		"cbor/same name":                    keys,
		"cbor/array of 2^64-1":              in([]byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"cbor/map of 2^62":                  in([]byte{0xbb, 0x40, 0, 0, 0, 0, 0, 0, 0}),
		"cbor/text of 2^62":                 in([]byte{0x7b, 0x40, 0, 0, 0, 0, 0, 0, 0}),
		"cbor/bytes of 2 GB":                in([]byte{0x5a, 0x7f, 0xff, 0xff, 0xff}),
		"cbor/array of a million":           in(append([]byte{0x9a, 0, 0x10, 0, 0}, repeat(0x01)...)),
		"cbor/map of a million":             append([]byte{0xba, 0, 0x08, 0, 0}, repeat(0x01, 0x01)...),
		"cbor/tags":                         in(repeat(0xc2)),
		"cbor/bignum":                       in(append([]byte{0xc2, 0x5a, 0, 0x10, 0, 0}, repeat(0xff)...)),
		"cbor/simple values":                in([]byte{0xf8, 0x00}),
		"cbor/trailing":                     append(in([]byte{0x01}), 0x01),
		"json/nested arrays":                []byte(`{"x":` + strings.Repeat("[", size)),
		"json/nested objects":               []byte(strings.Repeat(`{"a":`, size/5)),
		"json/closed nested arrays":         []byte(`{"x":` + strings.Repeat("[", size/2) + strings.Repeat("]", size/2) + `}`),
		"json/same name":                    []byte(`{"a":1,"a":1}`),
		"json/a million same names":         []byte(`{"a":1` + strings.Repeat(`,"a":1`, size/6) + `}`),
		"json/long number as a parameter":   []byte(`{"parameters":{"a":` + strings.Repeat("1", size) + `}}`),
		"json/invalid UTF-8":                []byte("{\"x\":\"\xff\"}"),
		"json/lone surrogate":               []byte(`{"x":"\ud800"}`),
		"json/text after the object":        []byte(`{}{}`),
		"json/endless text":                 []byte(`{"x":"` + strings.Repeat("x", size)),
		"json/parameters of another object": []byte(`{"parameters":{"a":{"b":` + strings.Repeat(`{"b":`, 9000) + `1` + strings.Repeat("}", 9000) + `}}}`),
	}
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	for name, payload := range cases {
		format, _, _ := strings.Cut(name, "/")
		for _, topic := range []string{"$aws/provisioning-templates/T/provision/", "$aws/certificates/create-from-csr/", "$aws/certificates/create/"} {
			if strings.Contains(name, "parameter") && !strings.Contains(topic, "provision") {
				continue // what is not known is skipped
			}
			t.Run(name+topic, func(t *testing.T) {
				from := mqtt.Source{ClientID: name + topic, ConnectionID: "c", PrincipalID: claim.PrincipalID}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				answer, ok := w.call(t, from, topic+format, payload)
				runtime.ReadMemStats(&after)
				if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
					t.Errorf("%d bytes of payload took %d of memory", len(payload), took)
				}
				var e struct {
					ErrorCode  string `json:"errorCode"`
					StatusCode int    `json:"statusCode"`
				}
				decode := json.Unmarshal
				if format == "cbor" {
					decode = cbor.Unmarshal
				}
				if err := decode(answer, &e); err != nil || ok || e.ErrorCode != "InvalidPayload" || e.StatusCode != 400 {
					t.Fatalf("accepted %v: %q %+v %v", ok, answer[:min(len(answer), 200)], e, err)
				}
				w.explained(t, from.ClientID, "InvalidPayload", "payload", "")
			})
		}
	}
}

// Templates that are disabled, deleted or of another type, before and in the middle of the flow.
func TestBadTemplateStates(t *testing.T) {
	disable := func(w *world) {
		must[*iot.UpdateProvisioningTemplateResponse](t)(w.UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateRequest{TemplateName: "T", Enabled: new(false)}))
	}
	remove := func(w *world) {
		must[*iot.DeleteProvisioningTemplateResponse](t)(w.DeleteProvisioningTemplate(t.Context(), &iot.DeleteProvisioningTemplateRequest{TemplateName: "T"}))
	}
	for _, c := range []struct {
		name           string
		before, inHook func(*world)
		code, step     string
	}{
		{"disabled", disable, nil, "InvalidRequest", "find template"},
		{"deleted", remove, nil, "ResourceNotFound", "find template"},
		{"disabled while the hook is asked", nil, disable, "InvalidRequest", "token"},
		{"deleted while the hook is asked", nil, remove, "ResourceNotFound", "token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w *world
			w = newWorld(t, openDB(t), hookFunc(func(context.Context, []byte) ([]byte, error) {
				if c.inHook != nil {
					c.inHook(w)
				}
				return []byte(`{"allowProvisioning":true}`), nil
			}))
			w.fleetTemplate(t, "T", fleetBody)
			w.setHook(t, "T")
			k := w.create(t, claim)
			if c.before != nil {
				c.before(w)
			}
			answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"})
			w.refused(t, answer, ok, c.code, c.step, "")
		})
	}
}

// TestProvisionedTwice: https://docs.aws.amazon.com/iot/latest/developerguide/provision-template.html#override-settings
func TestProvisionedTwice(t *testing.T) {
	const body = `{"Parameters":{"Serial":{"Type":"String"},"Group":{"Type":"String"},"Type":{"Type":"String"},"Value":{"Type":"String"},"Name":{"Type":"String"}},"Resources":{
		"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"},"ThingTypeName":{"Ref":"Type"},"ThingGroups":[{"Ref":"Group"}],
			"AttributePayload":{"serial":{"Ref":"Value"}}},"OverrideSettings":SETTINGS},
		"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Active"}}}}`
	first := &thingVector{Name: "d", Attributes: map[string]string{"serial": "1"}, Groups: []string{"g1"}, Type: new("t1")}
	second := &thingVector{Name: "d", Attributes: map[string]string{"serial": "2"}, Groups: []string{"g2"}, Type: new("t2")}
	with := func(attributes, groups, kind *thingVector) *thingVector {
		return &thingVector{Name: "d", Attributes: attributes.Attributes, Groups: groups.Groups, Type: kind.Type}
	}
	both := &thingVector{Groups: []string{"g1", "g2"}}
	for _, c := range []struct {
		settings string
		want     *thingVector // nil: a conflict
	}{
		{`{}`, first},
		{`{"AttributePayload":"DO_NOTHING","ThingGroups":"DO_NOTHING","ThingTypeName":"DO_NOTHING"}`, first},
		{`{"AttributePayload":"REPLACE"}`, with(second, first, first)},
		{`{"AttributePayload":"MERGE"}`, with(second, first, first)},
		{`{"ThingGroups":"REPLACE"}`, with(first, second, first)},
		{`{"ThingGroups":"MERGE"}`, with(first, both, first)},
		{`{"ThingTypeName":"REPLACE"}`, with(first, first, second)},
		{`{"AttributePayload":"REPLACE","ThingGroups":"REPLACE","ThingTypeName":"REPLACE"}`, second},
		{`{"AttributePayload":"FAIL"}`, nil},
		{`{"ThingGroups":"FAIL","AttributePayload":"REPLACE"}`, nil},
		{`{"ThingTypeName":"FAIL","ThingGroups":"REPLACE"}`, nil},
	} {
		t.Run(c.settings, func(t *testing.T) {
			w := newWorld(t, openDB(t), nil)
			w.makeGroups(t, []string{"g1", "g2"}, []string{"t1", "t2"}, nil)
			w.fleetTemplate(t, "T", strings.Replace(body, "SETTINGS", c.settings, 1))
			try := func(n string) ([]byte, bool, keys) {
				k := w.create(t, claim)
				answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "d", "Group": "g" + n, "Type": "t" + n, "Value": n})
				return answer, ok, k
			}
			if answer, ok, _ := try("1"); !ok {
				t.Fatalf("%s", answer)
			}
			answer, ok, k := try("2")
			want := c.want
			if want == nil {
				if e := parse[rejection](t, answer); ok || e.ErrorCode != "ResourceConflicts" || e.StatusCode != 409 {
					t.Errorf("%s", answer)
				}
				w.explained(t, claim.ClientID, "ResourceConflicts", "thing", "FAIL")
				if got := w.status(t, k.CertificateID); got != iot.CertificateStatusPendingActivation {
					t.Errorf("the certificate is %s", got)
				}
				want = first
			} else if !ok {
				t.Fatalf("%s", answer)
			}
			if diff := cmp.Diff(want, w.thing(t, want)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
