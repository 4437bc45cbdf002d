package e2e_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

const gateARN = "arn:aws:lambda:us-east-1:123456789012:function:gate"

// gate is the function behind authorizers: it lets in whose token begins with "let", as somebody who may do what
// lies below test/.
type gate struct {
	*httptest.Server
	mu   sync.Mutex
	last map[string]any
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in map[string]any
		if err != nil || json.Unmarshal(body, &in) != nil {
			t.Errorf("the function got %q", body)
		}
		g.mu.Lock()
		g.last = in
		g.mu.Unlock()
		token, _ := in["token"].(string)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"isAuthenticated": strings.HasPrefix(token, "let"), "principalId": "somebody", "disconnectAfterInSeconds": 3600, "refreshAfterInSeconds": 300,
			"policyDocuments": []string{servertest.PolicyDocument("123456789012", everything...)},
		})
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gate) event() map[string]any {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// lock is an authorizer's key.
type lock struct{ key *rsa.PrivateKey }

func (l lock) sign(t testing.TB, token string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(token))
	mac, err := rsa.SignPKCS1v15(rand.Reader, l.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(mac)
}

// username has a token and its signature, as MQTT clients write them.
func (l lock) username(t testing.TB, authorizer, token string) string {
	t.Helper()
	return "name?" + l.query(t, authorizer, token)
}

func (l lock) query(t testing.TB, authorizer, token string) string {
	t.Helper()
	q := url.Values{"token": {token}, "x-amz-customauthorizer-signature": {l.sign(t, token)}}
	if authorizer != "" {
		q.Set("x-amz-customauthorizer-name", authorizer)
	}
	return q.Encode()
}

func (l lock) header(t testing.TB, authorizer, token string) http.Header {
	t.Helper()
	return http.Header{"Token": {token}, "X-Amz-Customauthorizer-Signature": {l.sign(t, token)}, "X-Amz-Customauthorizer-Name": {authorizer}}
}

// makeAuthorizer makes one whose tokens must be signed.
func makeAuthorizer(t *testing.T, n *servertest.Node, name string) lock {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateAuthorizer(t.Context(), &iot.CreateAuthorizerInput{
		AuthorizerName: &name, AuthorizerFunctionArn: new(gateARN), TokenKeyName: new("token"), Status: types.AuthorizerStatusActive,
		TokenSigningPublicKeys: map[string]string{"k": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
		Tags:                   []types.Tag{{Key: new("k"), Value: new("v")}},
	}); err != nil {
		t.Fatal(err)
	}
	return lock{key}
}

func withGate(g *gate) func(*server.Config) {
	return func(c *server.Config) { c.Function.Endpoints = map[string]string{gateARN: g.URL} }
}

// TestCustomAuthorizer: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth.html
func TestCustomAuthorizer(t *testing.T) {
	g := newGate(t)
	n := servertest.Start(t, withGate(g)).Node(0)
	l := makeAuthorizer(t, n, "gate")
	mqtts, wss := "ssl://"+n.Endpoints().HTTPS, "wss://"+n.Endpoints().HTTPS+"/mqtt"
	alpn := anonymous(n, "mqtt")

	d := mustDial3(t, mqtts, "c", alpn, login(l.username(t, "gate", "let me in"), "secret"))
	d.works(t, "test/x")
	e := g.event()
	if e["signatureVerified"] != true || e["token"] != "let me in" {
		t.Errorf("event %v", e)
	}
	if m := e["protocolData"].(map[string]any)["mqtt"].(map[string]any); m["clientId"] != "c" || m["password"] != base64.StdEncoding.EncodeToString([]byte("secret")) {
		t.Errorf("event %v", e)
	}
	token := d.Subscribe("elsewhere", 1, nil) // the policy
	if !token.WaitTimeout(patience) || token.Error() == nil && token.(*mqtt3.SubscribeToken).Result()["elsewhere"] != 0x80 {
		t.Errorf("subscribed beyond the policy: %v", token.(*mqtt3.SubscribeToken).Result())
	}
	for what, change := range map[string]func(*mqtt3.ClientOptions){
		"the function says no": login(l.username(t, "gate", "do not let me in"), "secret"),
		"no user name":         func(*mqtt3.ClientOptions) {},
		"no authorizer":        login(l.username(t, "", "let me in"), "secret"),
		"another authorizer":   login(l.username(t, "other", "let me in"), "secret"),
		"an unsigned token":    login("name?x-amz-customauthorizer-name=gate&token=let+me+in", "secret"),
		"another token's signature": login("name?x-amz-customauthorizer-name=gate&token=let+us+in&x-amz-customauthorizer-signature="+
			url.QueryEscape(l.sign(t, "let me in")), "secret"),
	} {
		if _, err := dial3(t, mqtts, "x", alpn, change); err == nil {
			t.Errorf("%s: connected", what)
		}
	}
	var all strings.Builder
	for _, r := range explain(t, n, "x").Refusals {
		all.WriteString(r.Reason + "\n")
	}
	for _, reason := range []string{"says that it is not authenticated", "names no authorizer", "no such authorizer", "no signature of its token", "not by a key of the authorizer"} {
		if !strings.Contains(all.String(), reason) {
			t.Errorf("the operator is not told: %s", reason)
		}
	}
	if strings.Contains(all.String(), "let") || strings.Contains(all.String(), "secret") {
		t.Errorf("the operator is told secrets: %s", &all)
	}

	// WebSocket: in query, headers or user name.
	mustDial3(t, wss+"?"+l.query(t, "gate", "let me in"), "w1", anonymous(n)).works(t, "test/w1")
	mustDial3(t, wss, "w2", anonymous(n), func(o *mqtt3.ClientOptions) { o.SetHTTPHeaders(l.header(t, "gate", "let me in")) }).works(t, "test/w2")
	mustDial3(t, wss, "w3", anonymous(n), login(l.username(t, "gate", "let me in"), "")).works(t, "test/w3")
	if _, err := dial3(t, wss+"?"+l.query(t, "gate", "no"), "w", anonymous(n)); err == nil {
		t.Error("WebSocket: connected")
	}

	// HTTPS.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: anonymous(n), ForceAttemptHTTP2: true}, Timeout: patience}
	for _, c := range []struct {
		path   string
		header http.Header
		want   int
	}{
		{"/topics/test/x?qos=1", l.header(t, "gate", "let me in"), 200},
		{"/topics/test/x?qos=1&" + l.query(t, "gate", "let me in"), nil, 200},
		{"/topics/elsewhere?qos=1", l.header(t, "gate", "let me in"), 403},
		{"/topics/test/x?qos=1", l.header(t, "gate", "no"), 403},
		{"/topics/test/x?qos=1", l.header(t, "other", "let me in"), 403},
		{"/topics/test/x?qos=1", http.Header{"X-Amz-Customauthorizer-Name": {"gate"}, "Token": {"let me in"}}, 403},
		{"/topics/test/x?qos=1", nil, 403},
	} {
		req, err := http.NewRequestWithContext(deadline(t), http.MethodPost, "https://"+n.Endpoints().HTTPS+c.path, strings.NewReader("by HTTPS"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = c.header.Clone()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("POST %s %v: %s", c.path, c.header, resp.Status)
		}
	}
	for range 2 {
		if m := d.next(t); string(m.Payload()) != "by HTTPS" {
			t.Errorf("got %q", m.Payload())
		}
	}

	// A default authorizer serves who names none.
	if _, err := n.IoT().SetDefaultAuthorizer(t.Context(), &iot.SetDefaultAuthorizerInput{AuthorizerName: new("gate")}); err != nil {
		t.Fatal(err)
	}
	mustDial3(t, mqtts, "default", alpn, login(l.username(t, "", "let me in"), "")).works(t, "test/default")
	out, err := n.IoT().TestInvokeAuthorizer(t.Context(), &iot.TestInvokeAuthorizerInput{AuthorizerName: new("gate"), Token: new("let"), TokenSignature: new(l.sign(t, "let"))})
	if err != nil || !*out.IsAuthenticated || *out.PrincipalId != "somebody" {
		t.Errorf("%+v, %v", out, err)
	}
	tags, err := n.IoT().ListTagsForResource(t.Context(), &iot.ListTagsForResourceInput{ResourceArn: new("arn:aws:iot:us-east-1:123456789012:authorizer/gate")})
	if err != nil || len(tags.Tags) != 1 {
		t.Errorf("tags %+v, %v", tags, err)
	}
}

// withName is the TLS configuration of a client that asks for a server name.
func withName(cfg *tls.Config, name string) *tls.Config {
	cfg.ServerName = name
	return cfg
}

// TestDomainConfigurations: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-configurable.html
func TestDomainConfigurations(t *testing.T) {
	g := newGate(t)
	n := servertest.Start(t, withGate(g)).Node(0)
	l, other := makeAuthorizer(t, n, "gate"), makeAuthorizer(t, n, "other")
	id := n.Identity(t, "all", everything...)
	cloud := n.IoT()
	create := func(name string, change func(*iot.CreateDomainConfigurationInput)) string {
		t.Helper()
		in := &iot.CreateDomainConfigurationInput{DomainConfigurationName: &name, DomainName: new(name + ".example.com"), Tags: []types.Tag{{Key: new("k"), Value: new("v")}}}
		change(in)
		out, err := cloud.CreateDomainConfiguration(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return *out.DomainConfigurationArn
	}
	arn := create("open", func(*iot.CreateDomainConfigurationInput) {})
	create("custom", func(in *iot.CreateDomainConfigurationInput) {
		in.AuthenticationType, in.ApplicationProtocol = types.AuthenticationTypeCustomAuth, types.ApplicationProtocolSecureMqtt
		in.AuthorizerConfig = &types.AuthorizerConfig{DefaultAuthorizerName: new("gate")}
	})
	create("wss", func(in *iot.CreateDomainConfigurationInput) {
		in.AuthenticationType, in.ApplicationProtocol = types.AuthenticationTypeCustomAuth, types.ApplicationProtocolMqttWss
		in.AuthorizerConfig = &types.AuthorizerConfig{DefaultAuthorizerName: new("gate"), AllowAuthorizerOverride: new(true)}
	})
	create("both", func(in *iot.CreateDomainConfigurationInput) {
		in.AuthenticationType = types.AuthenticationTypeCustomAuthX509
		in.AuthorizerConfig = &types.AuthorizerConfig{DefaultAuthorizerName: new("gate")}
	})
	create("signed", func(in *iot.CreateDomainConfigurationInput) { in.AuthenticationType = types.AuthenticationTypeAwsSigv4 })
	tags, err := cloud.ListTagsForResource(t.Context(), &iot.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil || len(tags.Tags) != 1 {
		t.Errorf("tags %+v, %v", tags, err)
	}

	mqtt8883, alpnPort, wss := "ssl://"+n.Endpoints().MQTT, "ssl://"+n.Endpoints().HTTPS, "wss://"+n.Endpoints().HTTPS+"/mqtt"
	in, signed := login(l.username(t, "", "let me in"), ""), presignedFor(t, n)
	byOther := login(other.username(t, "other", "let me in"), "")
	for _, c := range []struct {
		name, broker string
		cfg          *tls.Config
		change       func(*mqtt3.ClientOptions)
		ok           bool
	}{
		{"open", mqtt8883, n.ClientTLS(id), nil, true},
		{"open", mqtt8883, anonymous(n), nil, false},
		{"unknown", mqtt8883, n.ClientTLS(id), nil, false}, // the certificate is for other names
		{"custom", mqtt8883, anonymous(n), in, true},
		{"custom", mqtt8883, n.ClientTLS(id), nil, false},
		{"custom", mqtt8883, anonymous(n), byOther, false}, // no override
		{"custom", alpnPort, anonymous(n), in, true},       // without ALPN
		{"custom", alpnPort, anonymous(n, "mqtt"), in, true},
		{"wss", alpnPort, anonymous(n, "mqtt"), in, false},
		{"wss", mqtt8883, anonymous(n), in, false},
		{"wss", wss, anonymous(n), in, true},
		{"wss", wss, anonymous(n), byOther, true},
		{"both", mqtt8883, n.ClientTLS(id), in, true},
		{"both", mqtt8883, anonymous(n), in, false},
		{"both", mqtt8883, n.ClientTLS(id), nil, false},
		{"signed", signed, anonymous(n), nil, true},
		{"signed", wss, anonymous(n), in, false},
		{"signed", mqtt8883, n.ClientTLS(id), nil, false},
		{"wss", signed, anonymous(n), nil, false},
	} {
		if c.change == nil {
			c.change = func(*mqtt3.ClientOptions) {}
		}
		d, err := dial3(t, c.broker, "c", withName(c.cfg, c.name+".example.com"), c.change)
		if (err == nil) != c.ok {
			t.Errorf("%s at %s, ALPN %q, %d certificates: %v", c.name, c.broker, c.cfg.NextProtos, len(c.cfg.Certificates), err)
		}
		if err == nil {
			d.works(t, "test/"+c.name)
		}
	}
	var reasons strings.Builder
	for _, r := range explain(t, n, "c").Refusals {
		reasons.WriteString(r.Reason + "\n")
	}
	for _, reason := range []string{"the domain configuration wss does not admit CUSTOM_AUTH", "the request is not signed with an access key", "does not allow it to name another authorizer"} {
		if !strings.Contains(reasons.String(), reason) {
			t.Errorf("the operator is not told: %s", reason)
		}
	}

	// HTTPS is held to the same.
	for name, want := range map[string]int{"open": 200, "signed": 403, "custom": 0} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: withName(n.ClientTLS(id), name+".example.com")}, Timeout: patience}
		resp, err := client.Post("https://"+n.Endpoints().HTTPS+"/topics/test/x", "", strings.NewReader("x"))
		code := 0
		if err == nil {
			resp.Body.Close()
			code = resp.StatusCode
		}
		if code != want {
			t.Errorf("HTTPS at %s: %d %v", name, code, err)
		}
	}

	held, kept := mustDial3(t, mqtt8883, "held", withName(n.ClientTLS(id), "open.example.com")), mustDial3(t, mqtt8883, "kept", withName(n.ClientTLS(id), "localhost"))
	if _, err := cloud.UpdateDomainConfiguration(t.Context(), &iot.UpdateDomainConfigurationInput{DomainConfigurationName: new("open"), DomainConfigurationStatus: types.DomainConfigurationStatusDisabled}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the connections of a DISABLED domain", func() bool { return !held.IsConnectionOpen() })
	eventually(t, "the reason of that", func() bool {
		r := explain(t, n, "held").Refusals
		return len(r) > 0 && strings.Contains(r[len(r)-1].Reason, "open is no longer ENABLED")
	})
	kept.works(t, "test/kept")
	if _, err := dial3(t, mqtt8883, "c", withName(n.ClientTLS(id), "open.example.com")); err == nil {
		t.Error("a DISABLED domain is served")
	}
	mustDial3(t, mqtt8883, "c", withName(n.ClientTLS(id), "localhost")).works(t, "test/localhost")
}

func presignedFor(t *testing.T, n *servertest.Node) string {
	t.Helper()
	return presigned(t, admin(n), "iotdevicegateway", "https://"+n.Endpoints().HTTPS, "", time.Now())
}
