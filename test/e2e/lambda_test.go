package e2e_test

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	iottypes "github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

const functionRole = "arn:aws:iam::123456789012:role/functions"

func functionARN(name string) string { return "arn:aws:lambda:us-east-1:123456789012:function:" + name }

func lambdaClient(n *servertest.Node) *lambda.Client {
	return lambda.New(lambda.Options{
		Region: "us-east-1", BaseEndpoint: new(n.Endpoints().API), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(n.AccessKey, n.Secret, ""),
	})
}

// bootstrap is the program test/lambda: a custom runtime with AWS's own library.
var bootstrap = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "bootstrap")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "bootstrap"), "flotilla/test/lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(filepath.Join(dir, "bootstrap"))
})

func zipped(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(0o755)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func goZip(t testing.TB) []byte {
	t.Helper()
	b, err := bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	return zipped(t, map[string]string{"bootstrap": string(b)})
}

func makeFunction(t testing.TB, n *servertest.Node, name string, runtime types.Runtime, handler string, code []byte, change ...func(*lambda.CreateFunctionInput)) {
	t.Helper()
	in := &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: runtime, Handler: &handler, Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code},
		Timeout: new(int32(20)), MemorySize: new(int32(512)),
	}
	for _, c := range change {
		c(in)
	}
	if _, err := lambdaClient(n).CreateFunction(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

func permit(t testing.TB, n *servertest.Node, name, source string) {
	t.Helper()
	if _, err := lambdaClient(n).AddPermission(t.Context(), &lambda.AddPermissionInput{
		FunctionName: &name, StatementId: new("iot"), Action: new("lambda:InvokeFunction"), Principal: new("iot.amazonaws.com"), SourceArn: &source,
	}); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// TestLambdaAPI is the life of a function, as the AWS SDK, the AWS CLI and Terraform's aws_lambda_function go through it.
func TestLambdaAPI(t *testing.T) {
	d := servertest.Start(t)
	n, other := d.Node(0), d.Node(1)
	c, ctx := lambdaClient(n), t.Context()
	code := goZip(t)
	sum := sha256.Sum256(code)
	made, err := c.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: new("hook"), Runtime: types.RuntimeProvidedal2023, Handler: new("bootstrap"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code},
		Environment: &types.Environment{Variables: map[string]string{"COLOR": "blue"}}, Description: new("a hook"), Tags: map[string]string{"team": "a"},
		Timeout: new(int32(20)), MemorySize: new(int32(256)), PackageType: types.PackageTypeZip, TracingConfig: &types.TracingConfig{Mode: types.TracingModePassThrough},
	})
	if err != nil {
		t.Fatal(err)
	}
	if *made.FunctionArn != functionARN("hook") || *made.Version != "$LATEST" || *made.CodeSha256 != base64.StdEncoding.EncodeToString(sum[:]) ||
		made.CodeSize != int64(len(code)) || made.Environment.Variables["COLOR"] != "blue" || *made.MemorySize != 256 || made.Runtime != types.RuntimeProvidedal2023 {
		t.Errorf("%+v", made)
	}
	if err := lambda.NewFunctionActiveV2Waiter(c).Wait(ctx, &lambda.GetFunctionInput{FunctionName: new("hook")}, 10*time.Second); err != nil {
		t.Error(err)
	}
	got, err := c.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: new(functionARN("hook"))})
	if err != nil || got.Tags["team"] != "a" || *got.Configuration.Description != "a hook" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = c.CreateFunction(ctx, &lambda.CreateFunctionInput{FunctionName: new("hook"), Runtime: types.RuntimeProvidedal2023, Handler: new("b"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code}})
	wantCode(t, err, "ResourceConflictException")

	// Every node runs it.
	for _, node := range []*servertest.Node{n, other} {
		res, err := lambdaClient(node).Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), Payload: []byte(`{"do":"context"}`), LogType: types.LogTypeTail})
		if err != nil {
			t.Fatal(err)
		}
		log, _ := base64.StdEncoding.DecodeString(*res.LogResult)
		if res.StatusCode != 200 || res.FunctionError != nil || *res.ExecutedVersion != "$LATEST" || !strings.Contains(string(res.Payload), `"name":"hook"`) || !strings.Contains(string(log), "REPORT RequestId: ") {
			t.Errorf("%d %v %s %s", res.StatusCode, res.FunctionError, res.Payload, log)
		}
	}
	res, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), Payload: []byte(`{"do":"fail"}`)})
	if err != nil || *res.FunctionError != "Unhandled" || res.StatusCode != 200 || !strings.Contains(string(res.Payload), "asked to fail") {
		t.Errorf("%+v, %v", res, err)
	}
	if res, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), InvocationType: types.InvocationTypeDryRun}); err != nil || res.StatusCode != 204 {
		t.Errorf("%+v, %v", res, err)
	}
	_, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), Payload: []byte(`{`)})
	wantCode(t, err, "InvalidRequestContentException")
	_, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), Payload: bytes.Repeat([]byte("1"), 6<<20+1)})
	wantCode(t, err, "RequestTooLargeException")
	_, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), InvocationType: types.InvocationTypeEvent, Payload: bytes.Repeat([]byte("1"), 1<<20+1)})
	wantCode(t, err, "RequestTooLargeException")
	_, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("none")})
	wantCode(t, err, "ResourceNotFoundException")

	// Versions do not change with what comes after.
	one, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: new("hook"), Description: new("the first")})
	if err != nil || *one.Version != "1" || *one.FunctionArn != functionARN("hook:1") {
		t.Fatalf("%+v, %v", one, err)
	}
	if again, err := c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: new("hook"), Description: new("the first")}); err != nil || *again.Version != "1" {
		t.Errorf("%+v, %v", again, err)
	}
	changed, err := c.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: new("hook"), Environment: &types.Environment{Variables: map[string]string{"COLOR": "red"}}})
	if err != nil || changed.LastUpdateStatus != types.LastUpdateStatusSuccessful || *changed.MemorySize != 256 {
		t.Fatalf("%+v, %v", changed, err)
	}
	_, err = c.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: new("hook"), RevisionId: one.RevisionId, Timeout: new(int32(9))})
	wantCode(t, err, "PreconditionFailedException")
	for qualifier, color := range map[string]string{"1": "blue", "$LATEST": "red"} {
		eventually(t, qualifier+" to be "+color, func() bool {
			res, err := lambdaClient(other).Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook"), Qualifier: &qualifier, Payload: []byte(`{"do":"environment"}`)})
			return err == nil && strings.Contains(string(res.Payload), "COLOR="+color)
		})
	}
	if list, err := c.ListVersionsByFunction(ctx, &lambda.ListVersionsByFunctionInput{FunctionName: new("hook")}); err != nil || len(list.Versions) != 2 || *list.Versions[1].Description != "the first" {
		t.Errorf("%+v, %v", list, err)
	}
	script := zipped(t, map[string]string{"bootstrap": "#!/bin/sh\nexit 3\n"})
	if updated, err := c.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: new("hook"), ZipFile: script, Publish: true}); err != nil || *updated.Version != "2" {
		t.Errorf("%+v, %v", updated, err)
	}
	res, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook")})
	if err != nil || !strings.Contains(string(res.Payload), "exit status 3") {
		t.Errorf("%s, %v", res.Payload, err)
	}
	res, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook:1"), Payload: []byte(`{"do":"echo"}`)})
	if err != nil || string(res.Payload) != `{"do":"echo"}` {
		t.Errorf("%+v, %v", res, err)
	}

	// What Terraform asks besides.
	if out, err := c.GetFunctionCodeSigningConfig(ctx, &lambda.GetFunctionCodeSigningConfigInput{FunctionName: new("hook")}); err != nil || *out.FunctionName != "hook" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := c.TagResource(ctx, &lambda.TagResourceInput{Resource: new(functionARN("hook")), Tags: map[string]string{"b": "c"}}); err != nil {
		t.Error(err)
	}
	if _, err := c.UntagResource(ctx, &lambda.UntagResourceInput{Resource: new(functionARN("hook")), TagKeys: []string{"team", "none"}}); err != nil {
		t.Error(err)
	}
	if out, err := c.ListTags(ctx, &lambda.ListTagsInput{Resource: new(functionARN("hook"))}); err != nil || fmt.Sprint(out.Tags) != "map[b:c]" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := c.PutFunctionConcurrency(ctx, &lambda.PutFunctionConcurrencyInput{FunctionName: new("hook"), ReservedConcurrentExecutions: new(int32(0))}); err != nil {
		t.Error(err)
	}
	_, err = c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("hook")})
	wantCode(t, err, "TooManyRequestsException")
	if _, err := c.DeleteFunctionConcurrency(ctx, &lambda.DeleteFunctionConcurrencyInput{FunctionName: new("hook")}); err != nil {
		t.Error(err)
	}
	if out, err := c.GetAccountSettings(ctx, &lambda.GetAccountSettingsInput{}); err != nil || out.AccountUsage.FunctionCount != 1 || out.AccountUsage.TotalCodeSize != int64(len(code)+len(script)) {
		t.Errorf("%+v, %v", out, err)
	}

	// Permissions.
	permit(t, n, "hook", "arn:aws:iot:us-east-1:123456789012:rule/*")
	_, err = c.AddPermission(ctx, &lambda.AddPermissionInput{FunctionName: new("hook"), StatementId: new("iot"), Action: new("lambda:InvokeFunction"), Principal: new("iot.amazonaws.com")})
	wantCode(t, err, "ResourceConflictException")
	policy, err := c.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: new("hook")})
	want := `{"Version":"2012-10-17","Id":"default","Statement":[{"Sid":"iot","Effect":"Allow","Principal":{"Service":"iot.amazonaws.com"},"Action":"lambda:InvokeFunction","Resource":"` +
		functionARN("hook") + `","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:iot:us-east-1:123456789012:rule/*"}}}]}`
	if err != nil || *policy.Policy != want {
		t.Errorf("%s, %v", *policy.Policy, err)
	}
	if _, err := c.RemovePermission(ctx, &lambda.RemovePermissionInput{FunctionName: new("hook"), StatementId: new("iot")}); err != nil {
		t.Error(err)
	}
	_, err = c.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: new("hook")})
	wantCode(t, err, "ResourceNotFoundException")

	if _, err := c.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: new("hook"), Qualifier: new("1")}); err != nil {
		t.Error(err)
	}
	if list, err := c.ListFunctions(ctx, &lambda.ListFunctionsInput{FunctionVersion: types.FunctionVersionAll}); err != nil || len(list.Functions) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := c.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: new("hook")}); err != nil {
		t.Error(err)
	}
	_, err = c.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: new("hook")})
	wantCode(t, err, "ResourceNotFoundException")
}

