package e2e_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"flotilla/internal/server/servertest"
)

// output is what a program prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// exampleDevice runs examples/device-go as the thing pump, with its files and images in dir.
func exampleDevice(t *testing.T, n *servertest.Node, dir string) *output {
	t.Helper()
	program := filepath.Join(dir, "device")
	if out, err := exec.Command("go", "build", "-o", program, "flotilla/examples/device-go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id := n.Identity(t, "pump", "iot:Connect client/pump",
		"iot:Publish topic/telemetry/pump,topic/$aws/things/pump/*", "iot:Receive topic/$aws/things/pump/*", "iot:Subscribe topicfilter/$aws/things/pump/*")
	key, err := x509.MarshalPKCS8PrivateKey(id.TLS.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(n.Config.Data, "ca", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"root.pem": root,
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.TLS.Certificate[0]}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := &output{}
	cmd := exec.Command(program, "-thing", "pump", "-endpoint", n.Endpoints().MQTT, "-firmware-certificate", "signer.pem")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the device ended: %v", err)
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return out
}

// ends waits until a job is over, and gives what its one thing made of it.
func ends(t *testing.T, n *servertest.Node, jobID string) (status types.JobExecutionStatus, reason string) {
	t.Helper()
	eventually(t, jobID+" ends", func() bool {
		out, err := n.IoT().DescribeJob(t.Context(), &iot.DescribeJobInput{JobId: &jobID})
		if err != nil {
			t.Fatal(err)
		}
		return out.Job.Status == types.JobStatusCompleted
	})
	out, err := n.IoT().DescribeJobExecution(t.Context(), &iot.DescribeJobExecutionInput{JobId: &jobID, ThingName: new("pump")})
	if err != nil {
		t.Fatal(err)
	}
	if out.Execution.StatusDetails != nil {
		reason = out.Execution.StatusDetails.DetailsMap["reason"]
	}
	return out.Execution.Status, reason
}

// TestExampleDevice: the example does what happened before it came and what happens while it is there; it installs what was
// signed, and nothing else.
func TestExampleDevice(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	pump(t, n)
	ctx := t.Context()
	desire := func(state string) {
		t.Helper()
		if _, err := n.Data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{ThingName: new("pump"), Payload: []byte(`{"state":{"desired":` + state + `}}`)}); err != nil {
			t.Fatal(err)
		}
	}
	reports := func(seconds float64) {
		t.Helper()
		eventually(t, "the interval is reported", func() bool {
			out, err := n.Data().GetThingShadow(ctx, &iotdataplane.GetThingShadowInput{ThingName: new("pump")})
			var d document
			if err != nil || json.Unmarshal(out.Payload, &d) != nil {
				t.Fatal(err)
			}
			return d.State.Reported["intervalSeconds"] == seconds && d.State.Delta["intervalSeconds"] == nil
		})
	}
	f, dir := newFirmware(t, 200_000), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "signer.pem"), f.certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	listener := connect5(t, n, n.Identity(t, "listener", "iot:Connect client/listener", "iot:Receive topic/telemetry/*", "iot:Subscribe topicfilter/telemetry/*"), "listener")
	listener.subscribe(t, 1, "telemetry/pump")

	desire(`{"intervalSeconds":2,"colour":"red"}`)
	f.upload(t, n)
	if err := f.update(t, n, "v2", types.ProtocolHttp); err != nil {
		t.Fatal(err)
	}
	exampleDevice(t, n, dir)
	reports(2)
	if status, reason := ends(t, n, "AFR_OTA-v2"); status != types.JobExecutionStatusSucceeded {
		t.Fatalf("%s: %s", status, reason)
	}
	installed := filepath.Join(dir, "pump.bin")
	if image, err := os.ReadFile(installed); err != nil || !bytes.Equal(image, f.image) {
		t.Fatalf("%d bytes were installed: %v", len(image), err)
	}
	desire(`{"intervalSeconds":1}`)
	reports(1)
	if m := listener.next(t); !strings.Contains(string(m.Payload), "temperature") {
		t.Errorf("telemetry: %s", m.Payload)
	}

	if _, err := n.IoT().CreateJob(ctx, &iot.CreateJobInput{
		JobId: new("dance"), Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump"}, Document: new(`{"operation":"dance"}`),
	}); err != nil {
		t.Fatal(err)
	}
	if status, reason := ends(t, n, "dance"); status != types.JobExecutionStatusRejected || reason == "" {
		t.Errorf("an unknown job: %s %s", status, reason)
	}
	forgedUpdate(t, n, f, "v3")
	if status, reason := ends(t, n, "AFR_OTA-v3"); status != types.JobExecutionStatusFailed || !strings.Contains(reason, "not the one that was signed") {
		t.Errorf("a forged image: %s %s", status, reason)
	}
	if image, err := os.ReadFile(installed); err != nil || !bytes.Equal(image, f.image) {
		t.Errorf("%d bytes are installed after the forged image: %v", len(image), err)
	}
}

// forgedUpdate makes an update whose signature is of another image; the server has no certificate to find that out with.
func forgedUpdate(t *testing.T, n *servertest.Node, f *firmware, id string) {
	t.Helper()
	ctx := t.Context()
	image := bytes.Clone(f.image)
	image[7] ^= 1
	signed := *f
	signed.image = append(image, 0)
	if _, err := s3Client(n, n.AccessKey, n.Secret).PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: new("forged.bin"), Body: bytes.NewReader(image)}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateOTAUpdate(ctx, &iot.CreateOTAUpdateInput{
		OtaUpdateId: &id, Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump"}, Protocols: []types.Protocol{types.ProtocolHttp},
		RoleArn: new("arn:aws:iam::" + n.Account() + ":role/ota"),
		Files: []types.OTAUpdateFile{{
			FileName: new("/pump.bin"), FileLocation: &types.FileLocation{S3Location: &types.S3Location{Bucket: new("firmware"), Key: new("forged.bin")}},
			CodeSigning: &types.CodeSigning{CustomCodeSigning: &types.CustomCodeSigning{
				Signature:     &types.CodeSigningSignature{InlineDocument: signed.sign(t)},
				HashAlgorithm: new("SHA256"), SignatureAlgorithm: new("ECDSA"),
				CertificateChain: &types.CodeSigningCertificateChain{CertificateName: new("Code Verify Key")},
			}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
}
