package domain_test

import (
	"crypto/tls"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/store/storetest"
)

// device gives a client that shows a certificate when it is asked for one.
func (w *world) device(t testing.TB, serverName string, roots ...*chain) *tls.Config {
	t.Helper()
	c := issue(t, nil, []string{"device"})
	pool := w.ca.Pool()
	for _, r := range roots {
		pool.AddCert(r.certs[len(r.certs)-1])
	}
	return &tls.Config{
		ServerName: serverName, RootCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.certs[0].Raw}, PrivateKey: c.key}},
	}
}

// TestCertificateBySNI: each domain shows its own certificate.
func TestCertificateBySNI(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	root := issue(t, nil, nil)
	w.put(t, "one", issue(t, issue(t, root, nil), []string{"one.example.com"}).pem(t))
	w.create(t, &iot.CreateDomainConfigurationRequest{
		DomainConfigurationName: "one", DomainName: new("one.example.com"), ServerCertificateArns: []string{certificateARN + "one"},
	})
	w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "two", DomainName: new("two.example.com")})
	server := w.TLS(w.base)
	for name, roots := range map[string][]*chain{"one.example.com": {root}, "ONE.example.com": {root}, "two.example.com": nil, "iot.example.org": nil, "localhost": nil} {
		state, err := handshake(t, server, w.device(t, name, roots...)) // verifies name and chain
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if n := len(state.PeerCertificates); (n == 3) != (len(roots) > 0) {
			t.Errorf("%s: a chain of %d", name, n)
		}
	}
	if state, err := handshake(t, server, w.device(t, "")); err != nil || state.PeerCertificates[0].VerifyHostname("iot.example.org") != nil {
		t.Errorf("without SNI: %v", err)
	}
}

// TestReload: a certificate that is replaced is shown from then on; one that is no good is not.
func TestReload(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	root := issue(t, nil, nil)
	first, second := issue(t, root, []string{"one.example.com"}), issue(t, root, []string{"one.example.com"})
	w.put(t, "one", first.pem(t))
	w.create(t, &iot.CreateDomainConfigurationRequest{
		DomainConfigurationName: "one", DomainName: new("one.example.com"), ServerCertificateArns: []string{certificateARN + "one"},
	})
	server := w.TLS(w.base)
	want := func(when string, c *chain) {
		t.Helper()
		state, err := handshake(t, server, w.device(t, "one.example.com", root))
		if err != nil || !state.PeerCertificates[0].Equal(c.certs[0]) {
			t.Errorf("%s: %v", when, err)
		}
	}
	want("at first", first)
	w.put(t, "one", second.pem(t))
	w.advance(time.Second)
	want("once replaced", second)
	w.put(t, "one", "half a fi")
	for range 3 {
		w.advance(time.Second)
		want("replaced by nonsense", second)
	}
	if n := strings.Count(w.log.String(), "server certificate is no good"); n != 1 || strings.Contains(w.log.String(), w.dir) {
		t.Errorf("said %d times: %s", n, w.log)
	}
	w.put(t, "one", first.pem(t))
	w.advance(time.Second)
	want("once healed", first)
	// Another node has the configuration, but not the file.
	elsewhere := newWorld(t, w.db, domain.Config{})
	_, err := handshake(t, elsewhere.TLS(elsewhere.base), w.device(t, "one.example.com", root))
	e := wantError[*domain.RefusedError](t, err, "certificates/one.pem can't be read")
	if e.Reason != domain.ReasonCertificate || e.ServerName != "one.example.com" {
		t.Errorf("%+v", e)
	}
}

