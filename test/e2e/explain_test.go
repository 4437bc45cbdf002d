package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"

	"flotilla/internal/server/servertest"
)

type explanation struct {
	Connected       bool
	Refusals        []refusal
	UnansweredNodes []string
}

type refusal struct{ Action, Resource, Reason, PolicyName, Principal, NodeID string }

func explain(t *testing.T, n *servertest.Node, id string) (e explanation) {
	t.Helper()
	operatorGet(t, n, "/explain/client/"+id, &e)
	return e
}

// operatorGet asks the operator's API.
func operatorGet(t *testing.T, n *servertest.Node, path string, out any) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, n.Endpoints().API+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	key := aws.Credentials{AccessKeyID: n.AccessKey, SecretAccessKey: n.Secret}
	if err := v4.NewSigner().SignHTTP(context.Background(), key, req, empty, "flotilla", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %v", path, resp.StatusCode, err)
	}
}

// TestRefusalsAreExplained looks every kind of refusal up as its operator would, on another node than the client's if
// there is one.
func TestRefusalsAreExplained(t *testing.T) {
	d := servertest.Start(t)
	n, asked := d.Node(1), d.Node(0)
	id := n.Identity(t, "narrow", "iot:Connect client/pump", "iot:Publish topic/test/ok", "iot:Subscribe topicfilter/test/ok")
	c := connect5(t, n, id, "pump")
	if _, err := c.Publish(deadline(t), &paho.Publish{Topic: "test/no", QoS: 1}); err == nil {
		t.Error("published")
	}
	if _, err := c.Subscribe(deadline(t), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "test/no"}}}); err == nil {
		t.Error("subscribed")
	}
	e := explain(t, asked, "pump")
	if len(e.Refusals) != 2 || len(e.UnansweredNodes) != 0 || !e.Connected || e.Refusals[0].NodeID == "" || e.Refusals[0].Action != "iot:Publish" || e.Refusals[0].Resource != "test/no" ||
		e.Refusals[1].Action != "iot:Subscribe" || e.Refusals[1].Principal != id.ID {
		t.Errorf("pump: %+v", e)
	}
	if _, err := dial5(t, n, id, "other"); err == nil {
		t.Error("connected")
	}
	if e := explain(t, asked, "other"); len(e.Refusals) != 1 || e.Refusals[0].Action != "iot:Connect" || e.Connected {
		t.Errorf("other: %+v", e)
	}
	if _, err := n.IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: &id.ID, NewStatus: types.CertificateStatusInactive}); err != nil {
		t.Fatal(err)
	}
	if _, err := dial5(t, n, id, "pump"); err == nil {
		t.Error("connected with an inactive certificate")
	}
	e = explain(t, asked, "pump")
	if !slices.ContainsFunc(e.Refusals, func(r refusal) bool { return strings.Contains(r.Reason, "not ACTIVE") }) {
		t.Errorf("certificate: %+v", e)
	}
}
