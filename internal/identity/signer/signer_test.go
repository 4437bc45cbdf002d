package signer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/identity/signer"
)

// keeper answers as the package's documentation says.
func keeper(key crypto.Signer) func([]byte) (any, error) {
	return func(request []byte) (any, error) {
		var in struct {
			Version              int
			Operation, Algorithm string
			Digest               []byte
		}
		if err := json.Unmarshal(request, &in); err != nil || in.Version != 1 {
			return nil, fmt.Errorf("request %s", request)
		}
		if in.Operation == "public-key" {
			der, err := x509.MarshalPKIXPublicKey(key.Public())
			return map[string]string{"publicKey": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, err
		}
		want := "ECDSA_SHA_256"
		if _, ok := key.(*rsa.PrivateKey); ok {
			want = "RSASSA_PKCS1_V1_5_SHA_256"
		}
		if in.Operation != "sign" || in.Algorithm != want {
			return nil, fmt.Errorf("%s of %s", in.Operation, in.Algorithm)
		}
		signature, err := key.Sign(rand.Reader, in.Digest, crypto.SHA256)
		return map[string][]byte{"signature": signature}, err
	}
}

func serve(t *testing.T, answer func([]byte) (any, error)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		out, err := answer(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/sign"
}

func TestService(t *testing.T) {
	digest := sha256.Sum256([]byte("hello"))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signer.Open(t.Context(), serve(t, keeper(ec)))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := s.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(&ec.PublicKey, digest[:], signature) || !ec.PublicKey.Equal(s.Public()) {
		t.Errorf("ECDSA: %v", err)
	}
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = signer.Open(t.Context(), serve(t, keeper(rk))); err != nil {
		t.Fatal(err)
	}
	signature, err = s.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || rsa.VerifyPKCS1v15(&rk.PublicKey, crypto.SHA256, digest[:], signature) != nil {
		t.Errorf("RSA: %v", err)
	}
	if _, err := s.Sign(rand.Reader, digest[:], &rsa.PSSOptions{Hash: crypto.SHA256}); err == nil {
		t.Error("signed with PSS")
	}
	if _, err := s.Sign(rand.Reader, digest[:20], crypto.SHA1); err == nil {
		t.Error("signed SHA-1")
	}
}

// A program: here a shell script in front of openssl.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := keeper(key)([]byte(`{"version":1,"operation":"public-key"}`))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(answer)
	script := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
		return "exec:" + path
	}
	if err := os.WriteFile(filepath.Join(dir, "public.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := signer.Open(t.Context(), script("sign", `
request=$(cat)
case "$request" in
*public-key*) cat "`+dir+`/public.json" ;;
*ECDSA_SHA_256*) echo '{"signature":"c2lnbmF0dXJl"}' ;;
*) echo "no such operation" >&2; exit 3 ;;
esac
`))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	if got, err := s.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil || string(got) != "signature" {
		t.Errorf("%q, %v", got, err)
	}
	wide := make([]byte, 64)
	if _, err := s.Sign(rand.Reader, wide, crypto.SHA512); err == nil || !strings.Contains(err.Error(), "no such operation") {
		t.Errorf("a program that fails: %v", err)
	}
	for name, c := range map[string]struct{ address, want string }{
		"endless answer": {script("endless", "yes"), "longer than"},
		"nonsense":       {script("nonsense", "echo hello"), "not understood"},
		"nothing":        {script("nothing", "exit 0"), "not understood"},
		"no key":         {script("nokey", "echo '{}'"), "publicKey"},
		"absent":         {"exec:" + dir + "/absent", "no such file"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := signer.Open(ctx, c.address); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"pkcs11:token=flotilla;object=issuing": "PKCS#11",
		"http://kms.example.com/sign":          "use https",
		"exec:":                                "no program",
		"https://":                             "not a URL",
		"/usr/bin/sign":                        "none of",
		"":                                     "none of",
		"http://127.0.0.1:1/sign":              "refused",
	} {
		if _, err := signer.Open(t.Context(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", address, err)
		}
	}
	moved := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer moved.Close()
	if _, err := signer.Open(t.Context(), moved.URL); err == nil || !strings.Contains(err.Error(), "status 302") {
		t.Errorf("redirected: %v", err)
	}
}
