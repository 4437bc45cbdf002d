package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"

	"flotilla/internal/server/servertest"
)

const template = `{
  "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-", ["pump", {"Ref": "SerialNumber"}]]}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}},
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
  },
  "DeviceConfiguration": {"interval": "30"}
}`

var claimPolicy = []string{
	"iot:Connect client/*", "iot:Publish topic/$aws/certificates/*,topic/$aws/provisioning-templates/pumps/*",
	"iot:Receive topic/$aws/certificates/*,topic/$aws/provisioning-templates/pumps/*",
	"iot:Subscribe topicfilter/$aws/certificates/*,topicfilter/$aws/provisioning-templates/pumps/*",
}

func makeTemplate(t *testing.T, n *servertest.Node) {
	t.Helper()
	doc := servertest.PolicyDocument(n.Account(), "iot:Connect client/${iot:Connection.Thing.ThingName}", "iot:Publish topic/test/${iot:Connection.Thing.ThingName}")
	if _, err := n.IoT().CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: new("device"), PolicyDocument: &doc}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: new("pumps"), TemplateBody: new(template), Enabled: new(true), ProvisioningRoleArn: new("arn:aws:iam::123456789012:role/p"),
	}); err != nil {
		t.Fatal(err)
	}
}

type provisioningAnswer struct {
	CertificateID, CertificatePem, PrivateKey, CertificateOwnershipToken, ThingName string
	DeviceConfiguration                                                             map[string]string
	StatusCode                                                                      int
	ErrorCode, ErrorMessage                                                         string
}

func ask(t *testing.T, d *device5, topic string, body any) (a provisioningAnswer) {
	t.Helper()
	d.subscribe(t, 1, topic+"/accepted", topic+"/rejected")
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	d.publish(t, topic, string(b), 1)
	m := d.next(t)
	if err := json.Unmarshal(m.Payload, &a); err != nil {
		t.Fatalf("%s: %v", m.Topic, err)
	}
	return a
}

func TestProvisionByClaim(t *testing.T) {
	d := servertest.Start(t)
	makeTemplate(t, d.Node(0))
	claim := d.Node(0).Identity(t, "claim", claimPolicy...)
	c := connect5(t, d.Node(1), claim, "claim-1")
	spy := connect5(t, d.Node(0), claim, "claim-2")
	spy.subscribe(t, 1, "$aws/certificates/create/json/accepted")

	created := ask(t, c, "$aws/certificates/create/json", struct{}{})
	pair, err := tls.X509KeyPair([]byte(created.CertificatePem), []byte(created.PrivateKey))
	if err != nil {
		t.Fatalf("%v in %+v", err, created)
	}
	request := map[string]any{"certificateOwnershipToken": created.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": "1"}}
	done := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", request)
	if done.ThingName != "pump-1" || done.DeviceConfiguration["interval"] != "30" {
		t.Fatalf("%+v", done)
	}
	// Once only.
	if again := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", request); again.StatusCode < 400 {
		t.Errorf("the token was taken twice: %+v", again)
	}
	// The device is itself now.
	self := connect5(t, d.Node(0), servertest.Identity{TLS: pair}, "pump-1")
	self.publish(t, "test/pump-1", "hello", 1)
	select {
	case m := <-spy.got:
		t.Errorf("another claim saw the answer on %s", m.Topic)
	default:
	}
}

func TestProvisionWithCSR(t *testing.T) {
	d := servertest.Start(t)
	makeTemplate(t, d.Node(0))
	c := connect5(t, d.Node(1), d.Node(0).Identity(t, "claim", claimPolicy...), "claim-1")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "pump"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	created := ask(t, c, "$aws/certificates/create-from-csr/json", map[string]string{"certificateSigningRequest": csr})
	if created.PrivateKey != "" || created.CertificatePem == "" {
		t.Fatalf("%+v", created)
	}
	// A token is of use to none but the connection it was given to.
	thief := connect5(t, d.Node(0), d.Node(0).Identity(t, "claim2", claimPolicy...), "claim-9")
	request := map[string]any{"certificateOwnershipToken": created.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": "2"}}
	if stolen := ask(t, thief, "$aws/provisioning-templates/pumps/provision/json", request); stolen.StatusCode < 400 {
		t.Errorf("another connection used the token: %+v", stolen)
	}
	if done := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", request); done.ThingName != "pump-2" {
		t.Errorf("%+v", done)
	}
	block, _ := pem.Decode([]byte(created.CertificatePem))
	connect5(t, d.Node(1), servertest.Identity{TLS: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}, "pump-2")
}