// TestLambdaRefuses: what is not implemented, and what is wrong, is refused by its name.
func TestLambdaRefuses(t *testing.T) {
	n := servertest.Start(t).Node(0)
	c, code := lambdaClient(n), zipped(t, map[string]string{"bootstrap": "#!/bin/sh\n"})
	for want, change := range map[string]func(*lambda.CreateFunctionInput){
		"PackageType Image": func(in *lambda.CreateFunctionInput) { in.PackageType = types.PackageTypeImage },
		"Layers": func(in *lambda.CreateFunctionInput) {
			in.Layers = []string{"arn:aws:lambda:us-east-1:123456789012:layer:a:1"}
		},
		"VpcConfig": func(in *lambda.CreateFunctionInput) { in.VpcConfig = &types.VpcConfig{SubnetIds: []string{"subnet-1"}} },
		"DeadLetterConfig": func(in *lambda.CreateFunctionInput) {
			in.DeadLetterConfig = &types.DeadLetterConfig{TargetArn: new("arn:aws:sqs:us-east-1:123456789012:q")}
		},
		"Code.S3Bucket": func(in *lambda.CreateFunctionInput) {
			in.Code = &types.FunctionCode{S3Bucket: new("bucket"), S3Key: new("k")}
		},
		"runtime java21": func(in *lambda.CreateFunctionInput) { in.Runtime = types.RuntimeJava21 },
		"Reserved keys used in this request: AWS_REGION": func(in *lambda.CreateFunctionInput) {
			in.Environment = &types.Environment{Variables: map[string]string{"AWS_REGION": "x", "ANY": "b"}}
		},
		"4KB limit": func(in *lambda.CreateFunctionInput) {
			in.Environment = &types.Environment{Variables: map[string]string{"ANY": strings.Repeat("b", 4096)}}
		},
		"Could not unzip": func(in *lambda.CreateFunctionInput) { in.Code.ZipFile = []byte("no zip") },
		"mandatory":       func(in *lambda.CreateFunctionInput) { in.Handler = nil },
	} {
		in := &lambda.CreateFunctionInput{FunctionName: new("f"), Runtime: types.RuntimeProvidedal2023, Handler: new("x"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code}}
		change(in)
		_, err := c.CreateFunction(t.Context(), in)
		wantCode(t, err, "InvalidParameterValueException")
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err := c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: new("f"), Runtime: types.RuntimeProvidedal2023, Handler: new("x"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code},
		Environment: &types.Environment{Variables: map[string]string{"NOT-A-NAME": "hush"}},
	})
	wantCode(t, err, "ValidationException")
	if err != nil && strings.Contains(err.Error(), "hush") {
		t.Errorf("a variable's value is repeated: %v", err)
	}
	_, err = c.CreateAlias(t.Context(), &lambda.CreateAliasInput{FunctionName: new("f"), Name: new("live"), FunctionVersion: new("1")})
	wantCode(t, err, "NotImplementedException")
	_, err = c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{FunctionName: new("a b"), Runtime: types.RuntimeProvidedal2023, Handler: new("x"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code}})
	wantCode(t, err, "ValidationException")
	huge := make([]byte, 52<<20)
	_, _ = rand.Read(huge)
	_, err = c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{FunctionName: new("f"), Runtime: types.RuntimeProvidedal2023, Handler: new("x"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: huge}})
	wantCode(t, err, "RequestTooLargeException")

	off := servertest.Start(t, func(c *server.Config) { c.Function.Local = "off" }).Node(0)
	_, err = lambdaClient(off).CreateFunction(t.Context(), &lambda.CreateFunctionInput{FunctionName: new("f"), Runtime: types.RuntimeProvidedal2023, Handler: new("x"), Role: new(functionRole), Code: &types.FunctionCode{ZipFile: code}})
	wantCode(t, err, "InvalidParameterValueException")
}

