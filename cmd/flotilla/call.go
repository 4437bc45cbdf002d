package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"flotilla/internal/api/client"
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
	c, err := t.client()
	if err != nil {
		return err
	}
	return c.Call(context.Background(), service, method, path, in, out)
}

// client calls the server that runs on the data directory as its admin.
func (t *target) client() (*client.Client, error) {
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
