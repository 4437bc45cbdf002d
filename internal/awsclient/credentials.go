package awsclient

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	maxFile     = 1 << 20 // of a shared file or a token
	maxIdentity = 64 << 10
	relativeURI = "http://169.254.170.2"
	metadata    = "http://169.254.169.254"
)

// chain finds the provider of credentials as AWS's SDKs do, and tells whether there is one for certain.
func (c *Client) chain(p map[string]string, log *slog.Logger) (*aws.CredentialsCache, bool) {
	direct := newHTTP(Config{Timeout: 5 * time.Second, MaxConnections: 2}, nil)
	source, certain := "", true
	var get aws.CredentialsProviderFunc
	switch {
	case os.Getenv("AWS_ACCESS_KEY_ID") != "" && os.Getenv("AWS_SECRET_ACCESS_KEY") != "":
		source, get = "environment", static(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN"))
	case p["aws_access_key_id"] != "" && p["aws_secret_access_key"] != "":
		source, get = "profile", static(p["aws_access_key_id"], p["aws_secret_access_key"], p["aws_session_token"])
	case os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" && os.Getenv("AWS_ROLE_ARN") != "":
		source, get = "web identity", c.webIdentity
	case os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" || os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "":
		source, get = "container", func(ctx context.Context) (aws.Credentials, error) { return container(ctx, direct) }
	case c.cfg.InstanceRole:
		source, get = "instance", func(ctx context.Context) (aws.Credentials, error) { return instance(ctx, direct, metadata) }
	default:
		certain = false
		get = func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("there are none in the server's environment or in the profile")
		}
	}
	if log != nil && certain {
		log.Debug("awsclient: credentials of AWS", "source", source)
	}
	return aws.NewCredentialsCache(get, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute }), certain
}

func static(id, secret, token string) aws.CredentialsProviderFunc {
	return func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token, Source: "static"}, nil
	}
}

// readProfile reads the members of a profile in the shared files; those of credentials go before those of config. A file
// that is absent is empty.
//
// AWS: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
func readProfile(name string) (map[string]string, error) {
	home, _ := os.UserHomeDir()
	out := map[string]string{}
	for _, f := range []struct{ path, section string }{
		{first(os.Getenv("AWS_CONFIG_FILE"), filepath.Join(home, ".aws", "config")), "profile " + name},
		{first(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(home, ".aws", "credentials")), name},
	} {
		if err := readSection(f.path, out, f.section, name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readSection(path string, out map[string]string, section, name string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	inside := false
	lines := bufio.NewScanner(io.LimitReader(file, maxFile))
	for lines.Scan() {
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if trimmed[0] == '[' {
			head := strings.Join(strings.Fields(strings.Trim(trimmed, "[]")), " ")
			inside = head == section || head == name && name == "default"
			continue
		}
		key, text, ok := strings.Cut(trimmed, "=")
		if ok && inside && line[0] != ' ' && line[0] != '\t' { // an indented line belongs to the one before
			out[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(text)
		}
	}
	return lines.Err()
}

// temporary is what the container's and the instance's endpoints answer.
type temporary struct {
	AccessKeyId, SecretAccessKey, Token, Code, Message string
	Expiration                                         time.Time
}

func (t temporary) credentials(source string) (aws.Credentials, error) {
	if t.AccessKeyId == "" || t.SecretAccessKey == "" {
		return aws.Credentials{}, fmt.Errorf("the %s has none", source)
	}
	return aws.Credentials{
		AccessKeyID: t.AccessKeyId, SecretAccessKey: t.SecretAccessKey, SessionToken: t.Token, CanExpire: !t.Expiration.IsZero(), Expires: t.Expiration, Source: source,
	}, nil
}

// fetch gets a small document.
func fetch(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIdentity))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return body, err
}

// container asks the endpoint that the environment names: of ECS, EKS, Greengrass.
//
// AWS: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func container(ctx context.Context, client *http.Client) (aws.Credentials, error) {
	at := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if relative := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); relative != "" {
		at = relativeURI + relative
	}
	u, err := url.Parse(at)
	if err != nil || !credentialsHost(u) {
		return aws.Credentials{}, errors.New("the container's endpoint is neither https nor an address that may be http")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return aws.Credentials{}, err
	}
	token := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if name := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); name != "" {
		if token, err = readToken(name); err != nil {
			return aws.Credentials{}, err
		}
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	return identity(client, req, "container")
}

// credentialsHost tells whether secrets may be asked for at u.
func credentialsHost(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	loopback := ip != nil && ip.IsLoopback() || u.Hostname() == "localhost"
	switch u.Hostname() {
	case "169.254.170.2", "169.254.170.23", "fd00:ec2::23":
		return u.Scheme == "http"
	}
	return u.Scheme == "https" && u.Host != "" || u.Scheme == "http" && loopback
}

func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity))
	return strings.TrimSpace(string(b)), err
}

func identity(client *http.Client, req *http.Request, source string) (aws.Credentials, error) {
	body, err := fetch(client, req)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("the %s: %w", source, err)
	}
	var t temporary
	if err := json.Unmarshal(body, &t); err != nil {
		return aws.Credentials{}, fmt.Errorf("the %s's answer is not JSON", source)
	}
	return t.credentials(source)
}

// instance asks the metadata of an EC2 instance (IMDSv2).
//
// AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
func instance(ctx context.Context, client *http.Client, base string) (aws.Credentials, error) {
	ask := func(method, path, header, text string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, base+path, nil)
		if err == nil {
			req.Header.Set(header, text)
		}
		return req, err
	}
	req, err := ask(http.MethodPut, "/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
	if err != nil {
		return aws.Credentials{}, err
	}
	token, err := fetch(client, req)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("the instance's metadata: %w", err)
	}
	const path, header = "/latest/meta-data/iam/security-credentials/", "X-Aws-Ec2-Metadata-Token"
	if req, err = ask(http.MethodGet, path, header, string(token)); err != nil {
		return aws.Credentials{}, err
	}
	role, err := fetch(client, req)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("the instance's role: %w", err)
	}
	name, _, _ := strings.Cut(string(role), "\n")
	if req, err = ask(http.MethodGet, path+url.PathEscape(strings.TrimSpace(name)), header, string(token)); err != nil {
		return aws.Credentials{}, err
	}
	return identity(client, req, "instance")
}

// webIdentity asks STS for credentials of the role that the token in a file stands for, as on EKS.
//
// AWS: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
func (c *Client) webIdentity(ctx context.Context) (aws.Credentials, error) {
	token, err := readToken(os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"))
	if err != nil {
		return aws.Credentials{}, err
	}
	base, err := c.base("sts", "AssumeRoleWithWebIdentity")
	if err != nil {
		return aws.Credentials{}, err
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {os.Getenv("AWS_ROLE_ARN")},
		"RoleSessionName": {first(os.Getenv("AWS_ROLE_SESSION_NAME"), "flotilla")}, "WebIdentityToken": {token},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/", strings.NewReader(form.Encode()))
	if err != nil {
		return aws.Credentials{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := fetch(c.http, req)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("the web identity: %w", err)
	}
	var answer struct {
		Credentials struct {
			AccessKeyId, SecretAccessKey, SessionToken string
			Expiration                                 time.Time
		} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return aws.Credentials{}, errors.New("the web identity's answer is not XML")
	}
	got := answer.Credentials
	return temporary{AccessKeyId: got.AccessKeyId, SecretAccessKey: got.SecretAccessKey, Token: got.SessionToken, Expiration: got.Expiration}.credentials("web identity")
}
