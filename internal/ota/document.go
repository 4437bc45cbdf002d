package ota

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/ota/firmware"
)

const (
	maxDocument = 32_768  // characters of a job document
	readPart    = 1 << 20 // bytes of a file in memory while its signature is verified
)

// document is the job document that FreeRTOS's OTA agent reads.
//
// AWS: https://docs.aws.amazon.com/freertos/latest/userguide/ota-cloud-iot-job.html
func (p plan) document(protocols []string, stream string) (string, error) {
	type entry map[string]any
	files := make([]entry, 0, len(p))
	for _, f := range p {
		e := entry{"filepath": value(f.of.FileName), "filesize": f.Size, "fileid": f.ID}
		http := slices.Contains(protocols, iot.ProtocolHttp)
		if f.of.FileType != nil || http {
			e["fileType"] = value(f.of.FileType)
		}
		if http {
			e["auth_scheme"] = "aws.s3.presigned"
			e["update_data_url"] = "${aws:iot:s3-presigned-url:" + (&url.URL{Scheme: "https", Host: "s3.amazonaws.com", Path: "/" + f.Bucket + "/" + f.Key}).String() + "}"
		}
		if s := f.of.CodeSigning; s != nil {
			c := s.CustomCodeSigning
			e["certfile"] = value(value(c.CertificateChain).CertificateName)
			name, _ := signatureName(c)
			e[name] = signatureText(c.Signature.InlineDocument)
		}
		files = append(files, e)
	}
	ota := entry{"protocols": protocols, "files": files}
	if stream != "" && slices.Contains(protocols, iot.ProtocolMqtt) {
		ota["streamname"] = stream
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // the URL goes as it is
	if err := enc.Encode(entry{"afr_ota": ota}); err != nil {
		return "", err
	}
	if b.Len() > maxDocument {
		return "", invalid("The job document would have more than %d characters", maxDocument)
	}
	return strings.TrimSpace(b.String()), nil
}

// signatureName is the member of the document that has the signature, such as sig-sha256-ecdsa.
func signatureName(c *iot.CustomCodeSigning) (string, bool) {
	hash, algorithm := "sha256", "ecdsa"
	if c.HashAlgorithm != nil {
		hash = strings.ToLower(strings.ReplaceAll(*c.HashAlgorithm, "-", ""))
	}
	if c.SignatureAlgorithm != nil {
		algorithm = strings.ToLower(*c.SignatureAlgorithm)
	}
	return "sig-" + hash + "-" + algorithm, (hash == "sha256" || hash == "sha1") && (algorithm == "ecdsa" || algorithm == "rsa")
}

// signatureText is a signature as the document has it. One that is base64 already stays so: there are tools that encode twice,
// as AWS takes what it is given.
func signatureText(b []byte) string {
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b))); err == nil && len(raw) > 0 {
		return strings.TrimSpace(string(b))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// checkSigning refuses a way of signing that is not implemented, and a signature that is not that of the file, where the
// certificate is given.
func (o *OTA) checkSigning(ctx context.Context, i int, f *planned) error {
	s := f.of.CodeSigning
	if s == nil {
		return nil
	}
	c := s.CustomCodeSigning
	switch {
	case s.AwsSignerJobId != nil:
		return invalid("files[%d].codeSigning.awsSignerJobId: AWS Signer is not implemented; use customCodeSigning", i)
	case s.StartSigningJobParameter != nil:
		return invalid("files[%d].codeSigning.startSigningJobParameter: AWS Signer is not implemented; use customCodeSigning", i)
	case c == nil || c.Signature == nil || len(c.Signature.InlineDocument) == 0:
		return invalid("files[%d].codeSigning has no signature", i)
	}
	name, ok := signatureName(c)
	if !ok {
		return invalid("files[%d].codeSigning: the hash algorithm is SHA256 or SHA1, the signature algorithm ECDSA or RSA", i)
	}
	certificate := value(value(c.CertificateChain).InlineDocument)
	if certificate == "" {
		return nil
	}
	if !strings.HasPrefix(name, "sig-sha256-") {
		return invalid("files[%d].codeSigning: a signature by SHA-1 can't be verified; leave the certificate's inlineDocument out", i)
	}
	public, err := firmware.PublicKey([]byte(certificate))
	if err != nil {
		return invalid("files[%d].codeSigning.customCodeSigning.certificateChain.inlineDocument: %v", i, err)
	}
	digest, err := o.digest(ctx, &f.file)
	if _, refused := errors.AsType[*refusal](err); refused {
		return invalid("files[%d]: the object has changed since it was looked up", i)
	}
	if err != nil {
		o.Log.Warn("an object can't be read to verify its signature", "err", err)
		return invalid("files[%d]: the object can't be read to verify its signature", i)
	}
	raw, err := base64.StdEncoding.DecodeString(signatureText(c.Signature.InlineDocument))
	if err != nil || !firmware.Valid(public, digest, raw) {
		return invalid("files[%d]: the signature is not that of the file by the key of its certificate", i)
	}
	return nil
}

// digest is the SHA-256 of a file, read in parts.
func (o *OTA) digest(ctx context.Context, f *file) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, signedReadTime)
	defer cancel()
	h := sha256.New()
	for at := int64(0); at < f.Size; at += readPart {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part, err := o.readBlocks(ctx, f, at, readPart)
		if err != nil {
			return nil, err
		}
		h.Write(part)
	}
	return h.Sum(nil), nil
}
