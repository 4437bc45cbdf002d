package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/fxamacker/cbor/v2"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

// otaDocument is what FreeRTOS's OTA agent reads of a job document.
type otaDocument struct {
	OTA struct {
		Protocols  []string `json:"protocols"`
		StreamName string   `json:"streamname"`
		Files      []struct {
			Path      string `json:"filepath"`
			Size      int    `json:"filesize"`
			ID        int    `json:"fileid"`
			Type      int    `json:"fileType"`
			CertFile  string `json:"certfile"`
			Signature string `json:"sig-sha256-ecdsa"`
			URL       string `json:"update_data_url"`
			Scheme    string `json:"auth_scheme"`
		} `json:"files"`
	} `json:"afr_ota"`
}

// firmware is an image with the certificate of the key that signs it.
type firmware struct {
	image       []byte
	key         *ecdsa.PrivateKey
	certificate []byte // PEM
}

func newFirmware(t *testing.T, size int) *firmware {
	t.Helper()
	f := &firmware{image: make([]byte, size)}
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for i := range f.image {
		f.image[i] = byte(r.Uint32())
	}
	var err error
	if f.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &f.key.PublicKey, f.key)
	if err != nil {
		t.Fatal(err)
	}
	f.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return f
}

func (f *firmware) sign(t *testing.T) []byte {
	t.Helper()
	digest := sha256.Sum256(f.image)
	signature, err := ecdsa.SignASN1(rand.Reader, f.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// genuine is the device's own verification.
func (f *firmware) genuine(t *testing.T, image []byte, signature string) bool {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(image)
	return ecdsa.VerifyASN1(&f.key.PublicKey, digest[:], raw)
}

// upload stores the image at a node.
func (f *firmware) upload(t *testing.T, n *servertest.Node) {
	t.Helper()
	ctx := t.Context()
	c := s3Client(n, n.AccessKey, n.Secret)
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new("firmware")}); err != nil && s3Code(err) != "BucketAlreadyOwnedByYou" {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: new("pump v2.bin"), Body: bytes.NewReader(f.image)}); err != nil {
		t.Fatal(err)
	}
}

// update creates an OTA update of the image for the thing pump.
func (f *firmware) update(t *testing.T, n *servertest.Node, id string, protocols ...types.Protocol) error {
	t.Helper()
	_, err := n.IoT().CreateOTAUpdate(t.Context(), &iot.CreateOTAUpdateInput{
		OtaUpdateId: &id, Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump"}, Protocols: protocols,
		RoleArn: new("arn:aws:iam::" + n.Account() + ":role/ota"), Tags: []types.Tag{{Key: new("release"), Value: new("2")}},
		Files: []types.OTAUpdateFile{{
			FileName: new("/pump.bin"), FileLocation: &types.FileLocation{S3Location: &types.S3Location{Bucket: new("firmware"), Key: new("pump v2.bin")}},
			CodeSigning: &types.CodeSigning{CustomCodeSigning: &types.CustomCodeSigning{
				Signature:        &types.CodeSigningSignature{InlineDocument: f.sign(t)},
				CertificateChain: &types.CodeSigningCertificateChain{CertificateName: new("Code Verify Key"), InlineDocument: new(string(f.certificate))},
				HashAlgorithm:    new("SHA256"), SignatureAlgorithm: new("ECDSA"),
			}},
		}},
	})
	return err
}

// otaDevice connects the thing pump as one that may update itself.
func otaDevice(t *testing.T, n *servertest.Node, more ...string) *device5 {
	t.Helper()
	id := n.Identity(t, "pump", append([]string{
		"iot:Connect client/pump", "iot:Publish topic/$aws/things/pump/jobs/*", "iot:Receive topic/$aws/things/pump/*", "iot:Subscribe topicfilter/$aws/things/pump/*",
	}, more...)...)
	dev := connect5(t, n, id, "pump")
	dev.subscribe(t, 1, "$aws/things/pump/jobs/$next/get/accepted", "$aws/things/pump/jobs/+/update/+", "$aws/things/pump/streams/+/data/+", "$aws/things/pump/streams/+/rejected/+")
	return dev
}

// nextUpdate asks for the job until there is one: the rollout may not have reached the thing.
func (d *device5) nextUpdate(t *testing.T) (jobID string, doc otaDocument) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		d.publish(t, "$aws/things/pump/jobs/$next/get", `{}`, 1)
		var m struct {
			Execution struct {
				JobID       string      `json:"jobId"`
				JobDocument otaDocument `json:"jobDocument"`
			} `json:"execution"`
		}
		if err := json.Unmarshal(d.next(t).Payload, &m); err != nil {
			t.Fatal(err)
		}
		if m.Execution.JobID != "" {
			return m.Execution.JobID, m.Execution.JobDocument
		}
		if time.Now().After(deadline) {
			t.Fatal("no job came")
		}
	}
}