func TestTrustedUserClaim(t *testing.T) {
	d := servertest.Start(t)
	makeTemplate(t, d.Node(0))
	made, err := d.Node(0).IoT().CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: new("pumps")})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(*made.CertificatePem), []byte(*made.KeyPair.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	c := connect5(t, d.Node(1), servertest.Identity{TLS: pair}, "phone")
	created := ask(t, c, "$aws/certificates/create/json", struct{}{})
	request := map[string]any{"certificateOwnershipToken": created.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": "3"}}
	if done := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", request); done.ThingName != "pump-3" {
		t.Errorf("%+v", done)
	}
	// It can do nothing else.
	if _, err := c.Publish(deadline(t), publish5("test/x")); err == nil {
		t.Error("a claim certificate published telemetry")
	}
}

// A claim certificate may connect with any client id, but not in the place of a device.
func TestClaimDisturbsNoDevice(t *testing.T) {
	d := servertest.Start(t)
	makeTemplate(t, d.Node(0))
	made, err := d.Node(0).IoT().CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: new("pumps")})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(*made.CertificatePem), []byte(*made.KeyPair.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	claim := servertest.Identity{TLS: pair}
	all := d.Node(0).Identity(t, "all", everything...)
	steal := func(when string) {
		t.Helper()
		if _, err := dial5(t, d.Node(1), claim, "pump"); err == nil {
			t.Errorf("%s: a claim took the client id with a clean start", when)
		}
		if _, err := dial5(t, d.Node(1), claim, "pump", persistent); err == nil {
			t.Errorf("%s: a claim resumed the session", when)
		}
	}
	pump := connect5(t, d.Node(0), all, "pump", persistent)
	pump.subscribe(t, 1, "test/pump")
	steal("connected")
	if err := pump.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatalf("the device was disconnected: %v", err)
	}
	pump.gone(t)
	connect5(t, d.Node(0), all, "a").publish(t, "test/pump", "kept", 1)
	steal("absent")
	pump = connect5(t, d.Node(0), all, "pump", persistent)
	if !pump.connack.SessionPresent {
		t.Fatal("the session is gone")
	}
	if got := string(pump.next(t).Payload); got != "kept" {
		t.Errorf("got %q", got)
	}
	clean := connect5(t, d.Node(0), all, "clean")
	if _, err := dial5(t, d.Node(1), claim, "clean"); err == nil {
		t.Error("a claim took the client id of a connection without a session")
	}
	clean.publish(t, "test/x", "still there", 1)
}

