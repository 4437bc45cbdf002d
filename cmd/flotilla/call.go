package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"flotilla/internal/api/client"
	"flotilla/internal/server"
)

// target is the server that an operator's command talks to.
type target struct {
	Endpoint string `name:"endpoint" placeholder:"URL" help:"API of a server elsewhere; the key to sign with is in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."`
	Data     string `name:"data" default:"./flotilla-data" placeholder:"DIR" help:"Data directory of the running server: where it listens, and the key to sign with."`
}

// call sends a signed request to the operator's API and decodes the answer.
func (t *target) call(method, path string, in, out any) error {
	return t.callService("flotilla", method, path, in, out)
}

// callService is call for the API that a SigV4 service name stands for.
func (t *target) callService(service, method, path string, in, out any) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	return c.Call(context.Background(), service, method, path, in, out)
}

// client calls a server elsewhere, or the one that runs on the data directory as its admin.
func (t *target) client() (*client.Client, error) {
	if t.Endpoint != "" {
		access, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
		if access == "" || secret == "" {
			return nil, usageError{errors.New("--endpoint takes a key: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")}
		}
		return client.New(strings.TrimSuffix(t.Endpoint, "/"), "us-east-1", access, secret), nil
	}
	var endpoints server.Endpoints
	text, err := os.ReadFile(filepath.Join(t.Data, "endpoints.json"))
	if err != nil {
		return nil, fmt.Errorf("no server runs on the data directory %s", t.Data)
	}
	if err := json.Unmarshal(text, &endpoints); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(t.Data, "endpoints.json"), err)
	}
	access, secret, err := server.ReadCredentials(filepath.Join(t.Data, "credentials"))
	if err != nil {
		return nil, err
	}
	return client.New(endpoints.API, "us-east-1", access, secret), nil
}
