package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// Functions is what this room asks of function.
type Functions interface {
	// Invoke gives a JSON document to a function and returns the one that it answers. The context carries the deadline.
	Invoke(ctx context.Context, functionARN string, payload []byte) ([]byte, error)
}

// UseFunctions plugs in what certificate providers call. Call it once, before the first request; without it none can be
// made.
func (c *Certificates) UseFunctions(f Functions) { c.functions = f }

const (
	// defaultProviderTimeout is AWS's.
	defaultProviderTimeout = 5 * time.Second

	maxProviderAnswer = 64 << 10 // bytes
)

// provider is a row of certificate_provider.
type provider struct {
	name, function    string
	created, modified int64 // ms
}

func (c *Certificates) providerARN(name string) string {
	return c.account.ARN("iot", "certificateprovider/"+name)
}

// CreateCertificateProvider has a function sign the CSRs of fleet provisioning from now on: those that devices send to
// $aws/certificates/create-from-csr. There can be one provider. That its function exists is not checked.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateProvider.html
func (c *Certificates) CreateCertificateProvider(ctx context.Context, in *iot.CreateCertificateProviderRequest) (*iot.CreateCertificateProviderResponse, error) {
	if err := c.checkProvider(in.LambdaFunctionArn, in.AccountDefaultForOperations); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 && c.tags == nil {
		return nil, &iot.InvalidRequestException{Message: "tags of certificate providers are not supported"}
	}
	now := c.now().UnixMilli()
	arn := c.providerARN(in.CertificateProviderName)
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		old, err := selectProvider(tx)
		switch {
		case err == nil && old.name == in.CertificateProviderName:
			return &iot.ResourceAlreadyExistsException{Message: "Certificate provider " + old.name + " exists already.", ResourceId: old.name, ResourceArn: arn}
		case err == nil:
			return &iot.LimitExceededException{Message: "There is a certificate provider already, " + old.name + "; an account can have one."}
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if err := insertProvider(tx, &provider{in.CertificateProviderName, in.LambdaFunctionArn, now, now}); err != nil || len(in.Tags) == 0 {
			return err
		}
		_, err = c.tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: arn, Tags: in.Tags})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateCertificateProviderResponse{CertificateProviderName: &in.CertificateProviderName, CertificateProviderArn: &arn}, nil
}

// checkProvider checks what a provider is to be.
func (c *Certificates) checkProvider(function string, operations []string) error {
	switch {
	case c.functions == nil:
		return &iot.InvalidRequestException{Message: "Certificate providers need functions, which are not available."}
	case function == "":
		return &iot.InvalidRequestException{Message: "lambdaFunctionArn cannot be empty."}
	case len(operations) != 1 || operations[0] != iot.CertificateProviderOperationCreateCertificateFromCsr:
		return &iot.InvalidRequestException{Message: "accountDefaultForOperations must be CreateCertificateFromCsr."}
	}
	return nil
}

// UpdateCertificateProvider gives the provider another function.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateCertificateProvider.html
func (c *Certificates) UpdateCertificateProvider(ctx context.Context, in *iot.UpdateCertificateProviderRequest) (*iot.UpdateCertificateProviderResponse, error) {
	err := c.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		p, err := c.namedProvider(tx, in.CertificateProviderName)
		if err != nil {
			return err
		}
		operations := in.AccountDefaultForOperations
		if operations == nil {
			operations = []string{iot.CertificateProviderOperationCreateCertificateFromCsr}
		}
		if in.LambdaFunctionArn != nil {
			p.function = *in.LambdaFunctionArn
		}
		if err := c.checkProvider(p.function, operations); err != nil {
			return err
		}
		p.modified = c.now().UnixMilli()
		return updateProvider(tx, p)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateCertificateProviderResponse{
		CertificateProviderName: &in.CertificateProviderName, CertificateProviderArn: new(c.providerARN(in.CertificateProviderName)),
	}, nil
}

// DescribeCertificateProvider gives a provider.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeCertificateProvider.html
func (c *Certificates) DescribeCertificateProvider(ctx context.Context, in *iot.DescribeCertificateProviderRequest) (*iot.DescribeCertificateProviderResponse, error) {
	var p *provider
	err := c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		p, err = c.namedProvider(tx, in.CertificateProviderName)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.DescribeCertificateProviderResponse{
		CertificateProviderName: &p.name, CertificateProviderArn: new(c.providerARN(p.name)), LambdaFunctionArn: &p.function,
		AccountDefaultForOperations: []string{iot.CertificateProviderOperationCreateCertificateFromCsr},
		CreationDate:                date(p.created), LastModifiedDate: date(p.modified),
	}, nil
}

// ListCertificateProviders lists the provider, if there is one.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListCertificateProviders.html
func (c *Certificates) ListCertificateProviders(ctx context.Context, in *iot.ListCertificateProvidersRequest) (*iot.ListCertificateProvidersResponse, error) {
	if in.NextToken != nil && *in.NextToken != "" {
		return nil, &iot.InvalidRequestException{Message: "Invalid nextToken"} // none is ever given
	}
	p, err := c.anyProvider(ctx)
	if err != nil || p == nil {
		return &iot.ListCertificateProvidersResponse{}, err
	}
	return &iot.ListCertificateProvidersResponse{CertificateProviders: []*iot.CertificateProviderSummary{
		{CertificateProviderName: &p.name, CertificateProviderArn: new(c.providerARN(p.name))},
	}}, nil
}

