package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"flotilla/internal/server/servertest"
)

// anonymous is the TLS configuration of a client without a certificate.
func anonymous(n *servertest.Node, alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: n.Roots, NextProtos: alpn, MinVersion: tls.VersionTLS12}
}

// presigned is an address for MQTT over WebSocket, signed with a key.
func presigned(t testing.TB, key aws.Credentials, service, base, query string, at time.Time) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/mqtt?"+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), key, req, empty, service, "us-east-1", at)
	if err != nil {
		t.Fatal(err)
	}
	return "wss" + strings.TrimPrefix(signed, "https")
}

func admin(n *servertest.Node) aws.Credentials {
	return aws.Credentials{AccessKeyID: n.AccessKey, SecretAccessKey: n.Secret}
}

// dial3 connects by MQTT 3.1.1 to any address.
func dial3(t testing.TB, broker, clientID string, cfg *tls.Config, change ...func(*mqtt3.ClientOptions)) (*device3, error) {
	t.Helper()
	d := &device3{got: make(chan mqtt3.Message, 4096)}
	opts := mqtt3.NewClientOptions().AddBroker(broker).SetTLSConfig(cfg).SetClientID(clientID).SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectTimeout(patience).SetDefaultPublishHandler(func(_ mqtt3.Client, m mqtt3.Message) { d.got <- m })
	for _, c := range change {
		c(opts)
	}
	d.Client = mqtt3.NewClient(opts)
	token := d.Connect()
	if !token.WaitTimeout(patience) {
		t.Fatalf("connect %s: no answer", clientID)
	}
	if token.Error() == nil {
		t.Cleanup(func() { d.Disconnect(0) })
	}
	return d, token.Error()
}

func login(username, password string) func(*mqtt3.ClientOptions) {
	return func(o *mqtt3.ClientOptions) { o.SetUsername(username).SetPassword(password) }
}

func mustDial3(t testing.TB, broker, clientID string, cfg *tls.Config, change ...func(*mqtt3.ClientOptions)) *device3 {
	t.Helper()
	d, err := dial3(t, broker, clientID, cfg, change...)
	if err != nil {
		t.Fatalf("connect %s: %v", clientID, err)
	}
	return d
}

// works has a client subscribe, and hear itself.
func (d *device3) works(t testing.TB, topic string) {
	t.Helper()
	done(t, d.Subscribe(topic, 1, nil), "subscribe "+topic)
	done(t, d.Publish(topic, 1, false, "hello"), "publish "+topic)
	if m := d.next(t); m.Topic() != topic || string(m.Payload()) != "hello" {
		t.Errorf("got %s %q", m.Topic(), m.Payload())
	}
}

// TestWebSocketPresigned: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func TestWebSocketPresigned(t *testing.T) {
	n := servertest.Start(t).Node(0)
	base := "https://" + n.Endpoints().HTTPS
	now := time.Now()
	watcher := connect3(t, n, n.Identity(t, "watcher", "iot:* *"), "watcher")
	done(t, watcher.Subscribe("$aws/events/presence/+/ws", 1, nil), "subscribe")
	good := presigned(t, admin(n), "iotdevicegateway", base, "", now)
	ws := mustDial3(t, good, "ws", anonymous(n))
	ws.works(t, "any/topic")
	var e struct{ SessionIdentifier, PrincipalIdentifier, EventType, DisconnectReason string }
	if err := json.Unmarshal(watcher.next(t).Payload(), &e); err != nil || e.PrincipalIdentifier != n.AccessKey+":admin" || len(e.SessionIdentifier) != 36 {
		t.Errorf("%+v, %v", e, err)
	}
	ws.Disconnect(250)
	if err := json.Unmarshal(watcher.next(t).Payload(), &e); err != nil || e.DisconnectReason != "CLIENT_INITIATED_DISCONNECT" {
		t.Errorf("%+v, %v", e, err)
	}
	// The URL that clients make who sign the host's name without its port.
	host, port, err := net.SplitHostPort(n.Endpoints().HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	mustDial3(t, strings.Replace(presigned(t, admin(n), "iotdevicegateway", "https://"+host, "", now), host, host+":"+port, 1), "portless", anonymous(n))
	// The API's own port, on loopback.
	api := n.Endpoints().API
	plain := "ws" + strings.TrimPrefix(presigned(t, admin(n), "iotdevicegateway", strings.Replace(api, "http:", "https:", 1), "", now), "wss")
	mustDial3(t, plain, "laptop", nil).works(t, "any/topic")

	other := admin(n)
	other.SecretAccessKey += "x"
	unknown := aws.Credentials{AccessKeyID: "AKIAAAAAAAAAAAAAAAAA", SecretAccessKey: "x"}
	session := admin(n)
	session.SessionToken = "token"
	for what, address := range map[string]string{
		"no signature":        "wss://" + n.Endpoints().HTTPS + "/mqtt",
		"another secret":      presigned(t, other, "iotdevicegateway", base, "", now),
		"an unknown key":      presigned(t, unknown, "iotdevicegateway", base, "", now),
		"a session token":     presigned(t, session, "iotdevicegateway", base, "", now),
		"a token added later": good + "&X-Amz-Security-Token=token",
		"another service":     presigned(t, admin(n), "iot", base, "", now),
		"too late":            presigned(t, admin(n), "iotdevicegateway", base, "X-Amz-Expires=60", now.Add(-2*time.Minute)),
		"too early":           presigned(t, admin(n), "iotdevicegateway", base, "", now.Add(time.Hour)),
		"another query":       good + "&x=y",
		"another path":        strings.Replace(good, "/mqtt?", "/mqtt/?", 1),
		"another host":        presigned(t, admin(n), "iotdevicegateway", "https://elsewhere.example", "", now),
	} {
		if what == "another host" {
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			u.Host = n.Endpoints().HTTPS
			address = u.String()
		}
		if _, err := dial3(t, address, "x", anonymous(n)); err == nil {
			t.Errorf("%s: connected", what)
		}
	}
}

