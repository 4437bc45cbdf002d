package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/server/servertest"
)

const patience = 90 * time.Second

// program finds an executable that the test needs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name)
	}
	return path
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed; .ci/run installs it", what)
	}
	t.Skipf("%s is not installed", what)
}

// env is the environment in which AWS's tools find the node.
func env(n *servertest.Node) []string {
	var kept []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "AWS_") && !strings.HasPrefix(kv, "PYENV") {
			kept = append(kept, kv)
		}
	}
	return append(kept,
		"AWS_ENDPOINT_URL="+n.Endpoints().API, "AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1",
		"AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(n.Config.Data, "credentials"),
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
	)
}

func run(t *testing.T, environ []string, name string, args ...string) string {
	t.Helper()
	out, err := try(t, environ, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

func try(t *testing.T, environ []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environ
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// device writes what a device needs into a directory: ca.pem, cert.pem, key.pem.
func device(t *testing.T, n *servertest.Node, policy string, statements ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	ctx := t.Context()
	made, err := n.IoT().CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		t.Fatal(err)
	}
	document := servertest.PolicyDocument(n.Account(), statements...)
	if _, err := n.IoT().CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: &policy, PolicyDocument: &document}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: &policy, Target: made.CertificateArn}); err != nil {
		t.Fatal(err)
	}
	writeDevice(t, n, dir, *made.CertificatePem, *made.KeyPair.PrivateKey)
	return dir
}

