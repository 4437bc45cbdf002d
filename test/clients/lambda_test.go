package clients_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/server/servertest"
)

// TestAWSCLILambda has the AWS CLI create, invoke, change and delete a function.
func TestAWSCLILambda(t *testing.T) {
	aws := program(t, "aws")
	program(t, "python3")
	n := servertest.Start(t).Node(0)
	dir := t.TempDir()
	cli := func(args ...string) map[string]any {
		t.Helper()
		out := run(t, env(n), aws, append(append([]string{"lambda"}, args...), "--output", "json", "--endpoint-url", n.Endpoints().API)...)
		got := map[string]any{}
		if strings.TrimSpace(out) != "" {
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%v: %s", args, out)
			}
		}
		return got
	}
	code := filepath.Join(dir, "code.zip")
	write := func(text string) {
		t.Helper()
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.Create("app.py")
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err == nil {
			err = z.Close()
		}
		if err == nil {
			err = os.WriteFile(code, b.Bytes(), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("def run(event, context):\n    print('hello')\n    return {'doubled': 2 * event['n']}\n")
	made := cli("create-function", "--function-name", "double", "--runtime", "python3.12", "--handler", "app.run",
		"--role", "arn:aws:iam::123456789012:role/functions", "--zip-file", "fileb://"+code, "--timeout", "20")
	if made["FunctionArn"] != "arn:aws:lambda:us-east-1:123456789012:function:double" {
		t.Errorf("create-function: %v", made)
	}
	cli("wait", "function-active", "--function-name", "double")
	out, payload := filepath.Join(dir, "out.json"), filepath.Join(dir, "payload.json")
	if err := os.WriteFile(payload, []byte(`{"n":21}`), 0o600); err != nil {
		t.Fatal(err)
	}
	invoke := func(want string) {
		t.Helper()
		got := cli("invoke", "--function-name", "double", "--payload", "fileb://"+payload, "--log-type", "Tail", out)
		answer, err := os.ReadFile(out)
		text, _ := got["LogResult"].(string)
		log, _ := base64.StdEncoding.DecodeString(text)
		if err != nil || string(answer) != want || got["StatusCode"] != 200.0 || got["FunctionError"] != nil || !strings.Contains(string(log), "hello\n") {
			t.Errorf("invoke: %v, %s, %s, %v", got, answer, log, err)
		}
	}
	invoke(`{"doubled": 42}`)
	write("def run(event, context):\n    print('hello')\n    return 'changed'\n")
	cli("update-function-code", "--function-name", "double", "--zip-file", "fileb://"+code, "--publish")
	cli("wait", "function-updated", "--function-name", "double")
	invoke(`"changed"`)
	cli("add-permission", "--function-name", "double", "--statement-id", "iot", "--action", "lambda:InvokeFunction", "--principal", "iot.amazonaws.com")
	if got := cli("get-policy", "--function-name", "double"); !strings.Contains(got["Policy"].(string), "iot.amazonaws.com") {
		t.Errorf("get-policy: %v", got)
	}
	if got := cli("list-functions"); len(got["Functions"].([]any)) != 1 {
		t.Errorf("list-functions: %v", got)
	}
	if got := cli("list-versions-by-function", "--function-name", "double"); len(got["Versions"].([]any)) != 2 {
		t.Errorf("list-versions-by-function: %v", got)
	}
	cli("delete-function", "--function-name", "double")
	if text, err := try(t, env(n), aws, "lambda", "get-function", "--function-name", "double", "--endpoint-url", n.Endpoints().API); err == nil || !strings.Contains(text, "ResourceNotFoundException") {
		t.Errorf("get-function: %s", text)
	}
}
