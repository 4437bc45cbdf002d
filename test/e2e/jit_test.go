package e2e_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server/servertest"
)

func certificateID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// jitpTemplate is that of AWS's page, with a policy by name.
const jitpTemplate = `{
  "Parameters": {
    "AWS::IoT::Certificate::CommonName": {"Type": "String"},
    "AWS::IoT::Certificate::SerialNumber": {"Type": "String"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {
      "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
      "AttributePayload": {"serialNumber": {"Ref": "AWS::IoT::Certificate::SerialNumber"}}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
  }
}`

// namingServer has the client say which server it wants (SNI), as AWS asks of devices.
func namingServer(n *servertest.Node) *servertest.Node {
	named := *n
	named.ServerName = "localhost"
	return &named
}

func devicePolicy(t *testing.T, n *servertest.Node) {
	t.Helper()
	doc := servertest.PolicyDocument(n.Account(), "iot:Connect client/${iot:Connection.Thing.ThingName}", "iot:Publish topic/test/${iot:Connection.Thing.ThingName}")
	if _, err := n.IoT().CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: new("device"), PolicyDocument: &doc}); err != nil {
		t.Fatal(err)
	}
}

// The first connect registers and provisions, and is closed; then the device is itself. Once with a root authority
// and its template's body, once with an intermediate one and its template's name; MQTT 5 and 3.1.1.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jit-provisioning.html
func TestJustInTimeProvisioning(t *testing.T) {
	d := servertest.Start(t)
	n, other := namingServer(d.Node(0)), namingServer(d.Node(1))
	devicePolicy(t, n)
	if _, err := n.IoT().CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: new("bulbs"), TemplateBody: new(jitpTemplate), Enabled: new(true), Type: types.TemplateTypeJitp, ProvisioningRoleArn: new(roleARN),
	}); err != nil {
		t.Fatal(err)
	}
	root := newAuthority(t, "root", nil)
	root.register(t, n, byTemplate(jitpTemplate))
	sub := newAuthority(t, "factory 7", newAuthority(t, "corporate", nil)) // of which nobody here knows
	sub.register(t, n, func(in *iot.RegisterCACertificateInput) {
		in.RegistrationConfig = &types.RegistrationConfig{TemplateName: new("bulbs")}
	})
	if out, err := n.IoT().ListCACertificates(t.Context(), &iot.ListCACertificatesInput{TemplateName: new("bulbs")}); err != nil || len(out.Certificates) != 1 || *out.Certificates[0].CertificateId != sub.id {
		t.Errorf("list by template: %+v, %v", out, err)
	}

	for _, c := range []struct {
		name  string
		of    *authority
		shown []*x509.Certificate
	}{{"bulb-1", root, nil}, {"bulb-2", sub, []*x509.Certificate{sub.cert}}} {
		cert, key := issueBy(t, c.of, &x509.Certificate{
			Subject: pkix.Name{CommonName: c.name, SerialNumber: "S/" + c.name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		id := identityOf(cert, key, c.shown...)
		if _, err := dial5(t, n, id, c.name); err == nil {
			t.Errorf("%s: its first connect was accepted", c.name)
		}
		if e := explain(t, n, id.ID); len(e.Refusals) != 1 || !strings.Contains(e.Refusals[0].Reason, "provisioned just now") || !strings.Contains(e.Refusals[0].Reason, c.name) {
			t.Errorf("%s: explained as %+v", c.name, e)
		}
		self := connect5(t, other, id, c.name)
		self.publish(t, "test/"+c.name, "hello", 1)
		connect3(t, n, id, c.name)
		thing, err := n.IoT().DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: &c.name})
		if err != nil || thing.Attributes["serialNumber"] != "S/"+c.name {
			t.Errorf("%s: thing %+v, %v", c.name, thing, err)
		}
		got, err := n.IoT().DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &id.ID})
		if err != nil || got.CertificateDescription.Status != types.CertificateStatusActive || *got.CertificateDescription.CaCertificateId != c.of.id {
			t.Errorf("%s: certificate %+v, %v", c.name, got, err)
		}
	}
	if out, err := n.IoT().ListCertificatesByCA(t.Context(), &iot.ListCertificatesByCAInput{CaCertificateId: &root.id}); err != nil || len(out.Certificates) != 1 {
		t.Errorf("certificates of the root: %+v, %v", out, err)
	}
}

