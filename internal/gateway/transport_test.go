package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
)

// fakeAuthorizers vouches for who has the password "good".
type fakeAuthorizers struct {
	mu      sync.Mutex
	answer  gateway.Vouched
	refresh error
	asked   []gateway.Credentials
	again   int
}

func (*fakeAuthorizers) IsCustom(h http.Header, _ string) bool { return h.Get("X-Custom") != "" }

func (f *fakeAuthorizers) Authenticate(_ context.Context, c *gateway.Credentials) (*gateway.Vouched, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, *c)
	if string(c.Password) != "good" && c.Header.Get("X-Custom") != "good" {
		return nil, errors.New("the function says no")
	}
	return f.vouched(), nil
}

func (f *fakeAuthorizers) vouched() *gateway.Vouched {
	v := f.answer
	v.Refresh = func(context.Context) (*gateway.Vouched, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.again++
		if f.refresh != nil {
			return nil, f.refresh
		}
		return f.vouched(), nil
	}
	return &v
}

// lastAsked is what it was asked with last, and how often it was asked again.
func (f *fakeAuthorizers) lastAsked() (gateway.Credentials, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1], f.again
}

func (f *fakeAuthorizers) allow(t testing.TB, document string) {
	t.Helper()
	d, err := lang.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer.Policies = lang.Compile(lang.Named{Name: "custom", Document: d})
}

func newAuthorizers(t testing.TB, disconnect, refresh time.Duration) *fakeAuthorizers {
	f := &fakeAuthorizers{answer: gateway.Vouched{
		Principal: aws.Principal{Type: "authorizer", ID: "someone"}, DisconnectAfter: disconnect, RefreshAfter: refresh,
	}}
	f.allow(t, everything)
	return f
}

func custom(f *fakeAuthorizers) func(*gateway.Config, *gateway.Deps) {
	return func(_ *gateway.Config, d *gateway.Deps) { d.Authorizers = f }
}

func password(s string) func(*mqtt.Connect) {
	return func(p *mqtt.Connect) {
		p.HasUsername, p.Username, p.HasPassword, p.Password = true, "name", true, []byte(s)
	}
}

// anonymous is a client without a certificate.
func (w *world) anonymous(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: w.roots, NextProtos: alpn, ServerName: "localhost"}
}

// fakeSignatures knows one key, whose signature is its id.
type fakeSignatures struct {
	revoked  atomic.Bool
	document string // of the policy; "" allows everything
}

func (*fakeSignatures) Signer(r *http.Request) (aws.Principal, bool, error) {
	switch key := r.URL.Query().Get("key"); key {
	case "":
		return aws.Principal{}, false, nil
	case "AKIA":
		return aws.Principal{Type: "user", ID: key, ARN: "arn:aws:iam::123456789012:user/admin"}, true, nil
	}
	return aws.Principal{}, true, errors.New("the signature does not match")
}

func (f *fakeSignatures) Holds(context.Context, aws.Principal) (bool, error) {
	return !f.revoked.Load(), nil
}

func (f *fakeSignatures) Open(_ context.Context, _ aws.Principal, conn *lang.Connection) (lang.Authorizer, error) {
	text := f.document
	if text == "" {
		text = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	}
	d, err := lang.Parse(text)
	if err != nil {
		return nil, err
	}
	return lang.Compile(lang.Named{Name: "iam", Document: d}).For(conn), nil
}

