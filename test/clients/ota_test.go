package clients_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/server/servertest"
)

// TestAWSCLIUpdate has the AWS CLI upload an image, stream it and make an OTA update of it.
func TestAWSCLIUpdate(t *testing.T) {
	aws := program(t, "aws")
	n := servertest.StartNode(t, t.TempDir())
	dir := t.TempDir()
	image := filepath.Join(dir, "pump.bin")
	if err := os.WriteFile(image, bytes.Repeat([]byte("firmware"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	cli := func(args ...string) map[string]any {
		t.Helper()
		out := run(t, env(n), aws, append(args, "--output", "json", "--endpoint-url", n.Endpoints().API)...)
		got := map[string]any{}
		if strings.HasPrefix(strings.TrimSpace(out), "{") {
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%v: %s", args, out)
			}
		}
		return got
	}
	cli("s3", "mb", "s3://firmware")
	cli("s3", "cp", image, "s3://firmware/pump.bin")
	role := "arn:aws:iam::" + n.Account() + ":role/ota"
	got := cli("iot", "create-stream", "--stream-id", "s", "--role-arn", role, "--description", "pumps",
		"--files", `[{"fileId":0,"s3Location":{"bucket":"firmware","key":"pump.bin"}}]`)
	if got["streamVersion"] != 1.0 {
		t.Errorf("create-stream: %v", got)
	}
	if got = cli("iot", "update-stream", "--stream-id", "s", "--description", "all pumps"); got["streamVersion"] != 2.0 {
		t.Errorf("update-stream: %v", got)
	}
	if info, _ := cli("iot", "describe-stream", "--stream-id", "s")["streamInfo"].(map[string]any); info["description"] != "all pumps" {
		t.Errorf("describe-stream: %v", info)
	}
	if got = cli("iot", "list-streams"); len(got["streams"].([]any)) != 1 {
		t.Errorf("list-streams: %v", got)
	}
	cli("iot", "create-thing", "--thing-name", "pump")
	files := filepath.Join(dir, "files.json")
	if err := os.WriteFile(files, []byte(`[{"fileName":"/pump.bin","fileLocation":{"stream":{"streamId":"s","fileId":0}},"codeSigning":{"customCodeSigning":{
		"signature":{"inlineDocument":"c2lnbmF0dXJl"},"certificateChain":{"certificateName":"Code Verify Key"},"hashAlgorithm":"SHA256","signatureAlgorithm":"ECDSA"}}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	got = cli("iot", "create-ota-update", "--ota-update-id", "v2", "--role-arn", role, "--protocols", "MQTT", "HTTP",
		"--targets", fmt.Sprintf("arn:aws:iot:us-east-1:%s:thing/pump", n.Account()), "--files", "file://"+files)
	if got["awsIotJobId"] != "AFR_OTA-v2" || got["otaUpdateStatus"] != "CREATE_COMPLETE" {
		t.Errorf("create-ota-update: %v", got)
	}
	document := fmt.Sprint(cli("iot", "get-job-document", "--job-id", "AFR_OTA-v2")["document"])
	for _, want := range []string{`"streamname":"s"`, `"sig-sha256-ecdsa":"c2lnbmF0dXJl"`, `"filesize":40000`, "aws:iot:s3-presigned-url:https://s3.amazonaws.com/firmware/pump.bin"} {
		if !strings.Contains(document, want) {
			t.Errorf("%s lacks %s", document, want)
		}
	}
	if got = cli("iot", "list-ota-updates"); len(got["otaUpdates"].([]any)) != 1 {
		t.Errorf("list-ota-updates: %v", got)
	}
	if out, err := try(t, env(n), aws, "iot", "delete-stream", "--stream-id", "s", "--endpoint-url", n.Endpoints().API); err == nil || !strings.Contains(out, "DeleteConflictException") {
		t.Errorf("delete-stream: %s %v", out, err)
	}
	cli("iot", "delete-ota-update", "--ota-update-id", "v2", "--force-delete-aws-job")
	cli("iot", "delete-stream", "--stream-id", "s")
}

// TestBoto3Update has boto3 do the same by objects, and a paginator over streams.
func TestBoto3Update(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		missing(t, "python3-boto3")
	}
	n := servertest.StartNode(t, t.TempDir())
	run(t, env(n), python, filepath.Join("testdata", "boto3_ota.py"))
}