// DeleteCertificateProvider has the deployment's own authority sign again. What the provider has signed stays valid.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteCertificateProvider.html
func (c *Certificates) DeleteCertificateProvider(ctx context.Context, in *iot.DeleteCertificateProviderRequest) (*iot.DeleteCertificateProviderResponse, error) {
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		p, err := c.namedProvider(tx, in.CertificateProviderName)
		if err != nil {
			return err
		}
		if c.tags != nil {
			if err := c.tags.DeleteTags(ctx, c.providerARN(p.name)); err != nil {
				return err
			}
		}
		return deleteProvider(tx, p.name)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteCertificateProviderResponse{}, nil
}

// namedProvider is the provider, which must have the name.
func (c *Certificates) namedProvider(tx store.Tx, name string) (*provider, error) {
	p, err := selectProvider(tx)
	if errors.Is(err, store.ErrNotFound) || err == nil && p.name != name {
		return nil, &iot.ResourceNotFoundException{Message: "Certificate provider " + name + " does not exist."}
	}
	return p, err
}

// anyProvider is the provider; nil when there is none.
func (c *Certificates) anyProvider(ctx context.Context) (p *provider, err error) {
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		p, err = selectProvider(tx)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return p, err
}

// providerRequest is what a provider's function is given, providerResponse what it answers.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/provisioning-cert-provider.html
type providerRequest struct {
	SigningRequest string `json:"certificateSigningRequest"` // PEM
	PrincipalID    string `json:"principalId"`               // of the connection
	ClientID       string `json:"clientId"`
}

type providerResponse struct {
	CertificatePEM string `json:"certificatePem"`
}

// issueByProvider has a provider's function sign a request. The certificate must be for its key and subject, and one that
// a device could connect with. What goes wrong is ServiceUnavailableException, which tells a device no details; the error
// around it tells them.
func (c *Certificates) issueByProvider(ctx context.Context, p *provider, csr string, principalID, clientID string) (*issued, error) {
	request, err := checkCSR(csr)
	if err != nil {
		return nil, err
	}
	refuse := func(why string) (*issued, error) {
		unavailable := &iot.ServiceUnavailableException{Message: "The certificate provider did not issue a certificate."}
		return nil, fmt.Errorf("certificate provider %s, function %s: %s: %w", p.name, p.function, why, unavailable)
	}
	if c.functions == nil {
		return refuse("functions are not available")
	}
	payload, err := json.Marshal(providerRequest{csr, principalID, clientID})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	answer, err := c.askProvider(ctx, p.function, payload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return refuse("it did not answer within " + c.cfg.ProviderTimeout.String())
	case err != nil:
		return refuse("it failed: " + err.Error())
	case len(answer) > maxProviderAnswer:
		return refuse("its answer is too long")
	}
	var response providerResponse
	if err := json.Unmarshal(answer, &response); err != nil || response.CertificatePEM == "" {
		return refuse("its answer is not a JSON object with a certificatePem")
	}
	cert, err := c.acceptable(response.CertificatePEM)
	switch {
	case err != nil:
		return refuse("its answer: " + err.Error())
	case !sameKey(cert, request):
		return refuse("its certificate is not for the key of the request")
	case cert.Subject.String() != request.Subject.String():
		return refuse(fmt.Sprintf("the subject of its certificate is %q, that of the request %q", cert.Subject, request.Subject))
	case cert.IsCA:
		return refuse("its certificate is that of an authority")
	case c.now().Before(cert.NotBefore):
		return refuse("its certificate is not valid yet")
	}
	return &issued{id: CertificateID(cert), pem: string(encodeCertificate(cert.Raw)), der: cert.Raw, notBefore: cert.NotBefore, notAfter: cert.NotAfter}, nil
}

// askProvider calls the function and stops waiting for it after Config.ProviderTimeout, whether or not it heeds its
// context.
func (c *Certificates) askProvider(ctx context.Context, function string, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProviderTimeout)
	defer cancel()
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := c.functions.Invoke(ctx, function, payload)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sameKey tells whether a certificate is for the key that signed a request.
func sameKey(cert *x509.Certificate, request *x509.CertificateRequest) bool {
	switch k := request.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return k.Equal(cert.PublicKey)
	case *rsa.PublicKey:
		return k.Equal(cert.PublicKey)
	}
	return false
}

func selectProvider(tx store.Tx) (*provider, error) {
	p := &provider{}
	err := tx.QueryRow(`SELECT name, function, created, modified FROM certificate_provider ORDER BY name LIMIT 1`).Scan(&p.name, &p.function, &p.created, &p.modified)
	return p, err
}

func insertProvider(tx store.Tx, p *provider) error {
	_, err := tx.Exec(`INSERT INTO certificate_provider (name, function, created, modified) VALUES ($1, $2, $3, $4)`, p.name, p.function, p.created, p.modified)
	return err
}

func updateProvider(tx store.Tx, p *provider) error {
	_, err := tx.Exec(`UPDATE certificate_provider SET function = $2, modified = $3 WHERE name = $1`, p.name, p.function, p.modified)
	return err
}

func deleteProvider(tx store.Tx, name string) error {
	_, err := tx.Exec(`DELETE FROM certificate_provider WHERE name = $1`, name)
	return err
}
