package environment_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/function/environment"
)

const (
	arn      = "arn:aws:lambda:us-east-1:123456789012:function:hook"
	patience = 30 * time.Second
)

var build = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "bootstrap")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "bootstrap"), "flotilla/test/lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(filepath.Join(dir, "bootstrap"))
})

// world is a set of environments, and one function in it.
type world struct {
	*environment.Environments
	*environment.Pool
	log environment.Log
	f   environment.Function
}

func goCode(t testing.TB) map[string]string {
	t.Helper()
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"bootstrap": string(b)}
}

func open(t testing.TB, cfg environment.Config, code map[string]string, change ...func(*environment.Function)) *world {
	t.Helper()
	cfg.Dir = filepath.Join(t.TempDir(), "environments")
	w := &world{}
	var err error
	if w.Environments, err = environment.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.f = environment.Function{
		Name: "hook", Version: "$LATEST", ARN: arn, Runtime: "provided.al2023", Handler: "bootstrap", Code: t.TempDir(),
		Timeout: 20 * time.Second, MemoryMiB: 512, Region: "us-east-1", Concurrency: 2, MaxWaiting: 10,
	}
	for name, text := range code {
		if err := os.WriteFile(filepath.Join(w.f.Code, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range change {
		c(&w.f)
	}
	w.Pool = w.Environments.Pool(&w.f, &w.log)
	return w
}

var ids struct {
	sync.Mutex
	n int
}

func (w *world) try(ctx context.Context, event string) (*environment.Result, error) {
	ids.Lock()
	ids.n++
	id := "id-" + strconv.Itoa(ids.n)
	ids.Unlock()
	return w.Invoke(ctx, &environment.Invocation{RequestID: id, FunctionARN: arn, Payload: []byte(event)})
}

func (w *world) invoke(t testing.TB, event string) *environment.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := w.try(ctx, event)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// wantError checks an answer of a function that failed.
func wantError(t testing.TB, res *environment.Result, kind, message string) {
	t.Helper()
	var e struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(res.Payload, &e); err != nil || res.Error != "Unhandled" || e.ErrorType != kind || !strings.Contains(e.ErrorMessage, message) {
		t.Errorf("got %s: %s (%v), want %s: %s", res.Error, res.Payload, err, kind, message)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestGo(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t))
	if res := w.invoke(t, `{"do":"echo"}`); res.Error != "" || string(res.Payload) != `{"do":"echo"}` {
		t.Errorf("%+v", res)
	}
	res, err := w.Invoke(t.Context(), &environment.Invocation{RequestID: "R", FunctionARN: arn + ":7", Payload: []byte(`{"do":"context"}`), ClientContext: `{"Client":{"app_title":"app"}}`})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(res.Payload, &got); err != nil {
		t.Fatal(err)
	}
	pid := got["pid"]
	delete(got, "pid")
	want := map[string]any{"arn": arn + ":7", "requestId": "R", "name": "hook", "version": "$LATEST", "memory": 512.0, "client": "app", "deadline": true, "dir": w.f.Code}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again := w.invoke(t, `{"do":"context"}`)
	if err := json.Unmarshal(again.Payload, &got); err != nil || got["pid"] != pid {
		t.Errorf("the process was not kept warm: %s, before %v", again.Payload, pid)
	}
}

const pythonCode = `
import os, time
print("loaded")
def run(event, context):
    do = event["do"]
    if do == "fail":
        raise KeyError("no such")
    if do == "exit":
        os._exit(7)
    if do == "nonsense":
        return object()
    print("printed", do)
    return {"got": event, "id": context.aws_request_id, "arn": context.invoked_function_arn, "left": context.get_remaining_time_in_millis() > 0}
`

const nodeCode = `
console.log('loaded');
exports.run = async (event, context) => {
  if (event.do === 'fail') throw new TypeError('no such');
  if (event.do === 'exit') process.exit(7);
  console.log('printed', event.do);
  return { got: event, id: context.awsRequestId, arn: context.invokedFunctionArn, left: context.getRemainingTimeInMillis() > 0 };
};
exports.callback = (event, context, done) => setImmediate(done, null, 'called back');
`

func installed(t *testing.T, program string) {
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
}

// TestManaged runs handlers in Python and Node through the bootstraps that are built in.
func TestManaged(t *testing.T) {
	for _, c := range []struct{ runtime, program, file, code, failure string }{
		{"python3.12", "python3", "src/app.py", pythonCode, "KeyError"},
		{"nodejs22.x", "node", "src/app.js", nodeCode, "TypeError"},
	} {
		t.Run(c.program, func(t *testing.T) {
			installed(t, c.program)
			w := open(t, environment.Config{}, nil, func(f *environment.Function) {
				f.Runtime, f.Handler = c.runtime, "src/app.run"
				if err := os.Mkdir(filepath.Join(f.Code, "src"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(f.Code, c.file), []byte(c.code), 0o644); err != nil {
					t.Fatal(err)
				}
			})
			if err := w.Supported(c.runtime); err != nil {
				t.Fatal(err)
			}
			res := w.invoke(t, `{"do":"ü"}`)
			var got struct {
				Got  map[string]string
				ID   string
				ARN  string
				Left bool
			}
			if err := json.Unmarshal(res.Payload, &got); err != nil || res.Error != "" || got.Got["do"] != "ü" || !strings.HasPrefix(got.ID, "id-") || got.ARN != arn || !got.Left {
				t.Errorf("%s %s (%v)", res.Error, res.Payload, err)
			}
			if !strings.Contains(string(res.Log), "printed ü\n") {
				t.Errorf("log %q", res.Log)
			}
			wantError(t, w.invoke(t, `{"do":"fail"}`), c.failure, "no such")
			wantError(t, w.invoke(t, `{"do":"exit"}`), "Runtime.ExitError", "exit status 7")
			if res := w.invoke(t, `{"do":"again"}`); res.Error != "" {
				t.Errorf("after a crash: %s", res.Payload)
			}
			if c.program == "python3" {
				wantError(t, w.invoke(t, `{"do":"nonsense"}`), "Runtime.MarshalError", "not JSON serializable")
			}
		})
	}
}

func TestNodeCallback(t *testing.T) {
	installed(t, "node")
	w := open(t, environment.Config{}, map[string]string{"app.js": nodeCode}, func(f *environment.Function) { f.Runtime, f.Handler = "nodejs20.x", "app.callback" })
	if res := w.invoke(t, `{}`); string(res.Payload) != `"called back"` {
		t.Errorf("%s", res.Payload)
	}
}

// TestBadHandlers: what can not be loaded is named as Lambda names it.
func TestBadHandlers(t *testing.T) {
	for name, c := range map[string]struct{ runtime, program, handler, file, code, kind string }{
		"python no module":   {"python3.12", "python3", "none.run", "app.py", "", "Runtime.ImportModuleError"},
		"python no function": {"python3.12", "python3", "app.run", "app.py", "x=1", "Runtime.HandlerNotFound"},
		"python syntax":      {"python3.12", "python3", "app.run", "app.py", "def", "Runtime.UserCodeSyntaxError"},
		"python no dot":      {"python3.12", "python3", "app", "app.py", "", "Runtime.MalformedHandlerName"},
		"node no module":     {"nodejs22.x", "node", "none.run", "app.js", "", "Runtime.ImportModuleError"},
		"node no function":   {"nodejs22.x", "node", "app.run", "app.mjs", "export const x = 1", "Runtime.HandlerNotFound"},
		"node syntax":        {"nodejs22.x", "node", "app.run", "app.mjs", "export const", "Runtime.UserCodeSyntaxError"},
		"node no dot":        {"nodejs22.x", "node", "app", "app.js", "", "Runtime.MalformedHandlerName"},
		"no bootstrap":       {"provided.al2023", "true", "x", "app.js", "", "Runtime.InvalidEntrypoint"},
		"no program":         {"provided.al2023", "true", "x", "bootstrap", "#!/no/such/interpreter\n", "Runtime.InvalidEntrypoint"},
	} {
		t.Run(name, func(t *testing.T) {
			installed(t, c.program)
			w := open(t, environment.Config{}, map[string]string{c.file: c.code}, func(f *environment.Function) { f.Runtime, f.Handler = c.runtime, c.handler })
			wantError(t, w.invoke(t, `{}`), c.kind, "")
		})
	}
}

func TestFailures(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t))
	wantError(t, w.invoke(t, `{"do":"fail"}`), "errorString", "asked to fail")
	wantError(t, w.invoke(t, `{"do":"panic"}`), "string", "asked to panic")
	wantError(t, w.invoke(t, `{"do":"exit"}`), "Runtime.ExitError", "exit status 7")
	wantError(t, w.invoke(t, `{"do":"huge"}`), "Function.ResponseSizeTooLarge", "6291456")
	wantError(t, w.invoke(t, `nonsense`), "SyntaxError", "invalid character")
	if res := w.invoke(t, `{"do":"echo"}`); res.Error != "" {
		t.Errorf("after all that: %s", res.Payload)
	}
}

func TestTimeout(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t), func(f *environment.Function) { f.Timeout, f.Concurrency = time.Second, 1 })
	wantError(t, w.invoke(t, `{"do":"hang"}`), "Sandbox.Timedout", "Task timed out after 1.00 seconds")
	if res := w.invoke(t, `{"do":"echo"}`); res.Error != "" {
		t.Errorf("after it: %s", res.Payload)
	}
}

