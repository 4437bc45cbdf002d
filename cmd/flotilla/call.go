package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"flotilla/internal/server"
)

// target is the server that an operator's command talks to.
type target struct {
	Data string `name:"data" default:"./flotilla-data" placeholder:"DIR" help:"Data directory of the running server: where it listens, and the key to sign with."`
}

// call sends a signed request to the operator's API and decodes the answer.
func (t *target) call(method, path string, in, out any) error {
	return t.callService("flotilla", method, path, in, out)
}

// callService is call for the API that a SigV4 service name stands for.
func (t *target) callService(service, method, path string, in, out any) error {
	var endpoints server.Endpoints
	text, err := os.ReadFile(filepath.Join(t.Data, "endpoints.json"))
	if err != nil {
		return fmt.Errorf("no server runs on the data directory %s", t.Data)
	}
	if err := json.Unmarshal(text, &endpoints); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(t.Data, "endpoints.json"), err)
	}
	access, secret, err := server.ReadCredentials(filepath.Join(t.Data, "credentials"))
	if err != nil {
		return err
	}
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, endpoints.API+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, req, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now())
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Message string }
		if json.Unmarshal(answer, &e) != nil || e.Message == "" {
			e.Message = resp.Status
		}
		return fmt.Errorf("%s: %s", resp.Header.Get("X-Amzn-Errortype"), e.Message)
	}
	return json.Unmarshal(answer, out)
}