// TestWebSocketWithCertificate goes beyond AWS: a client certificate does for WebSocket too.
func TestWebSocketWithCertificate(t *testing.T) {
	n := servertest.Start(t).Node(0)
	id := n.Identity(t, "all", everything...)
	address := "wss://" + n.Endpoints().HTTPS + "/mqtt"
	d := mustDial3(t, address, "c", n.ClientTLS(id))
	d.works(t, "test/x")
	if _, err := n.IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: &id.ID, NewStatus: types.CertificateStatusInactive}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return !d.IsConnectionOpen() })
	if _, err := dial3(t, address, "c", n.ClientTLS(id)); err == nil {
		t.Error("connected with an inactive certificate")
	}
}

// TestHandshakes tries what each port and ALPN protocol does without a certificate.
func TestHandshakes(t *testing.T) {
	n := servertest.Start(t).Node(0)
	id := n.Identity(t, "all", everything...)
	connect := []byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'c'}
	get := []byte("GET /retainedMessage HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	const refused = ""
	for _, c := range []struct {
		addr, alpn  string
		certificate bool
		send        []byte
		want        string // how the answer begins
	}{
		{n.Endpoints().MQTT, "", true, connect, " \x02\x00\x00"},
		{n.Endpoints().MQTT, "", false, connect, refused},
		{n.Endpoints().HTTPS, "x-amzn-mqtt-ca", true, connect, " \x02\x00\x00"},
		{n.Endpoints().HTTPS, "x-amzn-mqtt-ca", false, connect, refused},
		{n.Endpoints().HTTPS, "mqtt", true, connect, refused}, // no authorizer
		{n.Endpoints().HTTPS, "mqtt", false, connect, refused},
		{n.Endpoints().HTTPS, "x-amzn-http-ca", true, get, "HTTP/1.1 403 "}, // the policy
		{n.Endpoints().HTTPS, "x-amzn-http-ca", false, get, refused},
		{n.Endpoints().HTTPS, "http/1.1", true, get, "HTTP/1.1 403 "},
		{n.Endpoints().HTTPS, "http/1.1", false, get, "HTTP/1.1 403 "},
		{n.Endpoints().HTTPS, "", false, get, "HTTP/1.1 403 "},
		{n.Endpoints().HTTPS, "", false, connect, "HTTP/1.1 400 "},
		{n.Endpoints().HTTPS, "amqp", true, nil, refused},
	} {
		cfg := anonymous(n)
		if c.certificate {
			cfg = n.ClientTLS(id)
		}
		if c.alpn != "" {
			cfg.NextProtos = []string{c.alpn}
		}
		got := func() string {
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(deadline(t), "tcp", c.addr)
			if err != nil {
				return refused
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write(c.send); err != nil {
				return refused
			}
			b := make([]byte, max(4, len(c.want)))
			k, _ := io.ReadFull(conn, b)
			return string(b[:k])
		}()
		if got != c.want {
			t.Errorf("%s ALPN %q, certificate %v: %q, want %q", c.addr, c.alpn, c.certificate, got, c.want)
		}
	}
}

// TestResumptionLooksAtTheCertificate: a TLS 1.3 ticket stands for the certificate that was shown once; whether
// that still is ACTIVE is asked at each CONNECT.
func TestResumptionLooksAtTheCertificate(t *testing.T) {
	n := servertest.Start(t).Node(0)
	id := n.Identity(t, "all", everything...)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := n.ClientTLS(id)
		cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(4)
		cfg.ServerName = "localhost"
		connect := func(addr, alpn string) (resumed bool, answer byte) {
			t.Helper()
			cfg := cfg.Clone()
			if alpn != "" {
				cfg.NextProtos = []string{alpn}
			}
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(deadline(t), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			packet := []byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 1, 'c'}
			if _, err := conn.Write(packet); err != nil {
				t.Fatal(err)
			}
			var b [4]byte // the reason code is the fourth byte
			if _, err := io.ReadFull(conn, b[:]); err != nil || b[0] != 0x20 {
				t.Fatalf("%x, %v", b, err)
			}
			return conn.(*tls.Conn).ConnectionState().DidResume, b[3]
		}
		for _, at := range []struct{ addr, alpn string }{{n.Endpoints().MQTT, ""}, {n.Endpoints().HTTPS, "x-amzn-mqtt-ca"}} {
			cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			if resumed, code := connect(at.addr, at.alpn); resumed || code != 0 {
				t.Fatalf("first: resumed %v, %#x", resumed, code)
			}
			if resumed, code := connect(at.addr, at.alpn); !resumed || code != 0 {
				t.Errorf("second: resumed %v, %#x", resumed, code)
			}
			set := func(status types.CertificateStatus) {
				t.Helper()
				if _, err := n.IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: &id.ID, NewStatus: status}); err != nil {
					t.Fatal(err)
				}
			}
			set(types.CertificateStatusInactive)
			if resumed, code := connect(at.addr, at.alpn); !resumed || code != 0x87 {
				t.Errorf("INACTIVE: resumed %v, %#x", resumed, code)
			}
			set(types.CertificateStatusActive)
		}
	}
}