// report ends the job as the device sees it, and waits for the fleet's view of it.
func (d *device5) report(t *testing.T, n *servertest.Node, jobID, status string) {
	t.Helper()
	d.publish(t, "$aws/things/pump/jobs/"+jobID+"/update", fmt.Sprintf(`{"status":%q}`, status), 1)
	if p := d.next(t); !strings.HasSuffix(p.Topic, "/update/accepted") {
		t.Fatalf("%s: %s", p.Topic, p.Payload)
	}
	eventually(t, jobID+" ends", func() bool {
		out, err := n.IoT().DescribeJob(t.Context(), &iot.DescribeJobInput{JobId: &jobID})
		if err != nil {
			t.Fatal(err)
		}
		return out.Job.Status == types.JobStatusCompleted
	})
}

// fetch gets a URL as a device does, which has no certificate for it.
func fetch(t *testing.T, n *servertest.Node, url string) []byte {
	t.Helper()
	config := n.ClientTLS(servertest.Identity{})
	config.Certificates = nil
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	defer web.CloseIdleConnections()
	resp, err := web.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", url, resp.StatusCode, body, err)
	}
	return body
}

// A device reads an image in blocks over MQTT, in CBOR by bitmaps as FreeRTOS's OTA agent does, verifies its signature and
// reports; what it may not read it does not get.
func TestUpdateOverMQTT(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	pump(t, n)
	f := newFirmware(t, 300_001)
	f.upload(t, n)
	if err := f.update(t, n, "v2", types.ProtocolMqtt); err != nil {
		t.Fatal(err)
	}
	dev := otaDevice(t, n, "iot:Publish topic/$aws/things/pump/streams/*")
	jobID, doc := dev.nextUpdate(t)
	if jobID != "AFR_OTA-v2" || len(doc.OTA.Files) != 1 || doc.OTA.StreamName == "" || doc.OTA.Files[0].URL != "" {
		t.Fatalf("%s %+v", jobID, doc)
	}
	file := doc.OTA.Files[0]
	if file.Path != "/pump.bin" || file.Size != len(f.image) || file.CertFile != "Code Verify Key" {
		t.Fatalf("%+v", file)
	}
	const block = 4096
	image, blocks := make([]byte, file.Size), (file.Size+block-1)/block
	missing := make([]byte, (blocks+7)/8)
	for i := range blocks {
		missing[i/8] |= 1 << (i % 8)
	}
	for left := blocks; left > 0; {
		const some = 20
		request, err := cbor.Marshal(map[string]any{"c": "rdy", "f": file.ID, "l": block, "o": 0, "b": missing, "n": some})
		if err != nil {
			t.Fatal(err)
		}
		dev.publish(t, "$aws/things/pump/streams/"+doc.OTA.StreamName+"/get/cbor", string(request), 1)
		for range min(some, left) {
			p := dev.next(t)
			var m struct {
				C       string
				F, L, I int
				P       []byte
			}
			if err := cbor.Unmarshal(p.Payload, &m); err != nil || !strings.HasSuffix(p.Topic, "/data/cbor") || m.C != "rdy" || m.L != len(m.P) || m.F != file.ID {
				t.Fatalf("%s: %+v %v", p.Topic, m, err)
			}
			if missing[m.I/8]>>(m.I%8)&1 == 0 {
				t.Fatalf("block %d came without need", m.I)
			}
			missing[m.I/8] &^= 1 << (m.I % 8)
			copy(image[m.I*block:], m.P)
			left--
		}
	}
	if !bytes.Equal(image, f.image) || !f.genuine(t, image, file.Signature) {
		t.Fatal("the image is not what was signed")
	}
	image[1000] ^= 1
	if f.genuine(t, image, file.Signature) {
		t.Fatal("the verification takes anything")
	}

	// The same block in JSON, and refusals.
	dev.publish(t, "$aws/things/pump/streams/"+doc.OTA.StreamName+"/get/json", `{"s":1,"f":0,"l":256,"o":3,"n":1}`, 1)
	var m struct {
		I int
		P []byte
		O string
	}
	if p := dev.next(t); json.Unmarshal(p.Payload, &m) != nil || m.I != 3 || !bytes.Equal(m.P, f.image[768:1024]) {
		t.Errorf("%s: %s", p.Topic, p.Payload)
	}
	dev.publish(t, "$aws/things/pump/streams/"+doc.OTA.StreamName+"/get/json", `{"f":0,"l":1}`, 1)
	if p := dev.next(t); json.Unmarshal(p.Payload, &m) != nil || m.O != "BlockSizeOutOfBounds" {
		t.Errorf("%s: %s", p.Topic, p.Payload)
	}
	if _, err := dev.Publish(deadline(t), publish5("$aws/things/other/streams/"+doc.OTA.StreamName+"/get/json")); err == nil {
		t.Error("a thing asked in the name of another")
	}
	dev.report(t, n, jobID, "SUCCEEDED")

	out, err := n.IoT().GetOTAUpdate(t.Context(), &iot.GetOTAUpdateInput{OtaUpdateId: new("v2")})
	if err != nil || out.OtaUpdateInfo.OtaUpdateStatus != types.OTAUpdateStatusCreateComplete {
		t.Errorf("%+v %v", out, err)
	}
	tags, err := n.IoT().ListTagsForResource(t.Context(), &iot.ListTagsForResourceInput{ResourceArn: out.OtaUpdateInfo.OtaUpdateArn})
	if err != nil || len(tags.Tags) != 1 {
		t.Errorf("%+v %v", tags, err)
	}
	if _, err := n.IoT().DeleteOTAUpdate(t.Context(), &iot.DeleteOTAUpdateInput{OtaUpdateId: new("v2"), DeleteStream: true}); err != nil {
		t.Error(err)
	}
	if out, err := n.IoT().ListStreams(t.Context(), &iot.ListStreamsInput{}); err != nil || len(out.Streams) != 0 {
		t.Errorf("%+v %v", out, err)
	}
}

