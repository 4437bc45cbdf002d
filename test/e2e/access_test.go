package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/aws/smithy-go"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"flotilla/internal/server/servertest"
)

// operator calls the operator's API with a key, and gives status, error type and body.
func operator(t testing.TB, n *servertest.Node, key aws.Credentials, method, path string, in any) (status int, code string, body []byte) {
	t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, n, key, "flotilla", method, path, text)
}

func signed(t testing.TB, n *servertest.Node, key aws.Credentials, service, method, path string, text []byte) (status int, code string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), method, n.Endpoints().API+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if err := v4.NewSigner().SignHTTP(t.Context(), key, req, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("X-Amzn-Errortype"), body
}

// identity makes an identity with a managed policy, and a key of it.
func identity(t testing.TB, n *servertest.Node, name, policy string, tags map[string]string) aws.Credentials {
	t.Helper()
	if status, _, body := operator(t, n, admin(n), "POST", "/identities/"+name, map[string]any{"policies": []string{policy}, "tags": tags}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	return keyOf(t, n, name)
}

func keyOf(t testing.TB, n *servertest.Node, name string) aws.Credentials {
	t.Helper()
	status, _, body := operator(t, n, admin(n), "POST", "/identities/"+name+"/access-keys", struct{}{})
	var made struct {
		AccessKey       struct{ AccessKeyID string }
		SecretAccessKey string
	}
	if err := json.Unmarshal(body, &made); err != nil || status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	return aws.Credentials{AccessKeyID: made.AccessKey.AccessKeyID, SecretAccessKey: made.SecretAccessKey}
}

func iotAs(n *servertest.Node, key aws.Credentials) *iot.Client {
	return iot.New(iot.Options{
		Region: "us-east-1", BaseEndpoint: new(n.Endpoints().API), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, ""),
	})
}

// denied tells whether an SDK's error says that the caller may not.
func denied(err error) bool {
	e, ok := errors.AsType[smithy.APIError](err)
	return ok && (e.ErrorCode() == "AccessDeniedException" || e.ErrorCode() == "ForbiddenException") && strings.Contains(e.ErrorMessage(), "is not authorized to perform: ")
}

func TestManagedPolicies(t *testing.T) {
	d := servertest.Start(t)
	n, other := d.Node(0), d.Node(1)
	ctx := deadline(t)
	if _, err := n.IoT().CreateProvisioningTemplate(ctx, &iot.CreateProvisioningTemplateInput{
		TemplateName: new("fleet"), ProvisioningRoleArn: new(roleARN), Enabled: new(true),
		TemplateBody: new(`{"Parameters":{},"Resources":{"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Active"}}}}`),
	}); err != nil {
		t.Fatal(err)
	}
	who := map[string]*iot.Client{
		"operator":            iotAs(other, identity(t, n, "op", "operator", nil)),
		"read-only":           iotAs(other, identity(t, n, "ro", "read-only", nil)),
		"ci":                  iotAs(other, identity(t, n, "ci-staging", "ci", map[string]string{"prefix": "staging-"})),
		"device-manufacturer": iotAs(other, identity(t, n, "factory", "device-manufacturer", nil)),
	}
	for _, c := range []struct {
		what    string
		do      func(c *iot.Client) error
		allowed string
	}{
		{"make a thing of the prefix", func(c *iot.Client) error {
			_, err := c.CreateThing(ctx, &iot.CreateThingInput{ThingName: new("staging-1")})
			return err
		}, "operator ci"},
		{"make another thing", func(c *iot.Client) error {
			_, err := c.CreateThing(ctx, &iot.CreateThingInput{ThingName: new("prod-1")})
			return err
		}, "operator"},
		{"look at things", func(c *iot.Client) error { _, err := c.ListThings(ctx, &iot.ListThingsInput{}); return err }, "operator read-only"},
		{"make keys", func(c *iot.Client) error {
			_, err := c.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{})
			return err
		}, "operator"},
		{"make a claim", func(c *iot.Client) error {
			_, err := c.CreateProvisioningClaim(ctx, &iot.CreateProvisioningClaimInput{TemplateName: new("fleet")})
			return err
		}, "operator device-manufacturer"},
		{"move a thing to another's group", func(c *iot.Client) error {
			_, err := c.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupInput{ThingName: new("staging-1"), ThingGroupName: new("prod-all")})
			if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
				return nil
			}
			return err
		}, "operator"},
	} {
		for name, client := range who {
			err := c.do(client)
			if want := strings.Contains(c.allowed, name); want && err != nil || !want && !denied(err) {
				t.Errorf("%s: %s: %v", name, c.what, err)
			}
		}
	}
}

