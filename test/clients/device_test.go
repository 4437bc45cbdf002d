package clients_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/server/servertest"
)

// exampleDevice runs examples/device-node as the thing pump-1, with its files and images in the directory that it gives.
func exampleDevice(t *testing.T, n *servertest.Node, signer []byte) (dir string) {
	t.Helper()
	environ := nodeModules(t)
	const own = "$aws/things/pump-1/*"
	dir = device(t, n, "pump", "iot:Connect client/pump-1",
		"iot:Publish topic/telemetry/pump-1,topic/"+own, "iot:Receive topic/"+own, "iot:Subscribe topicfilter/"+own)
	if err := os.WriteFile(filepath.Join(dir, "signer.pem"), signer, 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../../examples/device-node/device.js")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(n.Endpoints().MQTT)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(program(t, "node"), script, "--thing", "pump-1", "--port", port, "--ca", "ca.pem", "--firmware-certificate", "signer.pem")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(environ, "NODE_NO_WARNINGS=1"), &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // after the test's waits: it has nothing to lose
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return dir
}

// signed is an image with its signature, and the certificate of the key.
func signed(t *testing.T) (image, signature, certificate []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	image = bytes.Repeat([]byte("firmware"), 10_000)
	digest := sha256.Sum256(image)
	if signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		t.Fatal(err)
	}
	return image, signature, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// wait waits for a condition.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// TestExampleDevice: the example does what happened before it came and what happens while it is there; it installs what was
// signed, and nothing else.
func TestExampleDevice(t *testing.T) {
	program(t, "node")
	n := servertest.StartNode(t, t.TempDir())
	ctx := t.Context()
	if _, err := n.IoT().CreateThing(ctx, &iot.CreateThingInput{ThingName: new("pump-1")}); err != nil {
		t.Fatal(err)
	}
	desire := func(seconds string) {
		t.Helper()
		if _, err := n.Data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{
			ThingName: new("pump-1"), Payload: []byte(`{"state":{"desired":{"intervalSeconds":` + seconds + `}}}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	reports := func(seconds int) {
		t.Helper()
		wait(t, "the interval is reported", func() bool {
			out, err := n.Data().GetThingShadow(ctx, &iotdataplane.GetThingShadowInput{ThingName: new("pump-1")})
			var d struct {
				State struct{ Reported struct{ IntervalSeconds int } }
			}
			if err != nil || json.Unmarshal(out.Payload, &d) != nil {
				t.Fatal(err)
			}
			return d.State.Reported.IntervalSeconds == seconds
		})
	}
	target := []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump-1"}
	image, signature, certificate := signed(t)
	update := func(id string, image []byte) {
		t.Helper()
		bucket := filepath.Join(n.Config.Data, "objects", "firmware")
		if err := os.MkdirAll(bucket, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bucket, id+".bin"), image, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := n.IoT().CreateOTAUpdate(ctx, &iot.CreateOTAUpdateInput{
			OtaUpdateId: &id, Targets: target, Protocols: []types.Protocol{types.ProtocolHttp}, RoleArn: new("arn:aws:iam::" + n.Account() + ":role/ota"),
			Files: []types.OTAUpdateFile{{
				FileName: new("/pump.bin"), FileLocation: &types.FileLocation{S3Location: &types.S3Location{Bucket: new("firmware"), Key: new(id + ".bin")}},
				CodeSigning: &types.CodeSigning{CustomCodeSigning: &types.CustomCodeSigning{
					Signature: &types.CodeSigningSignature{InlineDocument: signature}, HashAlgorithm: new("SHA256"), SignatureAlgorithm: new("ECDSA"),
					CertificateChain: &types.CodeSigningCertificateChain{CertificateName: new("Code Verify Key")},
				}},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ends := func(jobID string) (status types.JobExecutionStatus, reason string) {
		t.Helper()
		var e *types.JobExecution
		wait(t, jobID+" ends", func() bool {
			out, err := n.IoT().DescribeJobExecution(ctx, &iot.DescribeJobExecutionInput{JobId: &jobID, ThingName: new("pump-1")})
			if err != nil {
				return false // it is not rolled out
			}
			e = out.Execution
			return e.Status != types.JobExecutionStatusQueued && e.Status != types.JobExecutionStatusInProgress
		})
		if e.StatusDetails != nil {
			reason = e.StatusDetails.DetailsMap["reason"]
		}
		return e.Status, reason
	}

	desire("2")
	forged := bytes.Clone(image)
	forged[7] ^= 1
	update("forged", forged)
	dir := exampleDevice(t, n, certificate)
	reports(2)
	if status, reason := ends("AFR_OTA-forged"); status != types.JobExecutionStatusFailed || !strings.Contains(reason, "not the one that was signed") {
		t.Errorf("a forged image: %s %s", status, reason)
	}
	installed := filepath.Join(dir, "pump.bin")
	if _, err := os.Stat(installed); err == nil {
		t.Error("a forged image was installed")
	}
	update("v2", image)
	if status, reason := ends("AFR_OTA-v2"); status != types.JobExecutionStatusSucceeded {
		t.Errorf("%s: %s", status, reason)
	}
	if got, err := os.ReadFile(installed); err != nil || !bytes.Equal(got, image) {
		t.Errorf("%d bytes were installed: %v", len(got), err)
	}
	desire("1")
	reports(1)
	if _, err := n.IoT().CreateJob(ctx, &iot.CreateJobInput{JobId: new("dance"), Targets: target, Document: new(`{"operation":"dance"}`)}); err != nil {
		t.Fatal(err)
	}
	if status, reason := ends("dance"); status != types.JobExecutionStatusRejected || reason == "" {
		t.Errorf("an unknown job: %s %s", status, reason)
	}
}