// TestAbandoned: who does not wait any more does not end the invocation.
func TestAbandoned(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t), func(f *environment.Function) { f.Concurrency = 1 })
	w.invoke(t, `{"do":"echo"}`)
	file := filepath.Join(t.TempDir(), "go")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := w.try(ctx, `{"do":"wait","file":"`+file+`"}`)
		failed <- err
	}()
	eventually(t, "it runs", func() bool { return strings.Count(text(w), "START") == 2 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.invoke(t, `{"do":"echo"}`)
	if log := text(w); strings.Count(log, "REPORT") != 3 {
		t.Errorf("%s", log)
	}
}

func text(w *world) string {
	var b strings.Builder
	for _, l := range w.log.Lines() {
		b.WriteString(l.Text + "\n")
	}
	return b.String()
}

func TestMemoryIsBounded(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t), func(f *environment.Function) { f.MemoryMiB = 128 })
	wantError(t, w.invoke(t, `{"do":"memory","n":300}`), "Runtime.ExitError", "signal: killed")
}

// TestNothingOfTheServerLeaks: a function sees its own variables and those that Lambda documents, and no open files.
func TestNothingOfTheServerLeaks(t *testing.T) {
	t.Setenv("FLOTILLA_TEST_SECRET", "hush")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hush")
	w := open(t, environment.Config{}, goCode(t), func(f *environment.Function) { f.Variables = map[string]string{"MINE": "yes", "TZ": "Europe/Berlin"} })
	res := w.invoke(t, `{"do":"environment"}`)
	var list []string
	if err := json.Unmarshal(res.Payload, &list); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, v := range list {
		if strings.Contains(v, "hush") {
			t.Errorf("%s", v)
		}
		name, _, _ := strings.Cut(v, "=")
		names[name] = true
	}
	want := strings.Fields("AWS_DEFAULT_REGION AWS_EXECUTION_ENV AWS_LAMBDA_FUNCTION_MEMORY_SIZE AWS_LAMBDA_FUNCTION_NAME AWS_LAMBDA_FUNCTION_VERSION AWS_LAMBDA_INITIALIZATION_TYPE" +
		" AWS_LAMBDA_LOG_GROUP_NAME AWS_LAMBDA_LOG_STREAM_NAME AWS_LAMBDA_RUNTIME_API AWS_REGION HOME LAMBDA_RUNTIME_DIR LAMBDA_TASK_ROOT LANG LD_LIBRARY_PATH MINE PATH PYTHONDONTWRITEBYTECODE TMPDIR TZ _HANDLER")
	delete(names, "_X_AMZN_TRACE_ID") // the library sets it
	if len(names) != len(want) {
		t.Errorf("%v", list)
	}
	for _, name := range want {
		if !names[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestConcurrency(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t), func(f *environment.Function) { f.Concurrency, f.MaxWaiting = 2, 3 })
	file := filepath.Join(t.TempDir(), "go")
	results := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := w.try(context.Background(), `{"do":"wait","file":"`+file+`"}`)
			results <- err
		}()
	}
	for range 5 { // ten: two run and three wait
		if err := <-results; !errors.Is(err, environment.ErrThrottled) {
			t.Error(err)
		}
	}
	if n := w.Count(); n > 2 {
		t.Errorf("%d processes", n)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	none := open(t, environment.Config{}, goCode(t), func(f *environment.Function) { f.Concurrency = 0 })
	if _, err := none.try(t.Context(), `{}`); !errors.Is(err, environment.ErrThrottled) {
		t.Error(err)
	}
}