// webSocket opens a WebSocket; its connection speaks MQTT.
func (w *world) webSocket(t testing.TB, query string, h http.Header, cfg *tls.Config) (*websocket.Conn, net.Conn, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	t.Cleanup(client.CloseIdleConnections)
	ws, resp, err := websocket.Dial(t.Context(), "wss://"+w.Addrs().HTTPS.String()+"/mqtt"+query, &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: h, Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusForbidden {
			t.Errorf("refused with %s", resp.Status)
		}
		return nil, nil, err
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	ws.SetReadLimit(-1)
	return ws, websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

func (w *world) mustWebSocket(t testing.TB, query string, h http.Header, cfg *tls.Config) (*websocket.Conn, net.Conn) {
	t.Helper()
	ws, conn, err := w.webSocket(t, query, h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return ws, conn
}

func signing(s *fakeSignatures) func(*gateway.Config, *gateway.Deps) {
	return func(_ *gateway.Config, d *gateway.Deps) { d.Signatures = s }
}

// presence listens for lifecycle events.
func (w *world) presence(t testing.TB) (next func() map[string]any) {
	t.Helper()
	c, _ := w.connect(t, "presence")
	c.subscribe(1, "$aws/events/presence/#")
	return func() map[string]any {
		t.Helper()
		for {
			var e map[string]any
			if err := json.Unmarshal(c.message().Payload, &e); err != nil {
				t.Fatal(err)
			}
			if e["clientId"] != "presence" {
				return e
			}
		}
	}
}

func TestCustomAuthenticationByALPN(t *testing.T) {
	f := newAuthorizers(t, time.Hour, time.Hour)
	w := start(t, custom(f))
	events := w.presence(t)
	c, ack := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "c", password("good"))
	if ack.Code != 0 {
		t.Fatal(ack.Code)
	}
	e := events()
	a, _ := f.lastAsked()
	if e["principalIdentifier"] != "someone" || e["sessionIdentifier"] != a.ConnectionID {
		t.Errorf("%v", e)
	}
	if a.WebSocket || a.ClientID != "c" || a.Username != "name" || a.ServerName != "localhost" || a.SourceIP != "127.0.0.1" || a.Certificate != nil {
		t.Errorf("asked with %+v", a)
	}
	c.subscribe(1, "a/#")
	c.publish("b", "x", 1)
	_, ack = handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "d", password("bad"))
	if ack.Code != mqtt.NotAuthorized {
		t.Errorf("CONNACK %v", ack.Code)
	}
	if n := w.Denials("d"); len(n) != 1 || n[0].Action != "connect" || n[0].Reason != "the function says no" {
		t.Errorf("%+v", n)
	}
	// A certificate is not looked at, and what else the port speaks is not for it.
	if _, ack := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.clientTLS(t, "mqtt")), "d"); ack.Code != mqtt.NotAuthorized {
		t.Errorf("by certificate: %v", ack.Code)
	}
	if _, ack := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("x-amzn-mqtt-ca")), "d", password("good")); ack.Code != mqtt.NotAuthorized {
		t.Errorf("by password: %v", ack.Code)
	}
}