// TestSecurityPolicies: https://docs.aws.amazon.com/iot/latest/developerguide/transport-security.html#tls-policy-table
func TestSecurityPolicies(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
	server := w.TLS(w.base)
	for policy, versions := range map[string][]uint16{
		"IoTSecurityPolicy_TLS13_1_3_2022_10": {tls.VersionTLS13},
		"IoTSecurityPolicy_TLS13_1_2_2022_10": {tls.VersionTLS12, tls.VersionTLS13},
		"IoTSecurityPolicy_TLS12_1_2_2022_10": {tls.VersionTLS12},
		"IoTSecurityPolicy_TLS12_1_0_2016_01": {tls.VersionTLS12},
		"IoTSecurityPolicy_TLS12_1_0_2015_01": {tls.VersionTLS12},
	} {
		for _, name := range []string{"one", domain.DefaultName} {
			w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: name, TlsConfig: &iot.TlsConfig{SecurityPolicy: &policy}})
		}
		for _, host := range []string{"one.example.com", "iot.example.org"} {
			for _, v := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
				client := w.device(t, host)
				client.MinVersion, client.MaxVersion = v, v
				state, err := handshake(t, server, client)
				want := false
				for _, good := range versions {
					want = want || good == v
				}
				if (err == nil) != want || want && state.Version != v {
					t.Errorf("%s, %s, %s: %v", policy, host, tls.VersionName(v), err)
				}
			}
		}
	}
}

// TestClientCertificate: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func TestClientCertificate(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
	base := w.base.Clone()
	base.NextProtos = []string{"x-amzn-mqtt-ca", "x-amzn-http-ca", "mqtt", "h2", "http/1.1"}
	base.ClientAuth = tls.RequestClientCert
	server := w.TLS(base)
	const asked, optional, not = "required", "requested", "not asked"
	for _, c := range []struct {
		authentication string
		alpn           []string
		want           string
	}{
		{"DEFAULT", nil, optional},
		{"DEFAULT", []string{"http/1.1"}, optional},
		{"DEFAULT", []string{"h2", "http/1.1"}, optional},
		{"DEFAULT", []string{"mqtt"}, not},
		{"DEFAULT", []string{"x-amzn-mqtt-ca"}, asked},
		{"DEFAULT", []string{"mqtt", "x-amzn-mqtt-ca"}, asked},
		{"DEFAULT", []string{"x-amzn-http-ca"}, asked},
		{"AWS_X509", nil, asked},
		{"AWS_X509", []string{"mqtt"}, asked},
		{"CUSTOM_AUTH_X509", nil, asked},
		{"CUSTOM_AUTH", []string{"x-amzn-mqtt-ca"}, not},
		{"CUSTOM_AUTH", nil, not},
		{"AWS_SIGV4", []string{"http/1.1"}, not},
	} {
		w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: "one", AuthenticationType: &c.authentication})
		shown := false
		with := w.device(t, "one.example.com")
		with.NextProtos = c.alpn
		cert := with.Certificates[0]
		with.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			shown = true
			return &cert, nil
		}
		_, errWith := handshake(t, server, with)
		without := w.device(t, "one.example.com")
		without.NextProtos, without.Certificates = c.alpn, nil
		_, errWithout := handshake(t, server, without)
		got := not
		switch {
		case shown && errWithout != nil:
			got = asked
		case shown:
			got = optional
		}
		if got != c.want || errWith != nil {
			t.Errorf("%s, ALPN %q: a certificate is %s, want %s (%v, %v)", c.authentication, c.alpn, got, c.want, errWith, errWithout)
		}
	}
}