// TestPlacesAreShared: a function that wants a process gets the place of one that is idle.
func TestPlacesAreShared(t *testing.T) {
	w := open(t, environment.Config{Processes: 1}, goCode(t))
	w.invoke(t, `{"do":"echo"}`)
	f := w.f
	f.Name = "other"
	other := &world{Environments: w.Environments, Pool: w.Environments.Pool(&f, &environment.Log{}), f: f}
	if res := other.invoke(t, `{"do":"echo"}`); res.Error != "" {
		t.Errorf("%s", res.Payload)
	}
	if res := w.invoke(t, `{"do":"echo"}`); res.Error != "" {
		t.Errorf("%s", res.Payload)
	}
}

func TestIdleProcessesEnd(t *testing.T) {
	w := open(t, environment.Config{Idle: time.Millisecond}, goCode(t))
	w.invoke(t, `{"do":"echo"}`)
	eventually(t, "the process ends", func() bool { return w.Count() == 0 })
	if res := w.invoke(t, `{"do":"echo"}`); res.Error != "" {
		t.Errorf("%s", res.Payload)
	}
}

func TestRetire(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t))
	w.invoke(t, `{"do":"echo"}`)
	file := filepath.Join(t.TempDir(), "go")
	running := make(chan *environment.Result)
	go func() {
		res, err := w.try(context.Background(), `{"do":"wait","file":"`+file+`"}`)
		if err != nil {
			t.Error(err)
		}
		running <- res
	}()
	eventually(t, "it runs", func() bool { return strings.Count(text(w), "START") == 2 })
	w.Retire()
	if _, err := w.try(t.Context(), `{}`); !errors.Is(err, environment.ErrClosed) {
		t.Error(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if res := <-running; res.Error != "" {
		t.Errorf("%s", res.Payload)
	}
	eventually(t, "its process ends", func() bool { return w.Count() == 0 })
}

// TestNoProcessIsLeft: what a function has started goes with it.
func TestNoProcessIsLeft(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	w := open(t, environment.Config{}, map[string]string{"bootstrap": "#!/bin/sh\nsleep 1000 &\necho $! >>" + file + "\necho $$ >>" + file + "\nwait\n"})
	failed := make(chan error, 1)
	go func() {
		_, err := w.try(context.Background(), `{}`)
		failed <- err
	}()
	var pids []string
	eventually(t, "it runs", func() bool {
		b, _ := os.ReadFile(file)
		pids = strings.Fields(string(b))
		return len(pids) == 2
	})
	w.Close()
	<-failed
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, text+" ends", func() bool {
			if syscall.Kill(pid, 0) != nil {
				return true
			}
			stat, err := os.ReadFile("/proc/" + text + "/stat") // nobody may have reaped it
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}

func TestLog(t *testing.T) {
	w := open(t, environment.Config{}, goCode(t))
	res := w.invoke(t, `{"do":"print","n":10}`)
	want := regexp.MustCompile(`^START RequestId: id-\d+ Version: \$LATEST
printed to stdout
x{10}
END RequestId: id-\d+
REPORT RequestId: id-\d+	Duration: [0-9.]+ ms	Billed Duration: \d+ ms	Memory Size: 512 MB	Max Memory Used: \d+ MB	Init Duration: [0-9.]+ ms
$`)
	if !want.Match(res.Log) {
		t.Errorf("%s", res.Log)
	}
	res = w.invoke(t, `{"do":"print","n":100000}`)
	if len(res.Log) > 4096 || !strings.Contains(string(res.Log), "xxx\nEND RequestId") || strings.Contains(string(res.Log), "Init Duration") {
		t.Errorf("%d bytes: %s", len(res.Log), res.Log)
	}
	for range 10 {
		w.invoke(t, `{"do":"print","n":100000}`)
	}
	if n := len(text(w)); n > 256<<10 || n < 128<<10 {
		t.Errorf("%d bytes are kept", n)
	}
}

// TestRuntimeAPIRefuses asks as a process that breaks the protocol, or does not belong to the function.
func TestRuntimeAPIRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "address")
	w := open(t, environment.Config{}, map[string]string{"bootstrap": "#!/bin/sh\necho $AWS_LAMBDA_RUNTIME_API >" + file + ".new\nmv " + file + ".new " + file + "\nsleep 1000\n"})
	done := make(chan *environment.Result, 1)
	go func() {
		res, err := w.try(context.Background(), `{"a":1}`)
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	var address string
	eventually(t, "it listens", func() bool {
		b, err := os.ReadFile(file)
		address = strings.TrimSpace(string(b))
		return err == nil
	})
	call := func(method, path, body string, header ...string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+"/2018-06-01/runtime"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
			if header[i] == "Host" {
				r.Host = header[i+1]
			}
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header
	}
	for _, header := range [][]string{{"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Host", "evil.example"}} {
		if status, _, _ := call("GET", "/invocation/next", "", header...); status != http.StatusForbidden {
			t.Errorf("%v: status %d", header, status)
		}
	}
	if status, _, _ := call("POST", "/invocation/id-0/response", `{}`); status != http.StatusBadRequest {
		t.Errorf("a response to nothing: status %d", status)
	}
	status, body, header := call("GET", "/invocation/next", "")
	if status != http.StatusOK || body != `{"a":1}` || header.Get("Lambda-Runtime-Deadline-Ms") == "" || header.Get("Lambda-Runtime-Invoked-Function-Arn") != arn {
		t.Errorf("%d %s %v", status, body, header)
	}
	id := header.Get("Lambda-Runtime-Aws-Request-Id")
	if status, body, _ := call("GET", "/invocation/next", ""); status != http.StatusForbidden || !strings.Contains(body, "InvalidStateTransition") {
		t.Errorf("next without a response: %d %s", status, body)
	}
	if status, _, _ := call("POST", "/init/error", `{}`); status != http.StatusForbidden {
		t.Errorf("a late init error: status %d", status)
	}
	if status, body, _ := call("POST", "/invocation/"+id+"/response", "anything"); status != http.StatusAccepted || body != `{"status":"OK"}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
	if res := <-done; string(res.Payload) != "anything" || res.Error != "" {
		t.Errorf("%+v", res)
	}
	if status, _, _ := call("POST", "/invocation/"+id+"/response", "twice"); status != http.StatusBadRequest {
		t.Errorf("a second response: status %d", status)
	}
}