func writeDevice(t *testing.T, n *servertest.Node, dir, certificate, key string) {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(n.Config.Data, "ca", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"ca.pem": string(root), "cert.pem": certificate, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAWSCLI drives the control and data planes with the AWS CLI.
func TestAWSCLI(t *testing.T) {
	aws := program(t, "aws")
	d := servertest.Start(t)
	n := d.Node(0)
	e := env(n)
	cli := func(args ...string) map[string]any {
		t.Helper()
		out := run(t, e, aws, append(args, "--output", "json", "--endpoint-url", n.Endpoints().API)...)
		got := map[string]any{}
		if strings.TrimSpace(out) != "" {
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%v: %s", args, out)
			}
		}
		return got
	}
	refused := func(args ...string) (string, error) {
		t.Helper()
		return try(t, e, aws, append(args, "--endpoint-url", n.Endpoints().API)...)
	}
	if who := cli("sts", "get-caller-identity"); who["Arn"] != "arn:aws:iam::123456789012:user/admin" || who["Account"] != "123456789012" || who["UserId"] == "" {
		t.Errorf("get-caller-identity: %v", who)
	}
	if out, err := refused("sts", "assume-role", "--role-arn", "arn:aws:iam::123456789012:role/r", "--role-session-name", "session"); err == nil || !strings.Contains(out, "InvalidAction") {
		t.Errorf("assume-role: %v %s", err, out)
	}
	thing := cli("iot", "create-thing", "--thing-name", "pump-1", "--attribute-payload", `{"attributes":{"site":"berlin"}}`)
	if thing["thingName"] != "pump-1" || !strings.HasPrefix(fmt.Sprint(thing["thingArn"]), "arn:aws:iot:us-east-1:123456789012:thing/") {
		t.Errorf("create-thing: %v", thing)
	}
	if got := cli("iot", "list-things", "--attribute-name", "site", "--attribute-value", "berlin"); len(got["things"].([]any)) != 1 {
		t.Errorf("list-things: %v", got)
	}
	if out, err := refused("iot", "describe-thing", "--thing-name", "nothing"); err == nil || !strings.Contains(out, "ResourceNotFoundException") {
		t.Errorf("describe-thing of nothing: %s", out)
	}
	if got := cli("iot", "describe-endpoint", "--endpoint-type", "iot:Data-ATS"); got["endpointAddress"] == "" {
		t.Errorf("describe-endpoint: %v", got)
	}
	keys := cli("iot", "create-keys-and-certificate", "--set-as-active")
	policy := servertest.PolicyDocument(n.Account(), "iot:* *")
	cli("iot", "create-policy", "--policy-name", "all", "--policy-document", policy)
	cli("iot", "attach-policy", "--policy-name", "all", "--target", fmt.Sprint(keys["certificateArn"]))
	cli("iot", "attach-thing-principal", "--thing-name", "pump-1", "--principal", fmt.Sprint(keys["certificateArn"]))
	if got := cli("iot", "list-attached-policies", "--target", fmt.Sprint(keys["certificateArn"])); len(got["policies"].([]any)) != 1 {
		t.Errorf("list-attached-policies: %v", got)
	}
	rule := `{"sql":"SELECT * FROM 'a/b'","actions":[{"republish":{"roleArn":"arn:aws:iam::123456789012:role/r","topic":"c/d"}}]}`
	cli("iot", "create-topic-rule", "--rule-name", "again", "--topic-rule-payload", rule)
	if out, err := refused("iot", "create-topic-rule", "--rule-name", "bad", "--topic-rule-payload", strings.Replace(rule, "FROM", "FORM", 1)); err == nil || !strings.Contains(out, "SqlParseException") {
		t.Errorf("a rule that does not parse: %s", out)
	}
	file := filepath.Join(t.TempDir(), "out.json")
	payload := filepath.Join(t.TempDir(), "payload.json")
	if err := os.WriteFile(payload, []byte(`{"state":{"desired":{"on":true}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cli("iot-data", "update-thing-shadow", "--thing-name", "pump-1", "--payload", "fileb://"+payload, file)
	cli("iot-data", "get-thing-shadow", "--thing-name", "pump-1", file)
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), `"desired":{"on":true}`) {
		t.Errorf("get-thing-shadow: %s %v", b, err)
	}
	cli("iot-data", "publish", "--topic", "a/b", "--qos", "1", "--payload", "fileb://"+payload)
	e = append(e, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=wrong")
	if out, err := refused("iot", "list-things"); err == nil || !strings.Contains(out, "UnrecognizedClientException") {
		t.Errorf("an unknown key: %s", out)
	}
}

// TestBoto3 runs the stories of testdata with Debian's boto3.
func TestBoto3(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		missing(t, "python3-boto3")
	}
	for _, story := range []string{"boto3_story.py", "boto3_index.py"} {
		t.Run(story, func(t *testing.T) {
			d := servertest.Start(t)
			if out := run(t, env(d.Node(0)), python, "testdata/"+story); strings.TrimSpace(out) != "ok" {
				t.Error(out)
			}
		})
	}
}

// TestMosquittoClients exchanges messages between mosquitto_pub and mosquitto_sub,
// in both protocol versions, over mutual TLS.
func TestMosquittoClients(t *testing.T) {
	pub, sub := program(t, "mosquitto_pub"), program(t, "mosquitto_sub")
	d := servertest.Start(t)
	n := d.Node(0)
	dir := device(t, n, "all", "iot:Connect client/*", "iot:Publish topic/m/*", "iot:RetainPublish topic/m/*", "iot:Subscribe topicfilter/m/*", "iot:Receive topic/m/*")
	host, port, err := net.SplitHostPort(n.Endpoints().MQTT)
	if err != nil {
		t.Fatal(err)
	}
	args := func(version, id string, more ...string) []string {
		return append([]string{
			"-h", host, "-p", port, "-V", version, "-i", id,
			"--cafile", filepath.Join(dir, "ca.pem"), "--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"),
		}, more...)
	}
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			topic := "m/" + version
			run(t, os.Environ(), pub, args(version, "pub", "-q", "1", "-r", "-t", topic, "-m", "kept "+version)...)
			out := run(t, os.Environ(), sub, args(version, "sub", "-q", "1", "-C", "1", "-W", "20", "-t", topic)...)
			if strings.TrimSpace(out) != "kept "+version {
				t.Errorf("got %q", out)
			}
			// A persistent session gets what came while it was away.
			persistent := []string{"-c", "-q", "1", "-t", "m/away/" + version}
			if version == "mqttv5" {
				persistent = append(persistent, "-x", "600")
			}
			run(t, os.Environ(), sub, args(version, "keeper", append(persistent, "-E")...)...)
			for i := range 3 {
				run(t, os.Environ(), pub, args(version, "pub", "-q", "1", "-t", "m/away/"+version, "-m", fmt.Sprint(i))...)
			}
			out = run(t, os.Environ(), sub, args(version, "keeper", append(persistent, "-C", "3", "-W", "20")...)...)
			if strings.Join(strings.Fields(out), "") != "012" {
				t.Errorf("got %q", out)
			}
			if out, err := try(t, os.Environ(), pub, args(version, "pub", "-q", "1", "-t", "other/topic", "-m", "x", "-d")...); version == "mqttv5" && err == nil && !strings.Contains(out, "RC135") && !strings.Contains(strings.ToLower(out), "not authorized") {
				t.Errorf("a publish that no policy allows: %q %v", out, err)
			}
		})
	}
}