// A token ends with its connection, even for the same certificate and client id.
func TestOwnershipTokenIsOfItsConnection(t *testing.T) {
	d := servertest.Start(t)
	makeTemplate(t, d.Node(0))
	claim := d.Node(0).Identity(t, "claim", claimPolicy...)
	first := connect5(t, d.Node(0), claim, "claim-1")
	created := ask(t, first, "$aws/certificates/create/json", struct{}{})
	again := connect5(t, d.Node(1), claim, "claim-1")
	request := map[string]any{"certificateOwnershipToken": created.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": "9"}}
	if got := ask(t, again, "$aws/provisioning-templates/pumps/provision/json", request); got.ErrorCode != "InvalidCertificateOwnershipToken" {
		t.Errorf("another connection used the token: %+v", got)
	}
}

// TestProvisioningIsExplained looks attempts up as an operator would, on another node than the device's.
func TestProvisioningIsExplained(t *testing.T) {
	d := servertest.Start(t)
	makeTemplate(t, d.Node(0))
	type attempt struct {
		Operation, Outcome, ErrorCode, NeededPolicy, ThingName string
		Steps                                                  []struct{ Name, Result string }
	}
	last := func(key string, enough func(attempt) bool) {
		t.Helper()
		var out struct{ Attempts []attempt }
		for ctx := deadline(t); ; {
			operatorGet(t, d.Node(0), "/explain/provisioning/"+key, &out)
			if k := len(out.Attempts) - 1; k >= 0 && enough(out.Attempts[k]) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: %+v", key, out)
			}
		}
	}
	mute := d.Node(0).Identity(t, "mute-claim", "iot:Connect client/*", "iot:Publish topic/$aws/certificates/*")
	c := connect5(t, d.Node(1), mute, "mute-1")
	const accepted = "$aws/certificates/create/json/accepted"
	if _, err := c.Subscribe(deadline(t), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: accepted}}}); err == nil {
		t.Error("subscribed")
	}
	last("mute-1", func(a attempt) bool {
		return a.Outcome == "denied" && strings.Contains(a.NeededPolicy, "topicfilter/"+accepted) && strings.Contains(a.NeededPolicy, "iot:Subscribe")
	})
	claim := d.Node(0).Identity(t, "claim", claimPolicy...)
	c = connect5(t, d.Node(1), claim, "claim-1")
	created := ask(t, c, "$aws/certificates/create/json", struct{}{})
	const topic = "$aws/provisioning-templates/pumps/provision/json"
	if a := ask(t, c, topic, map[string]any{"certificateOwnershipToken": created.CertificateOwnershipToken}); a.ErrorCode == "" {
		t.Errorf("%+v", a)
	}
	last(created.CertificateID, func(a attempt) bool { return a.Outcome == "rejected" && a.ErrorCode == "InvalidParameters" })
	ask(t, c, topic, map[string]any{"certificateOwnershipToken": created.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": "77"}})
	last("77", func(a attempt) bool { return a.Outcome == "accepted" && a.ThingName == "pump-77" && len(a.Steps) > 5 })
}

// TestBulkRegistration registers things from a file of the data directory, by AWS's SDK.
func TestBulkRegistration(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	dir := filepath.Join(n.Config.Data, "objects", "factory")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lines := `{"SerialNumber":"1"}` + "\n" + `{"SerialNumber":"not valid"}` + "\n" + `{"SerialNumber":"2"}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "lot-1.jsonl"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	started, err := n.IoT().StartThingRegistrationTask(t.Context(), &iot.StartThingRegistrationTaskInput{
		TemplateBody: new(`{"Parameters":{"SerialNumber":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{
			"ThingName":{"Fn::Sub":"pump-${SerialNumber}"}}}}}`),
		InputFileBucket: new("factory"), InputFileKey: new("lot-1.jsonl"), RoleArn: new("arn:aws:iam::123456789012:role/p"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var task *iot.DescribeThingRegistrationTaskOutput
	for ctx := deadline(t); task == nil || task.Status == types.StatusInProgress; {
		if task, err = n.IoT().DescribeThingRegistrationTask(ctx, &iot.DescribeThingRegistrationTaskInput{TaskId: started.TaskId}); err != nil {
			t.Fatal(err)
		}
	}
	if task.Status != types.StatusCompleted || task.SuccessCount != 2 || task.FailureCount != 1 || task.PercentageProgress != 100 {
		t.Errorf("%+v", task)
	}
	for kind, want := range map[types.ReportType]string{types.ReportTypeResults: "thing/pump-2", types.ReportTypeErrors: `"lineNumber":2`} {
		out, err := n.IoT().ListThingRegistrationTaskReports(t.Context(), &iot.ListThingRegistrationTaskReportsInput{TaskId: started.TaskId, ReportType: kind})
		if err != nil || len(out.ResourceLinks) != 1 {
			t.Fatalf("%s: %v", kind, err)
		}
		resp, err := http.Get(out.ResourceLinks[0])
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s %v", kind, resp.StatusCode, body, err)
		}
	}
}
