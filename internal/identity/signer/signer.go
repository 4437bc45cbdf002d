// Package signer signs with a key that somebody else keeps: a program in front of an HSM, or a service in front of a
// key management system.
//
// An address says who:
//
//	exec:/usr/local/bin/sign --key issuing    a program, run once for each request, its request on standard input
//	https://kms.internal/sign, http://…       a service, the request POSTed to it; http on loopback alone
//
// Requests and answers are one JSON document each:
//
//	{"version":1,"operation":"public-key"}
//	    {"publicKey":"-----BEGIN PUBLIC KEY-----…"}
//	{"version":1,"operation":"sign","algorithm":"ECDSA_SHA_256","digest":"<base64>"}
//	    {"signature":"<base64>"}
//
// algorithm is ECDSA_SHA_256, _384 or _512 (the signature is ASN.1 DER), or RSASSA_PKCS1_V1_5_SHA_256, _384 or _512, as
// AWS KMS calls them. A program that fails exits with another status than 0, its reason on standard error; a service
// answers with another status than 200.
//
// A PKCS#11 module is a library of C, which a static binary can't load: put a program in front of it.
package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

const (
	timeout     = 10 * time.Second // of a request
	maxAnswer   = 64 << 10
	maxAtOnce   = 8 // requests; others wait for as long as a request may take
	maxReason   = 300
	version     = 1
	opPublicKey = "public-key"
	opSign      = "sign"
)

type request struct {
	Version   int    `json:"version"`
	Operation string `json:"operation"`
	Algorithm string `json:"algorithm,omitempty"`
	Digest    []byte `json:"digest,omitempty"`
}

type answer struct {
	PublicKey string `json:"publicKey"`
	Signature []byte `json:"signature"`
}

// remote is a crypto.Signer whose key is elsewhere. It is safe for concurrent use.
type remote struct {
	ask    func(ctx context.Context, request []byte) ([]byte, error)
	places chan struct{}
	public crypto.PublicKey
}

// Open asks the signer at an address for its public key, which is ECDSA or RSA.
func Open(ctx context.Context, address string) (crypto.Signer, error) {
	ask, err := dial(address)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	r := &remote{ask: ask, places: make(chan struct{}, maxAtOnce)}
	a, err := r.call(ctx, &request{Operation: opPublicKey})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(a.PublicKey))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("signer: its publicKey is not a PEM block of type PUBLIC KEY")
	}
	if r.public, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, fmt.Errorf("signer: its publicKey: %w", err)
	}
	switch r.public.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
		return r, nil
	}
	return nil, errors.New("signer: its key is neither ECDSA nor RSA")
}

// Public implements crypto.Signer.
func (r *remote) Public() crypto.PublicKey { return r.public }

// Sign implements crypto.Signer for digests of SHA-256, SHA-384 and SHA-512.
func (r *remote) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, errors.New("signer: RSA-PSS is not supported")
	}
	var size string
	switch opts.HashFunc() {
	case crypto.SHA256:
		size = "256"
	case crypto.SHA384:
		size = "384"
	case crypto.SHA512:
		size = "512"
	default:
		return nil, fmt.Errorf("signer: digests of %v are not supported", opts.HashFunc())
	}
	algorithm := "ECDSA_SHA_" + size
	if _, ok := r.public.(*rsa.PublicKey); ok {
		algorithm = "RSASSA_PKCS1_V1_5_SHA_" + size
	}
	a, err := r.call(context.Background(), &request{Operation: opSign, Algorithm: algorithm, Digest: digest})
	if err != nil {
		return nil, err
	}
	if len(a.Signature) == 0 {
		return nil, errors.New("signer: it answered without a signature")
	}
	return a.Signature, nil // who asked verifies it
}

func (r *remote) call(ctx context.Context, in *request) (*answer, error) {
	in.Version = version
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	case <-ctx.Done():
		return nil, errors.New("signer: too many requests wait for it")
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	out, err := r.ask(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("signer: %s: %w", in.Operation, err)
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		return nil, fmt.Errorf("signer: %s: its answer is not understood: %w", in.Operation, err)
	}
	return &a, nil
}

func dial(address string) (func(context.Context, []byte) ([]byte, error), error) {
	scheme, rest, _ := strings.Cut(address, ":")
	switch scheme {
	case "exec":
		words := strings.Fields(rest)
		if len(words) == 0 {
			return nil, errors.New("exec: names no program")
		}
		return program(words), nil
	case "http", "https":
		u, err := url.Parse(address)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%q is not a URL", address)
		}
		if scheme == "http" && !loopback(u.Hostname()) {
			return nil, errors.New("http is for loopback alone: use https")
		}
		return service(address), nil
	case "pkcs11":
		return nil, errors.New("PKCS#11 modules are not supported: a static binary can't load them; name a program in front of the module, as exec:PROGRAM")
	}
	return nil, fmt.Errorf("%q is none of exec:PROGRAM, https://… and http://LOOPBACK…", address)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// program runs a program for each request.
func program(words []string) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, request []byte) ([]byte, error) {
		var out, reason bounded
		out.most, out.strict, reason.most = maxAnswer, true, maxReason
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &out, &reason
		cmd.WaitDelay = time.Second
		err := cmd.Run()
		switch {
		case out.over:
			return nil, errTooLong
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the program took longer than %s", timeout)
		case err != nil:
			return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(reason.kept)))
		}
		return out.kept, nil
	}
}

var errTooLong = fmt.Errorf("its answer is longer than %d bytes", maxAnswer)

// bounded keeps the first bytes that are written to it; with strict, more are an error, which ends the program.
type bounded struct {
	kept   []byte
	most   int
	strict bool
	over   bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.most-len(b.kept))
	b.over = b.over || n < len(p)
	b.kept = append(b.kept, p[:n]...)
	if b.over && b.strict {
		return n, errTooLong
	}
	return len(p), nil
}

// service POSTs each request.
func service(address string) func(context.Context, []byte) ([]byte, error) {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, request []byte) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(request))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("status %d: %s", resp.StatusCode, text[:min(len(text), maxReason)])
		case len(text) > maxAnswer:
			return nil, errTooLong
		}
		return text, nil
	}
}
