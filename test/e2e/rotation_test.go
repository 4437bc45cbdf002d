package e2e_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server/servertest"
)

func rotate(t *testing.T, n *servertest.Node, id string) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodPut, n.Endpoints().API+"/certificate-details/"+id+"/rotation", http.NoBody)
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
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("rotate: %s", resp.Status)
	}
}

// A device gets its next certificate over its own connection. The old one works until the new one has connected, and
// stops then if its rotation was asked for; else it stays, as on AWS.
func TestRotation(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	makeTemplate(t, n)
	old := n.Identity(t, "renews", append([]string{"iot:Connect client/pump-1"}, claimPolicy[1:]...)...)
	if _, err := n.IoT().CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("pump-1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalInput{ThingName: new("pump-1"), Principal: &old.ARN}); err != nil {
		t.Fatal(err)
	}
	status := func(id string) types.CertificateStatus {
		t.Helper()
		out, err := n.IoT().DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &id})
		if err != nil {
			t.Fatal(err)
		}
		return out.CertificateDescription.Status
	}
	renew := func(c *device5) servertest.Identity {
		t.Helper()
		made := ask(t, c, "$aws/certificates/create/json", struct{}{})
		pair, err := tls.X509KeyPair([]byte(made.CertificatePem), []byte(made.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		done := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", map[string]any{
			"certificateOwnershipToken": made.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": "1"},
		})
		if done.ThingName != "pump-1" {
			t.Fatalf("%+v", done)
		}
		return servertest.Identity{ID: made.CertificateID, TLS: pair}
	}
	c := connect5(t, n, old, "pump-1")
	second := renew(c)
	c2 := connect5(t, n, second, "pump-1")
	c2.publish(t, "test/pump-1", "hello", 1)
	if s := status(old.ID); s != types.CertificateStatusActive {
		t.Errorf("nobody asked for a rotation, but the old certificate is %s", s)
	}

	rotate(t, n, old.ID)
	c = connect5(t, n, old, "pump-1")
	third := renew(c)
	if s := status(old.ID); s != types.CertificateStatusActive {
		t.Errorf("the new certificate has not connected, but the old one is %s", s)
	}
	connect5(t, n, third, "pump-1").publish(t, "test/pump-1", "hello", 1)
	eventually(t, "the old certificate to be deactivated", func() bool { return status(old.ID) == types.CertificateStatusInactive })
	if _, err := dial5(t, n, old, "pump-1"); err == nil {
		t.Error("the old certificate connects")
	}
	if s := status(second.ID); s != types.CertificateStatusActive {
		t.Errorf("another certificate of the thing is %s", s)
	}
}