// TestLocalFunctionsServe has functions in Go, Python and Node decide for a provisioning hook, an authorizer and a rule's SQL; each
// only with its permission.
func TestLocalFunctionsServe(t *testing.T) {
	for _, program := range []string{"python3", "node"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	d := servertest.Start(t)
	n := d.Node(0)
	makeFunction(t, n, "double", types.RuntimeProvidedal2023, "bootstrap", goZip(t))
	makeFunction(t, n, "hook", types.RuntimePython312, "app.run", zipped(t, map[string]string{"app.py": `
def run(event, context):
    return {"allowProvisioning": event["parameters"].get("SerialNumber") == "1"}
`}))
	makeFunction(t, n, "authorise", types.RuntimeNodejs22x, "index.handler", zipped(t, map[string]string{"index.mjs": `
export const handler = async (event) => ({
  isAuthenticated: event.token === 'open', principalId: 'visitor', disconnectAfterInSeconds: 3600, refreshAfterInSeconds: 3600,
  policyDocuments: [{ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }],
});
`}))

	t.Run("rule", func(t *testing.T) {
		id := n.Identity(t, "all", everything...)
		makeRule(t, n, "ask", `SELECT aws_lambda("`+functionARN("double")+`", *).do AS done FROM 'test/in'`,
			iottypes.Action{Republish: &iottypes.RepublishAction{RoleArn: new(roleARN), Topic: new("test/out"), Qos: new(int32(1))}})
		b := connect5(t, n, id, "b")
		b.subscribe(t, 1, "test/out")
		b.publish(t, "test/in", `{"do":"first"}`, 1)
		if m := b.next(t); string(m.Payload) != `{}` {
			t.Errorf("without permission: %s", m.Payload)
		}
		permit(t, n, "double", "arn:aws:iot:us-east-1:123456789012:rule/ask")
		b.publish(t, "test/in", `{"do":"second"}`, 1)
		if m := b.next(t); string(m.Payload) != `{"done":"second"}` {
			t.Errorf("%s", m.Payload)
		}
	})
	t.Run("hook", func(t *testing.T) {
		makeTemplate(t, n)
		if _, err := n.IoT().UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateInput{
			TemplateName: new("pumps"), PreProvisioningHook: &iottypes.ProvisioningHook{TargetArn: new(functionARN("hook")), PayloadVersion: new("2020-04-01")},
		}); err != nil {
			t.Fatal(err)
		}
		c := connect5(t, n, n.Identity(t, "claim", claimPolicy...), "claim")
		provision := func(serial string) bool {
			made := ask(t, c, "$aws/certificates/create/json", map[string]any{})
			got := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", map[string]any{
				"certificateOwnershipToken": made.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": serial},
			})
			return got.ThingName == "pump-"+serial
		}
		if provision("1") {
			t.Error("provisioned without permission of the function")
		}
		permit(t, n, "hook", "arn:aws:iot:us-east-1:123456789012:provisioningtemplate/pumps")
		if !provision("1") || provision("2") {
			t.Error("the hook does not decide")
		}
	})
	t.Run("authorizer", func(t *testing.T) {
		if _, err := n.IoT().CreateAuthorizer(t.Context(), &iot.CreateAuthorizerInput{
			AuthorizerName: new("gate"), AuthorizerFunctionArn: new(functionARN("authorise")), SigningDisabled: new(true), Status: iottypes.AuthorizerStatusActive, TokenKeyName: new("token"),
		}); err != nil {
			t.Fatal(err)
		}
		invoke := func(token string) bool {
			out, err := n.IoT().TestInvokeAuthorizer(t.Context(), &iot.TestInvokeAuthorizerInput{AuthorizerName: new("gate"), Token: &token})
			return err == nil && out.IsAuthenticated != nil && *out.IsAuthenticated
		}
		if invoke("open") {
			t.Error("authenticated without permission of the function")
		}
		permit(t, n, "authorise", "arn:aws:iot:us-east-1:123456789012:authorizer/gate")
		if !invoke("open") || invoke("shut") {
			t.Error("the function does not decide")
		}
	})
}