func TestCustomPoliciesGovern(t *testing.T) {
	f := newAuthorizers(t, time.Hour, time.Hour)
	f.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish"],"Resource":[
		"arn:aws:iot:us-east-1:123456789012:client/c","arn:aws:iot:us-east-1:123456789012:topic/${iot:ClientId}/x"]}]}`)
	w := start(t, custom(f))
	if _, ack := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "other", password("good")); ack.Code != mqtt.NotAuthorized {
		t.Errorf("CONNACK %v", ack.Code)
	}
	c, _ := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "c", password("good"))
	c.publish("c/x", "", 1)
	if codes := c.subscribe(1, "c/x"); !codes[0].Failed() {
		t.Errorf("SUBACK %v", codes)
	}
	c.send(&mqtt.Publish{Topic: []byte("d/x"), QoS: 1, PacketID: 9})
	if ack := next[*mqtt.Ack](c); ack.Code != mqtt.NotAuthorized {
		t.Errorf("PUBACK %+v", ack)
	}
	n := w.Denials("c")
	if len(n) != 2 || n[1].Action != "iot:Publish" || n[1].Resource != "d/x" || n[1].Principal != "someone" {
		t.Errorf("%+v", n)
	}
}

// TestDisconnectAfter: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html
func TestDisconnectAfter(t *testing.T) {
	f := newAuthorizers(t, time.Second, time.Second)
	w := start(t, custom(f))
	events := w.presence(t)
	c, _ := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "c", password("good"))
	if d := c.gone(); d == nil || d.Code != mqtt.MaximumConnectTime {
		t.Errorf("DISCONNECT %+v", d)
	}
	for {
		if e := events(); e["eventType"] == "disconnected" {
			if e["disconnectReason"] != "CUSTOMAUTH_TTL_EXPIRATION" || e["clientInitiatedDisconnect"] != false {
				t.Errorf("%v", e)
			}
			break
		}
	}
	if _, again := f.lastAsked(); again != 0 {
		t.Error("asked again for what has ended")
	}
}

func TestRefreshAfter(t *testing.T) {
	f := newAuthorizers(t, time.Hour, time.Second)
	w := start(t, custom(f))
	events := w.presence(t)
	c, _ := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "c", password("good"))
	c.publish("a", "", 1)
	f.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`)
	id := uint16(100)
	eventually(t, "the policies of the second answer", func() bool {
		id++
		c.send(&mqtt.Publish{Topic: []byte("a"), QoS: 1, PacketID: id})
		return next[*mqtt.Ack](c).Code == mqtt.NotAuthorized
	})
	f.mu.Lock()
	f.refresh = errors.New("the function says no")
	f.mu.Unlock()
	if d := c.gone(); d == nil || d.Code != mqtt.NotAuthorized {
		t.Errorf("DISCONNECT %+v", d)
	}
	for {
		if e := events(); e["eventType"] == "disconnected" {
			if e["disconnectReason"] != "AUTH_ERROR" {
				t.Errorf("%v", e)
			}
			break
		}
	}
	n := w.Denials("c")
	if last := n[len(n)-1]; last.Action != "refresh" || last.Reason != "the function says no" {
		t.Errorf("%+v", last)
	}
}

