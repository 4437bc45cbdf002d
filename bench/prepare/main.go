// Command prepare readies a running server for a benchmark, through the public
// API: a policy that allows everything, and client certificates registered with it.
//
//	prepare -data DIR [-certs DIR]     DIR/clients/*.crt, made if missing
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server"
)

func main() {
	data := flag.String("data", "", "data directory of the running server")
	certs := flag.String("certs", "", "directory for client certificates")
	n := flag.Int("n", 100, "client certificates")
	flag.Parse()
	if err := run(context.Background(), *data, *certs, *n); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, data, certs string, n int) error {
	b, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
	if err != nil {
		return err
	}
	var e server.Endpoints
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	access, secret, err := server.ReadCredentials(filepath.Join(data, "credentials"))
	if err != nil {
		return err
	}
	c := iot.New(iot.Options{
		Region: "us-east-1", BaseEndpoint: &e.API, Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
	})
	doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	_, err = c.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("bench"), PolicyDocument: &doc})
	var exists *types.ResourceAlreadyExistsException
	if err != nil && !errors.As(err, &exists) {
		return err
	}
	if certs == "" {
		return nil
	}
	dir := filepath.Join(certs, "clients")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range n {
		text, err := certificate(dir, i)
		if err != nil {
			return err
		}
		out, err := c.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCAInput{CertificatePem: &text, Status: types.CertificateStatusActive})
		if err != nil {
			return err
		}
		if _, err := c.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: new("bench"), Target: out.CertificateArn}); err != nil {
			return err
		}
	}
	return nil
}

// certificate makes a self-signed client certificate and its key, and returns its PEM.
func certificate(dir string, i int) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return "", err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("device-%d", i)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return "", err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	name := filepath.Join(dir, fmt.Sprintf("%05d", i))
	return string(text), errors.Join(
		os.WriteFile(name+".crt", text, 0o600),
		os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600),
	)
}
