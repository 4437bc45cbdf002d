package awsclient

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Config says where AWS is and as whom it is called. The zero value is AWS itself, as the environment says.
type Config struct {
	EndpointURL    string        `name:"aws.endpoint-url" help:"What is called in the place of AWS, for all its services, as http or https URL; AWS_ENDPOINT_URL_<SERVICE> (SQS, DYNAMODB ...) in the server's environment goes before it."`
	Region         string        `name:"aws.region" help:"Region of AWS that rules write to; AWS_REGION, AWS_DEFAULT_REGION, the profile's or the deployment's when empty."`
	Profile        string        `name:"aws.profile" help:"Profile of the shared AWS config and credentials files; AWS_PROFILE or default when empty."`
	InstanceRole   bool          `name:"aws.instance-role" help:"Take credentials from the EC2 instance's metadata when there are no others."`
	Timeout        time.Duration `name:"aws.timeout" default:"20s" help:"How long a call of AWS may take."`
	MaxConnections int           `name:"aws.max-connections" default:"64" help:"Most connections to one service of AWS."`
}

// maxAnswer bounds an answer in bytes.
const maxAnswer = 1 << 20

// service is how a service is found: the SigV4 name is the key.
type service struct {
	host string // before .REGION.amazonaws.com
	env  string // after AWS_ENDPOINT_URL_
}

// services are all that can be called, by the name requests are signed for.
var services = map[string]service{
	"dynamodb":       {"dynamodb", "DYNAMODB"},
	"es":             {"es", "OPENSEARCH"},
	"events":         {"events", "EVENTBRIDGE"},
	"firehose":       {"firehose", "FIREHOSE"},
	"geo":            {"tracking.geo", "LOCATION"},
	"iotanalytics":   {"iotanalytics", "IOTANALYTICS"},
	"ioteventsdata":  {"data.iotevents", "IOT_EVENTS_DATA"},
	"iotsitewise":    {"data.iotsitewise", "IOTSITEWISE"},
	"kinesis":        {"kinesis", "KINESIS"},
	"lambda":         {"lambda", "LAMBDA"},
	"logs":           {"logs", "CLOUDWATCH_LOGS"},
	"monitoring":     {"monitoring", "CLOUDWATCH"},
	"secretsmanager": {"secretsmanager", "SECRETS_MANAGER"},
	"sns":            {"sns", "SNS"},
	"sqs":            {"sqs", "SQS"},
	"states":         {"states", "SFN"},
	"sts":            {"sts", "STS"},
	"timestream":     {"ingest.timestream", "TIMESTREAM_WRITE"},
}

// Client calls AWS. It is safe for concurrent use.
type Client struct {
	cfg         Config
	region      string
	endpoints   map[string]string // of services that are elsewhere
	http        *http.Client
	signer      *v4.Signer
	credentials *aws.CredentialsCache
	configured  bool
	now         func() time.Time

	mu         sync.Mutex
	discovered map[string]discovered
}

var regionPattern = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)

// New reads the configuration; it calls nobody. Region is the region when the configuration and the environment name none.
func New(cfg Config, region string, log *slog.Logger) (*Client, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 20 * time.Second
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = 64
	}
	if cfg.Profile == "" {
		cfg.Profile = first(os.Getenv("AWS_PROFILE"), "default")
	}
	p, err := readProfile(cfg.Profile)
	if err != nil {
		return nil, fmt.Errorf("awsclient: %w", err)
	}
	c := &Client{
		cfg: cfg, signer: v4.NewSigner(), now: time.Now, discovered: map[string]discovered{}, endpoints: map[string]string{},
		region: first(cfg.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), p["region"], region),
	}
	if !regionPattern.MatchString(c.region) {
		return nil, fmt.Errorf("awsclient: %q is not the name of a region", c.region)
	}
	for name, s := range services {
		at := first(os.Getenv("AWS_ENDPOINT_URL_"+s.env), cfg.EndpointURL)
		if at == "" {
			continue
		}
		u, err := url.Parse(at)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("awsclient: the endpoint of %s is not an http or https URL", name)
		}
		c.endpoints[name] = strings.TrimSuffix(at, "/")
	}
	c.http = newHTTP(cfg, http.ProxyFromEnvironment)
	c.credentials, c.configured = c.chain(p, log)
	return c, nil
}