// TestSignedHTTPS publishes with an access key at the devices' own port.
func TestSignedHTTPS(t *testing.T) {
	n := servertest.Start(t).Node(0)
	sub := connect5(t, n, n.Identity(t, "all", everything...), "sub")
	sub.subscribe(t, 1, "test/#")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: anonymous(n), ForceAttemptHTTP2: true}, Timeout: patience}
	base := "https://" + n.Endpoints().HTTPS
	data := iotdataplane.New(iotdataplane.Options{
		Region: "us-east-1", BaseEndpoint: &base, RetryMaxAttempts: 1, HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider(n.AccessKey, n.Secret, ""),
	})
	if _, err := data.Publish(t.Context(), &iotdataplane.PublishInput{
		Topic: new("test/a b"), Qos: 1, Payload: []byte("x"), ContentType: new("text/plain"), ResponseTopic: new("test/answer"),
		CorrelationData: new("AQI="), MessageExpiry: 60, PayloadFormatIndicator: "UTF8_DATA", UserProperties: new(`[{"k":"v"},{"k":"w"}]`),
	}); err != nil {
		t.Fatal(err)
	}
	m := sub.next(t)
	p := m.Properties
	if m.Topic != "test/a b" || string(m.Payload) != "x" || p.ContentType != "text/plain" || p.ResponseTopic != "test/answer" || !bytes.Equal(p.CorrelationData, []byte{1, 2}) ||
		p.MessageExpiry == nil || *p.MessageExpiry > 60 || *p.MessageExpiry < 55 || p.PayloadFormat == nil || *p.PayloadFormat != 1 || len(p.User) != 2 || p.User[1].Value != "w" {
		t.Errorf("%+v %+v", m, p)
	}
	call := func(service, method, path, body string, key aws.Credentials) int {
		t.Helper()
		req, err := http.NewRequestWithContext(deadline(t), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(body))
		if err := v4.NewSigner().SignHTTP(context.Background(), key, req, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, service := range []string{"iotdevicegateway", "iotdata"} {
		if code := call(service, "POST", "/topics/test/x?qos=1", service, admin(n)); code != 200 {
			t.Errorf("%s: %d", service, code)
		}
		if m := sub.next(t); string(m.Payload) != service {
			t.Errorf("got %q", m.Payload)
		}
	}
	bad := admin(n)
	bad.SecretAccessKey = "x"
	if code := call("iotdata", "POST", "/topics/test/x?qos=1", "x", bad); code != 403 {
		t.Errorf("bad signature: %d", code)
	}
	if code := call("iot", "GET", "/things", "", admin(n)); code != 403 {
		t.Errorf("the control plane: %d", code)
	}
}
