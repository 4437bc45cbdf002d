// Command prepare readies a benchmark: certificates for servers and devices, and
// a running flotilla server that accepts them, through its public API.
//
//	prepare -certs DIR               makes DIR/{ca,server}.{crt,key} and DIR/clients/*.{crt,key}, unless they are there
//	prepare -data DIR [-certs DIR]   a policy "bench" that allows everything; with -certs the clients' certificates, with it
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server"
)

func main() {
	data := flag.String("data", "", "data directory of the running server")
	certs := flag.String("certs", "", "directory for certificates")
	n := flag.Int("n", 100, "client certificates")
	flag.Parse()
	if err := run(context.Background(), *data, *certs, *n); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, data, certs string, n int) error {
	var clients []string
	if certs != "" {
		var err error
		if clients, err = makeCertificates(certs, n); err != nil {
			return err
		}
	}
	if data == "" {
		return nil
	}
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
	for _, text := range clients {
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