// A template that asks for what the certificate does not have leaves it registered, waiting, and explained; once the
// template is right the next connect provisions.
func TestJustInTimeProvisioningThatFails(t *testing.T) {
	n := namingServer(servertest.Start(t).Node(0))
	devicePolicy(t, n)
	ca := newAuthority(t, "ca", nil)
	ca.register(t, n, byTemplate(jitpTemplate))
	id := ca.device(t, pkix.Name{CommonName: "bulb"}) // has no serial number
	for range 2 {
		if _, err := dial5(t, n, id, "bulb"); err == nil {
			t.Error("connected")
		}
	}
	e := explain(t, n, "bulb")
	if len(e.Refusals) == 0 || !strings.Contains(e.Refusals[0].Reason, "SerialNumber") || e.Refusals[0].Principal != id.ID {
		t.Errorf("explained as %+v", e)
	}
	got, err := n.IoT().DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &id.ID})
	if err != nil || got.CertificateDescription.Status != types.CertificateStatusPendingActivation {
		t.Errorf("certificate %+v, %v", got, err)
	}
	if _, err := n.IoT().UpdateCACertificate(t.Context(), &iot.UpdateCACertificateInput{
		CertificateId:      &ca.id,
		RegistrationConfig: &types.RegistrationConfig{TemplateBody: new(strings.NewReplacer(`"AWS::IoT::Certificate::SerialNumber": {"Type": "String"},`, "", `{"Ref": "AWS::IoT::Certificate::SerialNumber"}`, `"none"`).Replace(jitpTemplate))},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := dial5(t, n, id, "bulb"); err == nil {
		t.Error("the connect that provisions was accepted")
	}
	connect5(t, n, id, "bulb")
}

// JITR: the event reaches a rule, whose receiver activates the certificate by the API.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/auto-register-device-cert.html
func TestJustInTimeRegistration(t *testing.T) {
	d := servertest.Start(t)
	n := namingServer(d.Node(0))
	devicePolicy(t, n)
	ca := newAuthority(t, "ca", nil)
	ca.register(t, n)
	back := connect5(t, d.Node(0), n.Identity(t, "backend", "iot:Connect client/*", "iot:Subscribe topicfilter/backend/*", "iot:Receive topic/backend/*"), "backend")
	back.subscribe(t, 1, "backend/registered")
	makeRule(t, n, "jitr", "SELECT *, topic(5) AS ca FROM '$aws/events/certificates/registered/+'",
		types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("backend/registered"), Qos: new(int32(1))}})

	id := ca.device(t, pkix.Name{CommonName: "pump-1"})
	type event struct {
		CertificateID, CACertificateID, CertificateStatus, AwsAccountID, CA string
		Timestamp                                                           int64
		CertificateRegistrationTimestamp                                    *string
	}
	next := func() (e event) {
		t.Helper()
		if err := json.Unmarshal(back.next(t).Payload, &e); err != nil {
			t.Fatal(err)
		}
		if e.CertificateID != id.ID || e.CACertificateID != ca.id || e.CA != ca.id || e.CertificateStatus != "PENDING_ACTIVATION" || e.AwsAccountID != n.Account() || e.Timestamp == 0 {
			t.Errorf("event %+v", e)
		}
		return e
	}
	if _, err := dial5(t, n, id, "pump-1"); err == nil {
		t.Fatal("its first connect was accepted")
	}
	if e := next(); e.CertificateRegistrationTimestamp != nil {
		t.Errorf("registered before: %s", *e.CertificateRegistrationTimestamp)
	}
	if _, err := dial5(t, n, id, "pump-1"); err == nil {
		t.Fatal("a certificate that waits for its activation was let in")
	}
	if e := next(); e.CertificateRegistrationTimestamp == nil {
		t.Error("the second event does not say when the certificate was registered")
	}
	// What the function behind the rule does.
	api := n.IoT()
	arn := "arn:aws:iot:" + n.Config.Region + ":" + n.Account() + ":cert/" + id.ID
	_, e1 := api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("pump-1")})
	_, e2 := api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: new("device"), Target: &arn})
	_, e3 := api.AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalInput{ThingName: new("pump-1"), Principal: &arn})
	_, e4 := api.UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: &id.ID, NewStatus: types.CertificateStatusActive})
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		t.Fatal(err)
	}
	connect5(t, n, id, "pump-1").publish(t, "test/pump-1", "hello", 1)
}