// TestRefusedHandshakes: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-managing.html
func TestRefusedHandshakes(t *testing.T) {
	for _, cfg := range []domain.Config{{}, {RefuseUnknown: true}, {Limits: "aws"}} {
		w := newWorld(t, storetest.Open(t), cfg)
		w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
		server := w.TLS(w.base)
		if _, err := handshake(t, server, w.device(t, "one.example.com")); err != nil {
			t.Fatal(err)
		}
		w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: "one", DomainConfigurationStatus: new("DISABLED")})
		_, err := handshake(t, server, w.device(t, "one.example.com"))
		if e := wantError[*domain.RefusedError](t, err, "one.example.com: the domain configuration is DISABLED"); e.Reason != domain.ReasonDisabled {
			t.Error(e.Reason)
		}
		if c, ok := w.Lookup("one.example.com"); !ok || c.Enabled || c.Admits(iot.AuthenticationTypeAwsX509, iot.ApplicationProtocolSecureMqtt) {
			t.Errorf("%+v %v", c, ok)
		}
		client := w.device(t, "other.example.com")
		client.InsecureSkipVerify = true // which certificate it is shown is not the question
		_, err = handshake(t, server, client)
		_, known := w.Lookup("other.example.com")
		if cfg == (domain.Config{}) {
			if err != nil || !known {
				t.Errorf("an unknown name: %v", err)
			}
			continue
		}
		if e := wantError[*domain.RefusedError](t, err, "other.example.com: no domain configuration"); e.Reason != domain.ReasonUnknown || known {
			t.Error(e.Reason, known)
		}
		if _, err := handshake(t, server, w.device(t, "")); err != nil { // lenient with those that name none
			t.Error(err)
		}
	}
}

// TestOtherNode follows what another node does.
func TestOtherNode(t *testing.T) {
	db := storetest.Open(t)
	here, there := newWorld(t, db, domain.Config{}), newWorld(t, db, domain.Config{RefuseUnknown: true})
	if _, ok := there.Lookup("one.example.com"); ok {
		t.Error("known already")
	}
	here.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
	there.bus.Changed("domain", "one")
	if c, ok := there.Lookup("one.example.com"); !ok || c.Name != "one" {
		t.Errorf("%+v", c)
	}
}

// TestAdmits: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#connection-protocol-auth-mode
func TestAdmits(t *testing.T) {
	def := domain.Configuration{Enabled: true, AuthenticationType: "DEFAULT", ApplicationProtocol: "DEFAULT"}
	custom := domain.Configuration{Enabled: true, AuthenticationType: "CUSTOM_AUTH", ApplicationProtocol: "MQTT_WSS"}
	for _, c := range []struct {
		of                          domain.Configuration
		authentication, application string
		want                        bool
	}{
		{def, "AWS_X509", "SECURE_MQTT", true},
		{def, "AWS_X509", "HTTPS", true},
		{def, "AWS_X509", "MQTT_WSS", false},
		{def, "AWS_SIGV4", "MQTT_WSS", true},
		{def, "AWS_SIGV4", "SECURE_MQTT", false},
		{def, "CUSTOM_AUTH", "SECURE_MQTT", true},
		{def, "NOBODY", "SECURE_MQTT", false},
		{custom, "CUSTOM_AUTH", "MQTT_WSS", true},
		{custom, "CUSTOM_AUTH", "HTTPS", false},
		{custom, "AWS_SIGV4", "MQTT_WSS", false},
	} {
		if got := c.of.Admits(c.authentication, c.application); got != c.want {
			t.Errorf("%+v %s %s: %v", c.of, c.authentication, c.application, got)
		}
	}
}

// TestConcurrentChanges: handshakes go on while configurations change.
func TestConcurrentChanges(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
	server := w.TLS(w.base)
	client := w.device(t, "one.example.com")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 10 {
				if _, err := handshake(t, server, client); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		policy := []string{"IoTSecurityPolicy_TLS12_1_2_2022_10", "IoTSecurityPolicy_TLS13_1_3_2022_10"}[i%2]
		w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: "one", TlsConfig: &iot.TlsConfig{SecurityPolicy: &policy}})
	}
	group.Wait()
}

func BenchmarkLookup(b *testing.B) {
	w := newWorld(b, storetest.Open(b), domain.Config{})
	w.create(b, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
	for b.Loop() {
		if _, ok := w.Lookup("one.example.com"); !ok {
			b.Fatal("not found")
		}
	}
}