func newHTTP(cfg Config, proxy func(*http.Request) (*url.URL, error)) *http.Client {
	return &http.Client{
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  proxy,
			DialContext:            (&net.Dialer{Timeout: min(cfg.Timeout, 10*time.Second)}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        cfg.MaxConnections,
			MaxIdleConnsPerHost:    cfg.MaxConnections,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// Configured tells whether there are credentials to call AWS with, as far as can be told without calling anybody.
func (c *Client) Configured() bool { return c.configured }

// Region is the region of AWS that is called.
func (c *Client) Region() string { return c.region }

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Error is how a service refused a call, or why it was not reached (Status 0).
type Error struct {
	Service   string // as requests are signed for it: "kinesis"
	Operation string // "PutRecords"
	Status    int    // of HTTP; 0: there was no answer
	Code      string // "ResourceNotFoundException"
	Message   string
	Body      []byte // of the answer, at most maxAnswer; nil for none
	err       error
}

func (e *Error) Error() string {
	text := e.Service + " " + e.Operation + ": "
	if e.Status != 0 {
		text += fmt.Sprintf("status %d ", e.Status)
	}
	return strings.TrimSpace(text + e.Code + ": " + e.Message)
}

func (e *Error) Unwrap() error { return e.err }

// waits are parts of codes of refusals that pass, or that an operator can end.
var waits = []string{
	"Throttl", "TooManyRequests", "LimitExceeded", "ThroughputExceeded", "SlowDown", "Unavailable", "Internal", "Timeout", "TimedOut",
	"NotFound", "DoesNotExist", "NonExistent", "AccessDenied", "NotAuthorized", "UnrecognizedClient", "Signature", "ExpiredToken", "Expired", "InvalidClientTokenId",
	"MissingAuthenticationToken", "InvalidAccessKeyId", "SubscriptionRequired", "OptInRequired", "KMS", "Kms", "AuthorizationError", "AuthFailure", "TransactionConflict",
}

// Temporary tells whether another attempt at the same call may succeed: not when the service refuses what is in it. What
// an operator can mend (a resource that is missing, a permission) counts as temporary.
func (e *Error) Temporary() bool {
	switch {
	case e.Status == 0, e.Status >= 500, e.Status == http.StatusForbidden, e.Status == http.StatusNotFound, e.Status == http.StatusUnauthorized,
		e.Status == http.StatusRequestTimeout, e.Status == http.StatusTooManyRequests, e.Status == http.StatusConflict, e.Status < 400:
		return true
	}
	return TemporaryCode(e.Code)
}

// TemporaryCode is [Error.Temporary] for the code that an answer has for one entry of a batch.
func TemporaryCode(code string) bool {
	for _, w := range waits {
		if strings.Contains(code, w) {
			return true
		}
	}
	return false
}

// IsTemporary tells whether err is anything but a refusal that another attempt gets again.
func IsTemporary(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return !ok || e.Temporary()
}

// JSON calls an operation by awsJson.
//
//	target   X-Amz-Target, as "Kinesis_20131202.PutRecords"
//	version  of the protocol: "1.0" or "1.1"
//	in, out  encoded as and decoded from JSON; out may be nil
//
// Its errors are *Error, or those of encoding in.
func (c *Client) JSON(ctx context.Context, service, target, version string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("awsclient: %w", err)
	}
	_, operation, _ := strings.Cut(target, ".")
	base, err := c.discover(ctx, service)
	if err != nil {
		return err
	}
	return c.json(ctx, base, service, operation, target, version, body, out)
}

func (c *Client) json(ctx context.Context, base, service, operation, target, version string, body []byte, out any) error {
	header := http.Header{"Content-Type": {"application/x-amz-json-" + version}, "X-Amz-Target": {target}}
	status, got, answer, err := c.call(ctx, service, operation, http.MethodPost, base+"/", header, body)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return refusal(service, operation, status, got, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return &Error{Service: service, Operation: operation, Status: status, Code: "InvalidAnswer", Message: "the answer is not what was to be expected", err: err}
	}
	return nil
}

// Query calls the operation that form's Action names by awsQuery, in the version of the service, and returns the XML of the
// answer. Its errors are *Error.
func (c *Client) Query(ctx context.Context, service, version string, form url.Values) ([]byte, error) {
	operation := form.Get("Action")
	form.Set("Version", version)
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	base, err := c.base(service, operation)
	if err != nil {
		return nil, err
	}
	status, got, answer, err := c.call(ctx, service, operation, http.MethodPost, base+"/", header, []byte(form.Encode()))
	if err == nil && status != http.StatusOK {
		err = refusal(service, operation, status, got, answer)
	}
	return answer, err
}

// REST calls a method of a path, which is escaped and has its query, and returns the answer whatever its status: err tells
// that there was none. A path that begins with http:// or https:// is the whole URL, for services whose resources have hosts
// of their own; who may name such a host is for the caller to say. [Refusal] makes an error of an answer.
func (c *Client) REST(ctx context.Context, service, method, path string, header http.Header, body []byte) (status int, answer []byte, err error) {
	target := path
	if !strings.HasPrefix(path, "http://") && !strings.HasPrefix(path, "https://") {
		base, err := c.base(service, method+" "+path)
		if err != nil {
			return 0, nil, err
		}
		target = base + path
	}
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	status, _, answer, err = c.call(ctx, service, method, method, target, header, body)
	return status, answer, err
}

// base is the URL of a service, without a slash at its end.
func (c *Client) base(name, operation string) (string, error) {
	if at := c.endpoints[name]; at != "" {
		return at, nil
	}
	s, ok := services[name]
	if !ok {
		return "", &Error{Service: name, Operation: operation, Code: "UnknownService", Message: "it is none of the services that can be called"}
	}
	suffix := ".amazonaws.com"
	if strings.HasPrefix(c.region, "cn-") {
		suffix += ".cn"
	}
	return "https://" + s.host + "." + c.region + suffix, nil
}

// call makes one signed request.
func (c *Client) call(ctx context.Context, service, operation, method, target string, header http.Header, body []byte) (int, http.Header, []byte, error) {
	failed := func(err error) error {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may have names of users' making
		}
		return &Error{Service: service, Operation: operation, Code: "NotReached", Message: err.Error(), err: err}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, failed(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "flotilla")
	if err := c.Sign(ctx, req, body, service, c.region); err != nil {
		return 0, nil, nil, failed(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, failed(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, nil, failed(err)
	case len(answer) > maxAnswer:
		return 0, nil, nil, failed(fmt.Errorf("the answer is longer than %d bytes", maxAnswer))
	}
	return resp.StatusCode, resp.Header, answer, nil
}

// Sign signs a request for a service in a region with the credentials that there are now; body is its body.
func (c *Client) Sign(ctx context.Context, req *http.Request, body []byte, service, region string) error {
	keys, err := c.credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	sum := sha256.Sum256(body)
	return c.signer.SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), service, region, c.now())
}