// A device gets an image by the presigned URL of its job, verifies its signature and reports. An image that was changed
// after it was signed makes no update; one that was changed later is found out by the device.
func TestUpdateOverHTTP(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	pump(t, n)
	f := newFirmware(t, 200_000)
	f.upload(t, n)
	if err := f.update(t, n, "v2", types.ProtocolHttp); err != nil {
		t.Fatal(err)
	}
	dev := otaDevice(t, n)
	jobID, doc := dev.nextUpdate(t)
	file := doc.OTA.Files[0]
	if doc.OTA.StreamName != "" || file.Scheme != "aws.s3.presigned" || file.Size != len(f.image) {
		t.Fatalf("%+v", doc)
	}
	if image := fetch(t, n, file.URL); !bytes.Equal(image, f.image) || !f.genuine(t, image, file.Signature) {
		t.Fatal("the image is not what was signed")
	}
	dev.report(t, n, jobID, "SUCCEEDED")

	wrong := *f
	wrong.key, wrong.certificate = newFirmware(t, 1).key, f.certificate
	if err := wrong.update(t, n, "v3", types.ProtocolHttp); err == nil {
		t.Error("an update with a signature by another key was made")
	}
	if err := f.update(t, n, "v4", types.ProtocolHttp); err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(f.image)
	other[7] ^= 1
	if _, err := s3Client(n, n.AccessKey, n.Secret).PutObject(t.Context(), &s3.PutObjectInput{Bucket: new("firmware"), Key: new("pump v2.bin"), Body: bytes.NewReader(other)}); err != nil {
		t.Fatal(err)
	}
	jobID, doc = dev.nextUpdate(t)
	if image := fetch(t, n, doc.OTA.Files[0].URL); jobID != "AFR_OTA-v4" || f.genuine(t, image, doc.OTA.Files[0].Signature) {
		t.Fatal("a changed image passed")
	}
	dev.report(t, n, jobID, "FAILED")
}

// The image is at another service that speaks S3, here another deployment: blocks and URLs come from there.
func TestUpdateFromAnObjectService(t *testing.T) {
	service := servertest.StartNode(t, t.TempDir())
	n := servertest.StartNode(t, t.TempDir(), func(c *server.Config) {
		c.S3.URL, c.S3.AccessKey, c.S3.SecretKey = service.Endpoints().API, service.AccessKey, service.Secret
	})
	pump(t, n)
	f := newFirmware(t, 150_000)
	f.upload(t, service)
	if err := f.update(t, n, "v2", types.ProtocolMqtt, types.ProtocolHttp); err != nil {
		t.Fatal(err)
	}
	dev := otaDevice(t, n, "iot:Publish topic/$aws/things/pump/streams/*")
	jobID, doc := dev.nextUpdate(t)
	file := doc.OTA.Files[0]
	var image []byte
	for n := 0; len(image) < file.Size; {
		dev.publish(t, "$aws/things/pump/streams/"+doc.OTA.StreamName+"/get/json", fmt.Sprintf(`{"f":0,"l":60000,"o":%d,"n":2}`, n), 1)
		for want := min(2, 3-n); want > 0; want-- {
			var m struct {
				I int
				P []byte
			}
			if p := dev.next(t); json.Unmarshal(p.Payload, &m) != nil || m.I != n {
				t.Fatalf("%s, not block %d: %.200s", p.Topic, n, p.Payload)
			}
			image = append(image, m.P...)
			n++
		}
	}
	if !bytes.Equal(image, f.image) || !f.genuine(t, image, file.Signature) {
		t.Error("the image is not what was signed")
	}
	if !strings.HasPrefix(file.URL, service.Endpoints().API) || !bytes.Equal(fetch(t, n, file.URL), f.image) {
		t.Errorf("%s has another image", file.URL)
	}

	// Replaced in the middle of it all.
	f.upload(t, service)
	dev.publish(t, "$aws/things/pump/streams/"+doc.OTA.StreamName+"/get/json", `{"f":0,"l":60000}`, 1)
	if p := dev.next(t); !strings.Contains(string(p.Payload), "ETagMismatch") {
		t.Errorf("%s: %.200s", p.Topic, p.Payload)
	}
	dev.report(t, n, jobID, "SUCCEEDED")
}