// What an operator may not do to become more than that.
func TestPrivilegesAreNotEscalated(t *testing.T) {
	d := servertest.Start(t)
	n, other := d.Node(0), d.Node(1)
	key := identity(t, n, "op", "operator", nil)
	for _, c := range []struct {
		method, path string
		in           any
	}{
		{"POST", "/identities/admin/access-keys", struct{}{}},
		{"POST", "/identities/op/access-keys", struct{}{}},
		{"PUT", "/identities/op/policies/admin", struct{}{}},
		{"PUT", "/identities/op/policies/mine", map[string]string{"document": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`}},
		{"POST", "/identities/eve", map[string]any{"policies": []string{"admin"}}},
		{"PATCH", "/identities/op", map[string]any{"tags": map[string]string{"a": "b"}}},
		{"PATCH", "/access-keys/" + n.AccessKey, map[string]string{"status": "Inactive"}},
		{"POST", "/access-keys/" + n.AccessKey + "/rotate", struct{}{}},
		{"DELETE", "/access-keys/" + n.AccessKey, nil},
		{"POST", "/identities/%61dmin/access-keys", struct{}{}},
	} {
		if status, code, body := operator(t, other, key, c.method, c.path, c.in); status != 403 || code != "AccessDeniedException" {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	// Nothing that it may see has a secret in it.
	for _, path := range []string{"/access-keys", "/identities", "/identities/admin"} {
		status, _, body := operator(t, n, key, "GET", path, nil)
		if status != 200 || strings.Contains(strings.ToLower(string(body)), "secret") || bytes.Contains(body, []byte(n.Secret)) || bytes.Contains(body, []byte(key.SecretAccessKey)) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	// Another's secret with one's own id, and the other way round.
	for _, mixed := range []aws.Credentials{{AccessKeyID: n.AccessKey, SecretAccessKey: key.SecretAccessKey}, {AccessKeyID: key.AccessKeyID, SecretAccessKey: n.Secret}} {
		if status, code, _ := operator(t, n, mixed, "GET", "/identities", nil); status != 403 || code != "InvalidSignatureException" {
			t.Errorf("%d %s", status, code)
		}
	}
	// A key signs until it is disabled or deleted, and then nowhere.
	if status, _, _ := operator(t, other, key, "GET", "/identities", nil); status != 200 {
		t.Errorf("status %d", status)
	}
	if status, _, body := operator(t, n, admin(n), "DELETE", "/access-keys/"+key.AccessKeyID, nil); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "the end of the key", func() bool {
		status, code, _ := operator(t, other, key, "GET", "/identities", nil)
		return status == 403 && code == "UnrecognizedClientException"
	})
}

// A WebSocket may what the identity of its key may, and follows changes.
func TestWebSocketHasThePermissionsOfItsKey(t *testing.T) {
	d := servertest.Start(t)
	n, other := d.Node(0), d.Node(1)
	arn := "arn:aws:iot:us-east-1:" + n.Account() + ":"
	read := identity(t, n, "reader", "read-only", nil)
	base := "https://" + other.Endpoints().HTTPS
	connect := func(key aws.Credentials, id string) (*device3, error) {
		return dial3(t, presigned(t, key, "iotdevicegateway", base, "", time.Now()), id, anonymous(other))
	}
	if _, err := connect(read, "console"); err == nil {
		t.Error("who may only read the API connects")
	}
	if status, _, body := operator(t, n, admin(n), "PUT", "/identities/reader/policies/console", map[string]string{"document": `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"` + arn + `client/console"},
		{"Effect":"Allow","Action":["iot:Subscribe","iot:Receive"],"Resource":["` + arn + `topicfilter/open/*","` + arn + `topic/open/*"]}]}`}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	var c *device3
	eventually(t, "the new policy", func() bool {
		var err error
		c, err = connect(read, "console")
		return err == nil
	})
	if _, err := connect(read, "other"); err == nil {
		t.Error("connects with another client id")
	}
	done(t, c.Subscribe("open/#", 1, nil), "subscribe")
	token := c.Subscribe("closed/#", 1, nil)
	if token.WaitTimeout(patience); token.Error() == nil && token.(*mqtt3.SubscribeToken).Result()["closed/#"] != 0x80 {
		t.Error("subscribes to what it may not")
	}
	// Data planes of the ALPN port and the API: a reader publishes nothing.
	data := iotdataplane.New(iotdataplane.Options{
		Region: "us-east-1", BaseEndpoint: new(n.Endpoints().API), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(read.AccessKeyID, read.SecretAccessKey, ""),
	})
	if _, err := data.Publish(deadline(t), &iotdataplane.PublishInput{Topic: new("open/a"), Payload: []byte("x")}); !denied(err) {
		t.Errorf("publishes: %v", err)
	}
	if _, err := n.Data().Publish(deadline(t), &iotdataplane.PublishInput{Topic: new("open/a"), Payload: []byte("hello"), Qos: 1}); err != nil {
		t.Fatal(err)
	}
	if m := c.next(t); string(m.Payload()) != "hello" {
		t.Errorf("got %s", m.Payload())
	}
	if status, _, body := operator(t, n, admin(n), "DELETE", "/identities/reader/policies/console", nil); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "the end of the connection", func() bool { return !c.IsConnectionOpen() })
}

// auditRecord is a record of the log of changes.
type auditRecord struct {
	Kind, RequestID, Principal, Operation, Outcome, Code string
	Resources                                            []string
	Request, Before, After, Response                     json.RawMessage
}

// changes are the records of all nodes.
func changes(t testing.TB, n *servertest.Node) (list []auditRecord, text string) {
	t.Helper()
	var nodes struct{ NodeIDs []string }
	_, _, body := operator(t, n, admin(n), "GET", "/audit", nil)
	if err := json.Unmarshal(body, &nodes); err != nil {
		t.Fatal(err)
	}
	for _, id := range nodes.NodeIDs {
		for after := int64(0); ; {
			status, _, body := operator(t, n, admin(n), "GET", "/audit/"+id+"/records?maxResults=1000&after="+strconv.FormatInt(after, 10), nil)
			var page struct {
				Records []struct{ Body string }
				Next    *int64
			}
			if err := json.Unmarshal(body, &page); err != nil || status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			for _, r := range page.Records {
				var one auditRecord
				if err := json.Unmarshal([]byte(r.Body), &one); err != nil {
					t.Fatal(err)
				}
				list, text = append(list, one), text+r.Body+"\n"
			}
			if page.Next == nil {
				break
			}
			after = *page.Next
		}
	}
	return list, text
}

func TestChangesAreRecorded(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	ctx := deadline(t)
	key := identity(t, n, "ro", "read-only", nil)
	c := n.IoT()
	made, err := c.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		func() error { _, err := c.CreateThing(ctx, &iot.CreateThingInput{ThingName: new("lamp")}); return err }(),
		func() error {
			_, err := c.UpdateThing(ctx, &iot.UpdateThingInput{ThingName: new("lamp"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"color": "red"}}})
			return err
		}(),
		func() error { _, err := c.ListThings(ctx, &iot.ListThingsInput{}); return err }(),
		func() error { _, err := c.DeleteThing(ctx, &iot.DeleteThingInput{ThingName: new("lamp")}); return err }(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := iotAs(n, key).DeleteThing(ctx, &iot.DeleteThingInput{ThingName: new("lamp")}); !denied(err) {
		t.Errorf("%v", err)
	}
	if _, err := c.DeletePolicy(ctx, &iot.DeletePolicyInput{PolicyName: new("nope")}); err == nil {
		t.Error("deleted")
	}
	lamp := "arn:aws:iot:us-east-1:" + n.Account() + ":thing/lamp"
	wants := map[string]func(r auditRecord) bool{
		"create": func(r auditRecord) bool {
			return r.Kind == "change" && r.Operation == "CreateThing" && r.Resources[0] == lamp
		},
		"update": func(r auditRecord) bool {
			return r.Operation == "UpdateThing" && bytes.Contains(r.Request, []byte("red")) && bytes.Contains(r.Before, []byte("thingName"))
		},
		"after": func(r auditRecord) bool {
			return r.Kind == "result" && r.Operation == "UpdateThing" && bytes.Contains(r.After, []byte("red"))
		},
		"delete": func(r auditRecord) bool {
			return r.Operation == "DeleteThing" && r.Outcome == "ok" && bytes.Contains(r.Before, []byte("red"))
		},
		"denied": func(r auditRecord) bool {
			return r.Kind == "denied" && r.Operation == "DeleteThing" && strings.HasSuffix(r.Principal, ":user/ro") && r.Code == "AccessDeniedException"
		},
		"failed": func(r auditRecord) bool {
			return r.Operation == "DeletePolicy" && r.Outcome == "failed" && r.Code == "ResourceNotFoundException"
		},
		"certificate": func(r auditRecord) bool {
			return r.Operation == "CreateKeysAndCertificate" && bytes.Contains(r.Response, []byte(*made.CertificateId))
		},
		"key": func(r auditRecord) bool {
			return r.Operation == "CreateAccessKey" && bytes.Contains(r.Response, []byte(key.AccessKeyID))
		},
	}
	var text string
	eventually(t, "the records", func() bool {
		var list []auditRecord
		list, text = changes(t, n)
		for name, fits := range wants {
			for _, r := range list {
				if fits(r) {
					delete(wants, name)
				}
			}
		}
		return len(wants) == 0
	})
	for what, secret := range map[string]string{"private key": "BEGIN EC PRIVATE KEY", "private key of another kind": "BEGIN PRIVATE KEY", "secret": key.SecretAccessKey, "admin's secret": n.Secret} {
		if strings.Contains(text, secret) {
			t.Errorf("the log holds a %s", what)
		}
	}
	if strings.Contains(text, "ListThings") {
		t.Error("the log holds reads")
	}
}

// TestKillKeepsRecords kills the server while things are made: each that was acknowledged is in the log, and the log
// is whole.
func TestKillKeepsRecords(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var acknowledged []string
	var wg sync.WaitGroup
	enough := make(chan struct{})
	for g := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := "t" + strconv.Itoa(g) + "-" + strconv.Itoa(i)
				if _, err := p.IoT().CreateThing(ctx, &iot.CreateThingInput{ThingName: &name}); err != nil {
					return
				}
				mu.Lock()
				if acknowledged = append(acknowledged, name); len(acknowledged) == 200 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(time.Minute):
		t.Error("too slow")
	}
	p.kill(t)
	cancel()
	wg.Wait()
	p = startProcess(t, dir)
	recorded := map[string]bool{}
	list, _ := changes(t, p.Node)
	for _, r := range list {
		if r.Operation == "CreateThing" && r.Outcome == "ok" {
			recorded[r.Resources[0]] = true
		}
	}
	for _, name := range acknowledged {
		if !recorded["arn:aws:iot:us-east-1:"+p.Account()+":thing/"+name] {
			t.Errorf("%s was acknowledged and is not in the log", name)
		}
	}
	// And what is in the log was done: the record is not there without the change.
	for arn := range recorded {
		name := arn[strings.LastIndex(arn, "/")+1:]
		if _, err := p.IoT().DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: &name}); err != nil {
			t.Errorf("%s is in the log: %v", name, err)
		}
	}
}