// A second answer that no longer allows iot:Connect ends the connection.
func TestRefreshForbidsConnect(t *testing.T) {
	f := newAuthorizers(t, time.Hour, time.Second)
	w := start(t, custom(f))
	c, _ := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "c", password("good"))
	f.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}`)
	if d := c.gone(); d == nil || d.Code != mqtt.NotAuthorized {
		t.Errorf("DISCONNECT %+v", d)
	}
}

func TestWebSocketByKey(t *testing.T) {
	s := &fakeSignatures{}
	w := start(t, signing(s))
	events := w.presence(t)
	ws, conn := w.mustWebSocket(t, "?key=AKIA", nil, w.anonymous())
	c, ack := handshake(t, conn, "c")
	if ack.Code != 0 {
		t.Fatal(ack.Code)
	}
	if e := events(); e["principalIdentifier"] != "AKIA:admin" || e["ipAddress"] != "127.0.0.1" {
		t.Errorf("%v", e)
	}
	c.subscribe(1, "a")
	for _, size := range []int{0, 1, 5000, 100_000} {
		payload := strings.Repeat("x", size)
		c.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte(payload), QoS: 1, PacketID: 77})
		for range 2 { // PUBACK and message, in either order
			switch p := c.next().(type) {
			case *mqtt.Publish:
				if string(p.Payload) != payload {
					t.Errorf("%d bytes came back as %d", size, len(p.Payload))
				}
				c.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID})
			case *mqtt.Ack:
			default:
				t.Fatalf("%T", p)
			}
		}
	}
	// Packets may be cut anywhere [MQTT-6.0.0-2].
	for _, b := range (mqtt.Pingreq{}).Append(nil, mqtt.V5) {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if p := c.next(); p != (mqtt.Pingresp{}) {
		t.Errorf("%T", p)
	}
	// A Close frame is a client's good-bye.
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	if e := events(); e["disconnectReason"] != "CLIENT_INITIATED_DISCONNECT" {
		t.Errorf("%v", e)
	}
}

func TestWebSocketEnds(t *testing.T) {
	s := &fakeSignatures{}
	w := start(t, signing(s))
	events := w.presence(t)
	reason := func() any {
		for {
			if e := events(); e["eventType"] == "disconnected" {
				return e["disconnectReason"]
			}
		}
	}
	open := func() (*websocket.Conn, *client) {
		ws, conn := w.mustWebSocket(t, "?key=AKIA", nil, w.anonymous())
		c, _ := handshake(t, conn, "c")
		return ws, c
	}
	ws, _ := open()
	_ = ws.CloseNow()
	if r := reason(); r != "CONNECTION_LOST" {
		t.Errorf("cut off: %v", r)
	}
	ws, c := open()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("no MQTT")); err != nil { // [MQTT-6.0.0-1]
		t.Fatal(err)
	}
	if _, err := c.read(patience); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("text: %v", err)
	}
	reason()
	_, c = open()
	c.send(&mqtt.Disconnect{})
	if _, err := c.read(patience); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after DISCONNECT: %v", err)
	}
	if r := reason(); r != "CLIENT_INITIATED_DISCONNECT" {
		t.Error(r)
	}
	_, c = open()
	if _, err := w.DataPlane().DeleteConnection(t.Context(), &iotdata.DeleteConnectionRequest{ClientId: "c"}); err != nil {
		t.Fatal(err)
	}
	if p := c.next(); p.(*mqtt.Disconnect).Code != mqtt.AdministrativeAction {
		t.Errorf("%+v", p)
	}
	if r := reason(); r != "API_INITIATED_DISCONNECT" {
		t.Error(r)
	}
	_, c = open()
	s.revoked.Store(true)
	w.KeysChanged()
	if d := c.gone(); d == nil || d.Code != mqtt.NotAuthorized {
		t.Errorf("DISCONNECT %+v", d)
	}
}

func TestWebSocketRefusals(t *testing.T) {
	s := &fakeSignatures{}
	f := newAuthorizers(t, time.Hour, time.Hour)
	w := start(t, signing(s), custom(f))
	if _, _, err := w.webSocket(t, "?key=other", nil, w.anonymous()); err == nil {
		t.Error("a bad signature was accepted")
	}
	if n := w.Denials(""); len(n) != 1 || n[0].Action != "upgrade" || n[0].Reason != "the signature does not match" {
		t.Errorf("%+v", n)
	}
	for what, c := range map[string]struct {
		header   http.Header
		tls      *tls.Config
		password string
		code     mqtt.ReasonCode
	}{
		"nothing":          {code: mqtt.NotAuthorized},
		"a header":         {header: http.Header{"X-Custom": {"good"}}},
		"another header":   {header: http.Header{"X-Custom": {"bad"}}, code: mqtt.NotAuthorized},
		"a password":       {password: "good"},
		"a certificate":    {tls: w.clientTLS(t)},
		"both":             {header: http.Header{"X-Custom": {"bad"}}, tls: w.clientTLS(t), code: mqtt.NotAuthorized},
		"another password": {password: "bad", code: mqtt.NotAuthorized},
	} {
		if c.tls == nil {
			c.tls = w.anonymous()
		}
		_, conn := w.mustWebSocket(t, "", c.header, c.tls)
		change := func(*mqtt.Connect) {}
		if c.password != "" {
			change = password(c.password)
		}
		if _, ack := handshake(t, conn, "c", change); ack.Code != c.code {
			t.Errorf("%s: CONNACK %v", what, ack.Code)
		}
	}
	if a, _ := f.lastAsked(); !a.WebSocket || a.Header == nil {
		t.Errorf("asked with %+v", a)
	}
	for _, h := range []http.Header{{"Sec-Websocket-Protocol": {"other"}}, {}} {
		h["Connection"], h["Upgrade"], h["Sec-Websocket-Version"], h["Sec-Websocket-Key"] = []string{"Upgrade"}, []string{"websocket"}, []string{"13"}, []string{"AAAAAAAAAAAAAAAAAAAAAA=="}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+w.Addrs().HTTPS.String()+"/mqtt", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = h
		resp, err := (&http.Transport{TLSClientConfig: w.anonymous()}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("subprotocol %v: %s", h["Sec-Websocket-Protocol"], resp.Status)
		}
	}
	// Browsers send a client certificate for any page that asks: only our own may.
	if _, _, err := w.webSocket(t, "", http.Header{"Origin": {"https://elsewhere.example"}}, w.clientTLS(t)); err == nil {
		t.Error("a stranger's page used a certificate")
	}
	if _, conn, err := w.webSocket(t, "?key=AKIA", http.Header{"Origin": {"https://elsewhere.example"}}, w.anonymous()); err != nil {
		t.Error(err)
	} else {
		handshake(t, conn, "page")
	}
}

// TestWebSocketDuration: https://docs.aws.amazon.com/general/latest/gr/iot-core.html, a WebSocket lasts 24 hours.
func TestWebSocketDuration(t *testing.T) {
	var offset atomic.Int64
	w := start(t, limits("aws"), signing(&fakeSignatures{}), func(_ *gateway.Config, d *gateway.Deps) {
		d.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	_, conn := w.mustWebSocket(t, "?key=AKIA", nil, w.anonymous())
	c, _ := handshake(t, conn, "c", func(p *mqtt.Connect) { p.KeepAlive = 1200 })
	for range 95 { // 900 s each, within the keep alive
		offset.Add(int64(900 * time.Second))
		c.quiet()
	}
	if !w.isConnected(t, "c") {
		t.Fatal("gone before its time")
	}
	offset.Add(int64(900 * time.Second))
	if d := c.gone(); d == nil || d.Code != mqtt.MaximumConnectTime {
		t.Errorf("DISCONNECT %+v", d)
	}
}

// A slow reader of a WebSocket holds up nobody and is bounded.
func TestWebSocketSlowReader(t *testing.T) {
	w := start(t, signing(&fakeSignatures{}), smallBuffers)
	_, conn := w.mustWebSocket(t, "?key=AKIA", nil, w.anonymous())
	slow, _ := handshake(t, conn, "slow")
	slow.subscribe(0, "s")
	a, _ := w.connect(t, "a")
	payload := []byte(strings.Repeat("x", 8192))
	for i := range 2000 {
		a.send(&mqtt.Publish{Topic: []byte("s"), Payload: payload})
		if i%50 == 49 {
			a.quiet()
		}
	}
	if dropped := counter(t, w.deps.Metrics, "flotilla_gateway_messages_dropped_total"); dropped == 0 {
		t.Error("nothing was dropped: where is it kept?")
	}
	for range 20 {
		slow.message()
	}
}

func TestWrongALPN(t *testing.T) {
	w := start(t)
	if _, err := (&tls.Dialer{Config: w.clientTLS(t, "amqp")}).DialContext(t.Context(), "tcp", w.Addrs().HTTPS.String()); err == nil {
		t.Error("amqp is spoken")
	}
}

// A custom authorizer may give the id of a certificate; that makes nobody its principal.
func TestPrincipalsOfTwoTypesAreTwo(t *testing.T) {
	claim := certificate(t, "claim")
	f := newAuthorizers(t, time.Hour, time.Hour)
	f.answer.Principal.ID = certificateID(claim.Leaf)
	w := start(t, custom(f))
	w.rules.claims.Store(certificateID(claim.Leaf), true)
	byClaim := func() mqtt.ReasonCode {
		cfg := &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{claim}, ServerName: "localhost"}
		_, ack := handshake(t, w.dialTLS(t, w.Addrs().MQTT, cfg), "pump")
		return ack.Code
	}
	c, _ := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.anonymous("mqtt")), "pump", password("good"), persistent)
	if code := byClaim(); code != mqtt.NotAuthorized {
		t.Errorf("the connection of another: CONNACK %v", code)
	}
	c.quiet()
	c.disconnect()
	if code := byClaim(); code != mqtt.NotAuthorized {
		t.Errorf("the session of another: CONNACK %v", code)
	}
}
