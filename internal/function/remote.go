package function

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"flotilla/internal/aws"
)

// remotes are functions of AWS Lambda, or of what speaks its API. Requests are signed with the SDK's signer; the SDK's
// own client of Lambda would add nothing but its size.
type remotes struct{ client *http.Client }

var regionPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)

// open reads lambda://REGION/FUNCTION[?qualifier=Q][&endpoint=URL], where FUNCTION is a name or an ARN.
func (r *remotes) open(name string, address *url.URL) (kind, error) {
	function := strings.TrimPrefix(address.Path, "/")
	if a, ok := aws.ParseARN(function); ok && (a.Service != "lambda" || a.Region != address.Host) {
		return nil, errors.New("the ARN is not one of a function in the region")
	}
	q := address.Query()
	for key := range q {
		if key != "qualifier" && key != "endpoint" {
			return nil, fmt.Errorf("it has the parameter %q; qualifier and endpoint are known", key)
		}
	}
	if !regionPattern.MatchString(address.Host) || function == "" || address.User != nil || address.Fragment != "" {
		return nil, errors.New("it must be lambda://REGION/FUNCTION[?qualifier=Q][&endpoint=URL]")
	}
	base := q.Get("endpoint")
	if base == "" {
		base = "https://lambda." + address.Host + ".amazonaws.com"
		if strings.HasPrefix(address.Host, "cn-") {
			base += ".cn"
		}
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("its endpoint is not an http or https URL")
	}
	target := strings.TrimSuffix(base, "/") + "/2015-03-31/functions/" + url.PathEscape(function) + "/invocations"
	if v := q.Get("qualifier"); v != "" {
		target += "?Qualifier=" + url.QueryEscape(v)
	}
	return &remote{endpoint{name, target, r.client}, address.Host}, nil
}

// remote is one function behind Lambda's Invoke.
type remote struct {
	endpoint
	region string
}

// credentials are those of the environment, as every AWS SDK reads them.
//
// AWS: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
func credentials() (sdk.Credentials, error) {
	c := sdk.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")}
	if !c.HasKeys() {
		return c, errors.New("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set for the server")
	}
	return c, nil
}

// invoke calls Lambda's Invoke, and waits for the answer.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
func (r *remote) invoke(ctx context.Context, c *call) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(c.payload))
	if err != nil {
		return nil, r.unreached(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "flotilla")
	req.Header.Set("X-Amz-Invocation-Type", "RequestResponse")
	keys, err := credentials()
	if err != nil {
		return nil, r.unreached(err)
	}
	sum := sha256.Sum256(c.payload)
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), "lambda", r.region, time.Now()); err != nil {
		return nil, r.unreached(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, r.unreached(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPayload+1))
	switch kind := resp.Header.Get("X-Amz-Function-Error"); {
	case err != nil:
		return nil, r.unreached(err)
	case resp.StatusCode == http.StatusTooManyRequests:
		return nil, &ThrottledError{r.name}
	case resp.StatusCode != http.StatusOK:
		return nil, &FunctionError{r.name, "", bounded(resp.Header.Get("X-Amzn-Errortype")), bounded(fmt.Sprintf("status %d: %s", resp.StatusCode, body))}
	case len(body) > maxPayload:
		return nil, &FunctionError{r.name, "Unhandled", "", fmt.Sprintf("its answer is longer than %d bytes", maxPayload)}
	case kind != "":
		return nil, failure(r.name, bounded(kind), body)
	}
	return body, nil
}
