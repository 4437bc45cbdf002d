package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdkiot "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/api"
	"flotilla/internal/aws"
	"flotilla/internal/policy/lang"
)

const (
	keyID  = "AKIAIOSFODNN7EXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

// keys holds one access key.
type keys struct{ err error }

func (k *keys) AccessKey(_ context.Context, id string) (string, aws.Principal, error) {
	if id != keyID || k.err != nil {
		return "", aws.Principal{}, k.err
	}
	return secret, aws.Principal{Type: "user", ID: id, ARN: "arn:aws:iam::123456789012:user/admin"}, nil
}

// everything lets every key do everything.
type everything struct{}

func (everything) Authorize(context.Context, aws.Principal, string, string, *lang.Connection) (lang.Decision, error) {
	return lang.Decision{Effect: lang.Allow}, nil
}

// world is a door that listens.
type world struct {
	*api.Server
	url         string
	keys        *keys
	permissions *permissions
	log         *lines
}

// permissions are those of the key: a policy, by default one that allows everything.
type permissions struct {
	mu    sync.Mutex
	set   *lang.Set
	err   error
	asked []string // "action resource"
}

func (p *permissions) Authorize(_ context.Context, _ aws.Principal, action, resource string, conn *lang.Connection) (lang.Decision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, action+" "+resource)
	if p.set == nil {
		return lang.Decision{Effect: lang.Allow}, p.err
	}
	return p.set.Evaluate(conn, action, resource), p.err
}

// allow has a policy document decide.
func (p *permissions) allow(t testing.TB, document string) {
	t.Helper()
	d, err := lang.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set, p.asked = lang.Compile(lang.Named{Name: "p", Document: d}), nil
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t testing.TB, cfg api.Config) *world {
	t.Helper()
	w := &world{keys: &keys{}, permissions: &permissions{}, log: &lines{}}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.Server = api.New(cfg, api.Deps{Account: account, Keys: w.keys, Permissions: w.permissions, Log: log})
	s := httptest.NewUnstartedServer(nil)
	s.Config = api.HTTPServer(w.Server, cfg, log)
	s.Start()
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

func (w *world) iot() *sdkiot.Client {
	return sdkiot.New(sdkiot.Options{
		Region: "eu-central-1", BaseEndpoint: &w.url, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(keyID, secret, ""),
	})
}

func (w *world) data() *iotdataplane.Client {
	return iotdataplane.New(iotdataplane.Options{
		Region: "us-east-1", BaseEndpoint: &w.url, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(keyID, secret, ""),
	})
}

// request makes a request that is not signed yet.
func (w *world) request(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var signingKey = sdk.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}

// sign signs as the AWS SDK does.
func sign(t testing.TB, r *http.Request, service, body string, at time.Time) *http.Request {
	t.Helper()
	return signAs(t, signingKey, r, service, body, at)
}

func signAs(t testing.TB, c sdk.Credentials, r *http.Request, service, body string, at time.Time) *http.Request {
	t.Helper()
	if err := v4.NewSigner().SignHTTP(t.Context(), c, r, hash(body), service, "us-east-1", at); err != nil {
		t.Fatal(err)
	}
	return r
}

func hash(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// answer is what came back.
type answer struct {
	status  int
	code    string // x-amzn-ErrorType
	message string
	body    string
	header  http.Header
}

func send(t testing.TB, client *http.Client, r *http.Request) answer {
	t.Helper()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, code: resp.Header.Get("x-amzn-ErrorType"), body: string(b), header: resp.Header}
	var m struct{ Message string }
	if json.Unmarshal(b, &m) == nil {
		a.message = m.Message
	}
	if resp.Header.Get("x-amzn-RequestId") == "" {
		t.Error("an answer without x-amzn-RequestId")
	}
	return a
}

func (w *world) call(t testing.TB, service, method, target, body string) answer {
	t.Helper()
	return send(t, http.DefaultClient, sign(t, w.request(t, method, target, body), service, body, time.Now()))
}