// Every certificate that must not get in: over real TLS, with what the operator is told.
func TestCertificatesThatAreRefused(t *testing.T) {
	n := namingServer(servertest.Start(t).Node(0))
	anonymous := *n
	anonymous.ServerName = ""
	devicePolicy(t, n)
	ca := newAuthority(t, "ca", nil, func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"factory.example"}, true
	})
	ca.register(t, n, byTemplate(jitpTemplate))
	inactive := newAuthority(t, "inactive", nil)
	inactive.register(t, n, func(in *iot.RegisterCACertificateInput) { in.SetAsActive = false })
	off := newAuthority(t, "off", nil)
	off.register(t, n, func(in *iot.RegisterCACertificateInput) { in.AllowAutoRegistration = false })
	sni := newAuthority(t, "many accounts", nil)
	sni.register(t, n, func(in *iot.RegisterCACertificateInput) {
		in.CertificateMode, in.VerificationCertificate = types.CertificateModeSniOnly, nil
	})
	impostor := newAuthority(t, "ca", nil) // the registered one's name, another key
	sub := newAuthority(t, "sub", ca, func(c *x509.Certificate) { c.PermittedDNSDomains = nil })
	named := pkix.Name{CommonName: "bulb", SerialNumber: "1"}
	with := func(a *authority, change func(*x509.Certificate)) servertest.Identity {
		return a.device(t, named, change)
	}

	alone, aloneKey := issueBy(t, nil, &x509.Certificate{Subject: named, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	long, longKey := issueBy(t, ca, &x509.Certificate{Subject: named, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	revoked := n.Identity(t, "revoked", "iot:Connect *")
	if _, err := n.IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: &revoked.ID, NewStatus: types.CertificateStatusRevoked}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		id     servertest.Identity
		node   *servertest.Node
		reason string
	}{
		{"expired", with(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), n, "has expired"},
		{"not yet valid", with(ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }), n, "is not valid yet"},
		{"self-signed", identityOf(alone, aloneKey), n, "self-signed"},
		{"unknown CA", newAuthority(t, "stranger", nil).device(t, named), n, "no CA certificate that is registered signed it"},
		{"impostor of a CA", impostor.device(t, named), n, "no CA certificate that is registered signed it"},
		{"registered CA is not its issuer", shows(t, sub, named, sub.cert, ca.cert), n, "no CA certificate that is registered signed it"},
		{"revoked", revoked, n, "not ACTIVE but REVOKED"},
		{"wrong key usage", with(ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), n, "digitalSignature"},
		{"wrong extended key usage", with(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), n, "clientAuth"},
		{"a CA as device", identityOf(sub.cert, sub.key), n, "of an authority"},
		{"wrong SAN", with(ca, func(c *x509.Certificate) { c.DNSNames = []string{"elsewhere.example"} }), n, "not among those that its CA may vouch for"},
		{"oversized chain", identityOf(long, longKey, slices.Repeat([]*x509.Certificate{ca.cert}, 40)...), n, "shows 41 certificates"},
		{"weak key", weakDevice(t, ca, named), n, "RSA key must have"},
		{"CA inactive", inactive.device(t, named), n, "is INACTIVE"},
		{"auto-registration off", off.device(t, named), n, "auto-registration of its CA certificate " + off.id + " is disabled"},
		{"no server name", ca.device(t, named), &anonymous, "neither a server name"},
		{"no server name for SNI_ONLY", shows(t, sni, named, sni.cert), &anonymous, "SNI_ONLY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clientID := strings.ReplaceAll(c.name, " ", "-")
			if _, err := dial5(t, c.node, c.id, clientID); err == nil {
				t.Error("it connected")
			}
			var e explanation
			eventually(t, "the explanation", func() bool { // the alert is out before it
				e = explain(t, n, c.id.ID)
				return len(e.Refusals) > 0
			})
			if !strings.Contains(e.Refusals[0].Reason, c.reason) || e.Refusals[0].Principal != c.id.ID {
				t.Errorf("explained as %+v, not as %q", e.Refusals, c.reason)
			}
			if c.name == "revoked" {
				return
			}
			if _, err := n.IoT().DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &c.id.ID}); err == nil {
				t.Error("it was registered")
			}
		})
	}
}

// shows is a certificate of an authority whose client shows others too.
func shows(t *testing.T, a *authority, subject pkix.Name, shown ...*x509.Certificate) servertest.Identity {
	t.Helper()
	id := a.device(t, subject)
	for _, c := range shown {
		id.TLS.Certificate = append(id.TLS.Certificate, c.Raw)
	}
	return id
}

func weakDevice(t *testing.T, a *authority, subject pkix.Name) servertest.Identity {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.Identity{ID: certificateID(der), TLS: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// A handshake alone registers nothing (ministack issue 1755: measured on AWS).
func TestHandshakeAloneRegistersNothing(t *testing.T) {
	n := namingServer(servertest.Start(t).Node(0))
	ca := newAuthority(t, "ca", nil)
	ca.register(t, n)
	id := ca.device(t, pkix.Name{CommonName: "x"})
	c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: n.ClientTLS(id)}).DialContext(deadline(t), "tcp", n.Endpoints().MQTT)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.(*tls.Conn).CloseWrite()
	_, _ = c.Read(make([]byte, 1)) // until the server has closed it too
	_ = c.Close()
	if _, err := n.IoT().DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &id.ID}); err == nil {
		t.Error("registered")
	}
}

// A device that comes by HTTPS is provisioned by its first request, which is refused, and served from then on.
func TestJustInTimeProvisioningOverHTTPS(t *testing.T) {
	n := namingServer(servertest.Start(t).Node(0))
	doc := servertest.PolicyDocument(n.Account(), "iot:Publish topic/test/*")
	if _, err := n.IoT().CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: new("device"), PolicyDocument: &doc}); err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t, "ca", nil)
	ca.register(t, n, byTemplate(jitpTemplate))
	cert, key := issueBy(t, ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: "meter", SerialNumber: "7"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	publish := func() int {
		t.Helper()
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: n.ClientTLS(identityOf(cert, key)), DisableKeepAlives: true}, Timeout: patience}
		resp, err := c.Post("https://"+n.Endpoints().HTTPS+"/topics/test/a?qos=1", "", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if code := publish(); code != http.StatusForbidden && code != http.StatusUnauthorized {
		t.Errorf("the first request: %d", code)
	}
	if _, err := n.IoT().DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: new("meter")}); err != nil {
		t.Error(err)
	}
	if code := publish(); code != http.StatusOK {
		t.Errorf("the second request: %d", code)
	}
}
