package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// maxSameSubject is how many CA certificates may have the same subject.
// AWS: https://docs.aws.amazon.com/general/latest/gr/iot-core.html#security-limits
const maxSameSubject = 10

// Tags keeps the tags of CA certificates and certificate providers.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

func (c *Certificates) caARN(id string) string { return c.account.ARN("iot", "cacert/"+id) }

// nameID is what a subject, or an issuer, is found by.
func nameID(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// GetRegistrationCode gives the code of the account: a verification certificate proves with it that who registers a CA
// certificate has its key. It is made when first asked for, and the same until it is deleted.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetRegistrationCode.html
func (c *Certificates) GetRegistrationCode(ctx context.Context, _ *iot.GetRegistrationCodeRequest) (*iot.GetRegistrationCodeResponse, error) {
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	code := ""
	err := c.db.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
		code, err = selectRegistrationCode(tx, c.account.ID)
		if errors.Is(err, store.ErrNotFound) {
			code = hex.EncodeToString(secret[:])
			err = insertRegistrationCode(tx, c.account.ID, code, c.now().UnixMilli())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.GetRegistrationCodeResponse{RegistrationCode: &code}, nil
}

// DeleteRegistrationCode deletes the code, so that verification certificates made with it are of no more use.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteRegistrationCode.html
func (c *Certificates) DeleteRegistrationCode(ctx context.Context, _ *iot.DeleteRegistrationCodeRequest) (*iot.DeleteRegistrationCodeResponse, error) {
	err := c.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		if deleted, err := deleteRegistrationCode(tx, c.account.ID); err != nil {
			return err
		} else if !deleted {
			return &iot.ResourceNotFoundException{Message: "The account has no registration code."}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteRegistrationCodeResponse{}, nil
}

// RegisterCACertificate registers a certificate authority, whose certificates can then be registered: by
// RegisterCertificate, or when they first connect if auto-registration is allowed. In mode DEFAULT the caller proves by
// a verification certificate, signed by the authority and with the registration code as its common name, to have the
// authority's key; in mode SNI_ONLY there is no proof. It may be a root or an intermediate authority: it is the one
// that signed the certificates that counts, and no other in the chain.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RegisterCACertificate.html
func (c *Certificates) RegisterCACertificate(ctx context.Context, in *iot.RegisterCACertificateRequest) (*iot.RegisterCACertificateResponse, error) {
	r, cert, err := c.newCA(ctx, in)
	if err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 && c.tags == nil {
		return nil, &iot.InvalidRequestException{Message: "tags of CA certificates are not supported"}
	}
	err = c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if r.mode == iot.CertificateModeDefault {
			code, err := selectRegistrationCode(tx, c.account.ID)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if err := c.verifyPossession(cert, *in.VerificationCertificate, code); err != nil {
				return err
			}
		}
		same, err := selectCAsBySubject(tx, r.subject, maxSameSubject)
		if err != nil {
			return err
		}
		if _, err := selectCA(tx, r.id); err == nil {
			return &iot.ResourceAlreadyExistsException{
				Message: "The CA certificate is already registered", ResourceId: r.id, ResourceArn: c.caARN(r.id),
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if len(same) >= maxSameSubject {
			return &iot.LimitExceededException{Message: fmt.Sprintf("%d CA certificates with this subject are registered, the most allowed.", len(same))}
		}
		if err := insertCA(tx, r); err != nil {
			return err
		}
		if len(in.Tags) == 0 {
			return nil
		}
		_, err = c.tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: c.caARN(r.id), Tags: in.Tags})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.RegisterCACertificateResponse{CertificateArn: new(c.caARN(r.id)), CertificateId: &r.id}, nil
}

// newCA is the row of a request that is as it should be but for its proof of possession.
func (c *Certificates) newCA(ctx context.Context, in *iot.RegisterCACertificateRequest) (*caRecord, *x509.Certificate, error) {
	mode := iot.CertificateModeDefault
	if in.CertificateMode != nil {
		mode = *in.CertificateMode
	}
	switch hasProof := in.VerificationCertificate != nil && *in.VerificationCertificate != ""; {
	case mode == iot.CertificateModeDefault && !hasProof:
		return nil, nil, &iot.InvalidRequestException{Message: "verificationCertificate is required in certificate mode DEFAULT"}
	case mode == iot.CertificateModeSniOnly && hasProof:
		return nil, nil, &iot.InvalidRequestException{Message: "verificationCertificate must be empty in certificate mode SNI_ONLY"}
	}
	cert, err := c.acceptableCA(in.CaCertificate)
	if err != nil {
		return nil, nil, err
	}
	for _, own := range c.authority.issuers() { // or certificates that were deleted could come back
		if bytes.Equal(own.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) {
			return nil, nil, &iot.InvalidRequestException{Message: "This is the deployment's own authority: its certificates are registered when they are issued."}
		}
	}
	now := c.now().UnixMilli()
	r := &caRecord{
		id: CertificateID(cert), der: cert.Raw, subject: nameID(cert.RawSubject), status: iot.CACertificateStatusInactive, mode: mode,
		autoRegistration: in.AllowAutoRegistration != nil && *in.AllowAutoRegistration,
		notBefore:        cert.NotBefore.UnixMilli(), notAfter: cert.NotAfter.UnixMilli(),
		created: now, modified: now, revision: 1, generation: uuid.NewString(),
	}
	if in.SetAsActive != nil && *in.SetAsActive {
		r.status = iot.CACertificateStatusActive
	}
	return r, cert, c.configure(ctx, r, in.RegistrationConfig)
}

// configure sets what is done with certificates that are registered when they first connect.
func (c *Certificates) configure(ctx context.Context, r *caRecord, cfg *iot.RegistrationConfig) error {
	if cfg == nil {
		return nil
	}
	body, name := value(cfg.TemplateBody), value(cfg.TemplateName)
	switch {
	case body != "" && name != "":
		return &iot.InvalidRequestException{Message: "templateBody and templateName can't be given together"}
	case body == "" && name == "" && value(cfg.RoleArn) == "":
		return &iot.InvalidRequestException{Message: "registrationConfig is empty"}
	case body == "" && name == "":
		return &iot.InvalidRequestException{Message: "registrationConfig has neither templateBody nor templateName"}
	}
	if c.templates == nil {
		return &iot.InvalidRequestException{Message: "just-in-time provisioning is not available"}
	}
	if err := c.templates.CheckJustInTime(ctx, body, name); err != nil {
		return err
	}
	r.configured, r.templateBody, r.templateName, r.roleARN = true, body, name, value(cfg.RoleArn)
	return nil
}

// acceptableCA parses the certificate of an authority.
func (c *Certificates) acceptableCA(text string) (*x509.Certificate, error) {
	refuse := func(why string) (*x509.Certificate, error) {
		return nil, &iot.CertificateValidationException{Message: "Invalid CA certificate: " + why}
	}
	cert, err := parseCertificate(text)
	switch {
	case err != nil:
		return refuse(err.Error())
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return refuse("it is not that of an authority: basicConstraints must have CA true")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return refuse("its key usage does not allow it to sign certificates")
	case len(cert.RawSubject) == 0 || string(cert.RawSubject) == emptyName:
		return refuse("it has no subject")
	case !signatureAlgorithms[cert.SignatureAlgorithm]:
		return refuse("signature algorithm " + cert.SignatureAlgorithm.String() + " is not supported")
	case cert.NotAfter.Before(c.now()):
		return refuse("it has expired")
	case cert.NotBefore.After(c.now()):
		return refuse("it is not valid yet")
	}
	if err := strongKey(cert.PublicKey); err != nil {
		return refuse(err.Error())
	}
	if bytes.Equal(cert.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(cert) != nil {
		return refuse("it is self-signed but its signature does not verify")
	}
	return cert, nil
}

// verifyPossession takes a verification certificate: signed by ca, its common name the registration code.
func (c *Certificates) verifyPossession(ca *x509.Certificate, text, code string) error {
	refuse := func(why string) error {
		return &iot.CertificateValidationException{Message: "Invalid verification certificate: " + why}
	}
	proof, err := parseCertificate(text)
	switch {
	case err != nil:
		return refuse(err.Error())
	case !bytes.Equal(proof.RawIssuer, ca.RawSubject) || proof.CheckSignatureFrom(ca) != nil:
		return refuse("it was not signed by the CA certificate")
	case proof.NotAfter.Before(c.now()):
		return refuse("it has expired")
	case code == "" || proof.Subject.CommonName != code:
		return &iot.RegistrationCodeValidationException{Message: "The common name of the verification certificate is not the registration code."}
	}
	return nil
}

// noCA turns a row that is not there into AWS's exception.
func noCA(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf("CA certificate id %s does not exist.", id)}
	}
	return err
}

func value(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func enabled(on bool) string {
	if on {
		return iot.AutoRegistrationStatusEnable
	}
	return iot.AutoRegistrationStatusDisable
}

// DescribeCACertificate gives a CA certificate and what is known of it.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeCACertificate.html
func (c *Certificates) DescribeCACertificate(ctx context.Context, in *iot.DescribeCACertificateRequest) (*iot.DescribeCACertificateResponse, error) {
	var r *caRecord
	err := c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = selectCA(tx, normalID(in.CertificateId))
		return err
	})
	if err != nil {
		return nil, noCA(err, in.CertificateId)
	}
	out := &iot.DescribeCACertificateResponse{CertificateDescription: &iot.CACertificateDescription{
		CertificateArn: new(c.caARN(r.id)), CertificateId: &r.id, Status: &r.status, CertificatePem: new(string(encodeCertificate(r.der))),
		OwnedBy: new(c.account.ID), CreationDate: date(r.created), LastModifiedDate: date(r.modified), CustomerVersion: new(int32(r.revision)),
		GenerationId: &r.generation, CertificateMode: &r.mode, AutoRegistrationStatus: new(enabled(r.autoRegistration)),
		Validity: &iot.CertificateValidity{NotBefore: date(r.notBefore), NotAfter: date(r.notAfter)},
	}}
	if r.configured {
		out.RegistrationConfig = &iot.RegistrationConfig{TemplateBody: optional(r.templateBody), TemplateName: optional(r.templateName), RoleArn: optional(r.roleARN)}
	}
	return out, nil
}

// UpdateCACertificate changes status, auto-registration and registrationConfig; what is not given stays. With
// removeAutoRegistration there is none of either any more. Certificates that are registered stay as they are.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateCACertificate.html
func (c *Certificates) UpdateCACertificate(ctx context.Context, in *iot.UpdateCACertificateRequest) (*iot.UpdateCACertificateResponse, error) {
	remove := in.RemoveAutoRegistration != nil && *in.RemoveAutoRegistration
	switch {
	case remove && (in.RegistrationConfig != nil || value(in.NewAutoRegistrationStatus) == iot.AutoRegistrationStatusEnable):
		return nil, &iot.InvalidRequestException{Message: "removeAutoRegistration can't be given with registrationConfig or newAutoRegistrationStatus ENABLE"}
	case !remove && in.NewStatus == nil && in.NewAutoRegistrationStatus == nil && in.RegistrationConfig == nil:
		return nil, &iot.InvalidRequestException{Message: "nothing to update"}
	}
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectCA(tx, normalID(in.CertificateId))
		if err != nil {
			return noCA(err, in.CertificateId)
		}
		if in.NewStatus != nil {
			r.status = *in.NewStatus
		}
		if in.NewAutoRegistrationStatus != nil {
			r.autoRegistration = *in.NewAutoRegistrationStatus == iot.AutoRegistrationStatusEnable
		}
		if err := c.configure(ctx, r, in.RegistrationConfig); err != nil {
			return err
		}
		if remove {
			r.autoRegistration, r.configured, r.templateBody, r.templateName, r.roleARN = false, false, "", "", ""
		}
		r.modified, r.generation = c.now().UnixMilli(), uuid.NewString()
		r.revision++
		return updateCA(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateCACertificateResponse{}, nil
}

// DeleteCACertificate deletes a CA certificate that is INACTIVE. Certificates that it signed and that are registered
// stay.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteCACertificate.html
func (c *Certificates) DeleteCACertificate(ctx context.Context, in *iot.DeleteCACertificateRequest) (*iot.DeleteCACertificateResponse, error) {
	id := normalID(in.CertificateId)
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectCA(tx, id)
		if err != nil {
			return noCA(err, in.CertificateId)
		}
		if r.status == iot.CACertificateStatusActive {
			return &iot.CertificateStateException{Message: "The CA certificate must be deactivated (not ACTIVE) before deletion."}
		}
		if c.tags != nil {
			if err := c.tags.DeleteTags(ctx, c.caARN(id)); err != nil {
				return err
			}
		}
		return deleteCA(tx, id)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteCACertificateResponse{}, nil
}

// ListCACertificates lists in order of registration, the newest first unless ascendingOrder; with templateName those
// alone that provision by it.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListCACertificates.html
func (c *Certificates) ListCACertificates(ctx context.Context, in *iot.ListCACertificatesRequest) (*iot.ListCACertificatesResponse, error) {
	p, err := newPaging(in.Marker, in.PageSize, in.AscendingOrder)
	if err != nil {
		return nil, err
	}
	out := &iot.ListCACertificatesResponse{}
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		page, err := selectCAs(tx, value(in.TemplateName), p.after, p.ascending, p.size+1)
		if err != nil {
			return err
		}
		out.Certificates, out.NextMarker = nil, nil
		if len(page) > p.size {
			page = page[:p.size]
			out.NextMarker = marker(page[p.size-1].created, page[p.size-1].id)
		}
		for _, r := range page {
			out.Certificates = append(out.Certificates, &iot.CACertificate{
				CertificateArn: new(c.caARN(r.id)), CertificateId: &r.id, Status: &r.status, CreationDate: date(r.created),
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ListCertificatesByCA lists the certificates that a registered authority has signed, as ListCertificates does.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListCertificatesByCA.html
func (c *Certificates) ListCertificatesByCA(ctx context.Context, in *iot.ListCertificatesByCARequest) (*iot.ListCertificatesByCAResponse, error) {
	p, err := newPaging(in.Marker, in.PageSize, in.AscendingOrder)
	if err != nil {
		return nil, err
	}
	out := &iot.ListCertificatesByCAResponse{}
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		out.Certificates, out.NextMarker, err = c.page(tx, normalID(in.CaCertificateId), p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
