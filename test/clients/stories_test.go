package clients_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/server/servertest"
)

// story runs a script that says "ok" when all is well.
func story(t *testing.T, n *servertest.Node, script string, args ...string) {
	t.Helper()
	environ := append(append(nodeModules(t), env(n)...), "NODE_NO_WARNINGS=1")
	out := strings.TrimSpace(run(t, environ, program(t, "node"), append([]string{script}, args...)...))
	if out != "ok" && !strings.HasSuffix(out, "\nok") { // SDKs print warnings of their own
		t.Error(out)
	}
}

// connection is the argument of scripts that connect: JSON of options.
func connection(t *testing.T, n *servertest.Node, files string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(n.Endpoints().MQTT)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(options{Host: "localhost", Port: number, Files: files, KeepAlive: 60})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestJavaScriptSDK drives the control and data planes with the AWS SDK for
// JavaScript v3.
func TestJavaScriptSDK(t *testing.T) {
	story(t, servertest.Start(t).Node(0), "node/cloud.js")
}

// TestJavaScriptSDKIndex searches and aggregates the fleet with the AWS SDK for
// JavaScript v3, and has groups and metrics follow it.
func TestJavaScriptSDKIndex(t *testing.T) {
	story(t, servertest.Start(t).Node(0), "node/index.js")
}

// TestDeviceSDKShadow has a device keep its shadow with the device SDK's client.
func TestDeviceSDKShadow(t *testing.T) {
	n := servertest.Start(t).Node(0)
	if _, err := n.IoT().CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("pump-1")}); err != nil {
		t.Fatal(err)
	}
	const own = "$aws/things/pump-1/shadow/*"
	dir := device(t, n, "pump", "iot:Connect client/pump-1", "iot:Publish topic/"+own, "iot:Receive topic/"+own, "iot:Subscribe topicfilter/"+own)
	story(t, n, "node/shadow.js", connection(t, n, dir))
}

// TestDeviceSDKProvisioning has devices provision themselves with the device SDK's
// client, and connect as themselves.
func TestDeviceSDKProvisioning(t *testing.T) {
	n := servertest.Start(t).Node(0)
	document := servertest.PolicyDocument(n.Account(), "iot:Connect client/${iot:Connection.Thing.ThingName}", "iot:Publish topic/m/${iot:Connection.Thing.ThingName}")
	if _, err := n.IoT().CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: new("device"), PolicyDocument: &document}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: new("pumps"), Enabled: new(true), ProvisioningRoleArn: new("arn:aws:iam::123456789012:role/p"),
		TemplateBody: new(`{
			"Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
			"Resources": {
				"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-", ["pump", {"Ref": "SerialNumber"}]]}}},
				"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}},
				"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
			},
			"DeviceConfiguration": {"interval": "30"}
		}`),
	}); err != nil {
		t.Fatal(err)
	}
	const create, provision = "$aws/certificates/*", "$aws/provisioning-templates/*"
	claim := device(t, n, "claim", "iot:Connect client/claim-*",
		"iot:Publish topic/"+create+",topic/"+provision, "iot:Receive topic/"+create+",topic/"+provision,
		"iot:Subscribe topicfilter/"+create+",topicfilter/"+provision)
	csr, key := signingRequest(t)
	story(t, n, "node/provisioning.js", connection(t, n, claim), csr, key, t.TempDir())
}

// signingRequest gives a certificate signing request and its private key.
func signingRequest(t *testing.T) (csr, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "pump"}}, private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return text("CERTIFICATE REQUEST", request), text("PRIVATE KEY", der)
}