// lines of a file; 0 when it is not there.
func lines(file string) int {
	b, _ := os.ReadFile(file)
	return bytes.Count(b, []byte("\n"))
}

// TestEventInvocations are tried until they succeed, three times at most, and recorded where the function's owner wants it.
func TestEventInvocations(t *testing.T) {
	n := servertest.Start(t, func(c *server.Config) { c.Function.RetryDelay = time.Millisecond }).Node(0)
	c, ctx, dir := lambdaClient(n), t.Context(), t.TempDir()
	makeFunction(t, n, "work", types.RuntimeProvidedal2023, "bootstrap", goZip(t))
	makeFunction(t, n, "grave", types.RuntimePython312, "app.run", zipped(t, map[string]string{"app.py": `
import json
def run(event, context):
    with open("` + dir + `/grave", "a") as f:
        f.write(json.dumps(event) + "\n")
`}))
	event := func(payload map[string]any) {
		t.Helper()
		text, _ := json.Marshal(payload)
		out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: new("work"), InvocationType: types.InvocationTypeEvent, Payload: text})
		if err != nil || out.StatusCode != 202 || len(out.Payload) != 0 {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	event(map[string]any{"do": "count", "file": dir + "/good"})
	eventually(t, "an event to be done", func() bool { return lines(dir+"/good") == 1 })
	if _, err := c.PutFunctionEventInvokeConfig(ctx, &lambda.PutFunctionEventInvokeConfigInput{
		FunctionName: new("work"), DestinationConfig: &types.DestinationConfig{OnFailure: &types.OnFailure{Destination: new(functionARN("grave"))}},
	}); err != nil {
		t.Fatal(err)
	}
	event(map[string]any{"do": "count", "file": dir + "/bad", "n": 1})
	eventually(t, "the record of a failure", func() bool { return lines(dir+"/grave") == 1 })
	if got := lines(dir + "/bad"); got != 3 {
		t.Errorf("%d attempts", got)
	}
	text, err := os.ReadFile(dir + "/grave")
	if err != nil || !strings.Contains(string(text), `"RetriesExhausted"`) || !strings.Contains(string(text), "asked to fail") {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := c.UpdateFunctionEventInvokeConfig(ctx, &lambda.UpdateFunctionEventInvokeConfigInput{FunctionName: new("work"), MaximumRetryAttempts: new(int32(0))}); err != nil {
		t.Fatal(err)
	}
	event(map[string]any{"do": "count", "file": dir + "/once", "n": 1})
	eventually(t, "the record of another", func() bool { return lines(dir+"/grave") == 2 })
	if got := lines(dir + "/once"); got != 1 {
		t.Errorf("%d attempts", got)
	}
	got, err := c.GetFunctionEventInvokeConfig(ctx, &lambda.GetFunctionEventInvokeConfigInput{FunctionName: new("work")})
	if err != nil || *got.MaximumRetryAttempts != 0 || *got.DestinationConfig.OnFailure.Destination != functionARN("grave") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLambdaAction: a rule's action owes an invocation to a function, and gives the message to the error action when it may not.
func TestLambdaAction(t *testing.T) {
	n := servertest.Start(t, func(c *server.Config) { c.Rules.RetryFor = time.Second }).Node(0)
	dir := t.TempDir()
	makeFunction(t, n, "work", types.RuntimeProvidedal2023, "bootstrap", goZip(t))
	id := n.Identity(t, "all", everything...)
	if _, err := n.IoT().CreateTopicRule(t.Context(), &iot.CreateTopicRuleInput{RuleName: new("work"), TopicRulePayload: &iottypes.TopicRulePayload{
		Sql: new("SELECT 'count' AS do, file FROM 'test/in'"), AwsIotSqlVersion: new("2016-03-23"),
		Actions:     []iottypes.Action{{Lambda: &iottypes.LambdaAction{FunctionArn: new(functionARN("work"))}}},
		ErrorAction: &iottypes.Action{Republish: &iottypes.RepublishAction{RoleArn: new(roleARN), Topic: new("test/failed"), Qos: new(int32(1))}},
	}}); err != nil {
		t.Fatal(err)
	}
	b := connect5(t, n, id, "b")
	b.subscribe(t, 1, "test/failed")
	b.publish(t, "test/in", `{"file":"`+dir+`/none"}`, 1)
	if m := b.next(t); !strings.Contains(string(m.Payload), `"failedAction":"LambdaAction"`) || !strings.Contains(string(m.Payload), "no permission") {
		t.Errorf("%s", m.Payload)
	}
	permit(t, n, "work", "arn:aws:iot:us-east-1:123456789012:rule/work")
	for range 5 {
		b.publish(t, "test/in", `{"file":"`+dir+`/some"}`, 1)
	}
	eventually(t, "five invocations", func() bool { return lines(dir+"/some") == 5 })
}

// TestEventsSurviveKill: an event that was accepted is tried after a kill -9, and one that was under way again.
func TestEventsSurviveKill(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	p := startProcess(t, data)
	makeFunction(t, p.Node, "work", types.RuntimeProvidedal2023, "bootstrap", goZip(t))
	invoke := func(payload string) {
		t.Helper()
		if _, err := lambdaClient(p.Node).Invoke(t.Context(), &lambda.InvokeInput{FunctionName: new("work"), InvocationType: types.InvocationTypeEvent, Payload: []byte(payload)}); err != nil {
			t.Fatal(err)
		}
	}
	invoke(`{"do":"wait","file":"` + dir + `/go"}`)
	for range 20 {
		invoke(`{"do":"count","file":"` + dir + `/count"}`)
	}
	p.kill(t)
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	startProcess(t, data)
	eventually(t, "all events to be done", func() bool { return lines(dir+"/count") >= 20 })
}

// A function of AWS Lambda, or of what speaks its API - another server here, at its endpoint - serves a rule's SQL.
func TestRemoteFunction(t *testing.T) {
	cloud := servertest.StartNode(t, t.TempDir())
	makeFunction(t, cloud, "far", types.RuntimeProvidedal2023, "bootstrap", goZip(t))
	t.Setenv("AWS_ACCESS_KEY_ID", cloud.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", cloud.Secret)
	d := servertest.Start(t, func(c *server.Config) {
		c.Function.Endpoints = map[string]string{
			functionARN("near"): "lambda://us-east-1/far?endpoint=" + cloud.Endpoints().API,
			functionARN("gone"): "lambda://us-east-1/gone?endpoint=" + cloud.Endpoints().API,
		}
	})
	n := d.Node(0)
	makeRule(t, n, "ask", `SELECT aws_lambda("`+functionARN("near")+`", *).do AS done, aws_lambda("`+functionARN("gone")+`", *) AS none FROM 'test/in'`,
		iottypes.Action{Republish: &iottypes.RepublishAction{RoleArn: new(roleARN), Topic: new("test/out"), Qos: new(int32(1))}})
	b := connect5(t, n, n.Identity(t, "all", everything...), "b")
	b.subscribe(t, 1, "test/out")
	b.publish(t, "test/in", `{"do":"it"}`, 1)
	if m := b.next(t); string(m.Payload) != `{"done":"it"}` {
		t.Errorf("%s", m.Payload)
	}
	b.publish(t, "test/in", `{"do":"fail"}`, 1) // its error is Undefined, as on AWS
	if m := b.next(t); string(m.Payload) != `{}` {
		t.Errorf("%s", m.Payload)
	}
}
