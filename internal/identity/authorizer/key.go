package authorizer

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
)

const (
	minKeyBits = 2048
	maxKeyBits = 8192 // more costs too much to verify with
	maxKeyPEM  = 5120 // AWS's limit of a KeyValue
	maxKeys    = 10   // an attempt of one token costs as many verifications
)

var (
	validKeyName      = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)
	validTokenKeyName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
)

// check holds an authorizer against AWS's rules.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/config-custom-auth.html
func (r *record) check() error {
	a, ok := aws.ParseARN(r.functionARN)
	switch {
	case !ok || a.Service != "lambda" || !strings.HasPrefix(a.Resource, "function:"):
		return invalid("authorizerFunctionArn is not the ARN of a Lambda function.")
	case len(r.functionARN) > 2048:
		return invalid("authorizerFunctionArn is longer than 2048 characters.")
	case r.status != iot.AuthorizerStatusActive && r.status != iot.AuthorizerStatusInactive:
		return invalid("Invalid status: %s", r.status)
	case r.tokenKeyName != "" && !validTokenKeyName.MatchString(r.tokenKeyName):
		return invalid("Invalid tokenKeyName.")
	case !r.signingDisabled && r.tokenKeyName == "":
		return invalid("tokenKeyName is required unless signing is disabled.")
	case !r.signingDisabled && len(r.signingKeys) == 0:
		return invalid("tokenSigningPublicKeys is required unless signing is disabled.")
	case len(r.signingKeys) > maxKeys:
		return invalid("There are more than %d tokenSigningPublicKeys.", maxKeys)
	}
	for _, name := range slices.Sorted(maps.Keys(r.signingKeys)) {
		if !validKeyName.MatchString(name) {
			return invalid("Invalid key name in tokenSigningPublicKeys.")
		}
		if _, err := parseKey(r.signingKeys[name]); err != nil {
			return invalid("Public key %s in tokenSigningPublicKeys: %v.", name, err)
		}
	}
	return nil
}

// parseKey reads an RSA public key in PEM: SubjectPublicKeyInfo, or PKCS #1.
func parseKey(text string) (*rsa.PublicKey, error) {
	if len(text) > maxKeyPEM {
		return nil, errors.New("it is longer than 5120 characters")
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("it is not one PEM block")
	}
	var key *rsa.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("it does not parse")
		}
		var ok bool
		if key, ok = k.(*rsa.PublicKey); !ok {
			return nil, errors.New("it is not an RSA key")
		}
	case "RSA PUBLIC KEY":
		k, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("it does not parse")
		}
		key = k
	default:
		return nil, errors.New("it is not a PUBLIC KEY")
	}
	if n := key.N.BitLen(); n < minKeyBits || n > maxKeyBits {
		return nil, errors.New("it must have 2048 to 8192 bits")
	}
	return key, nil
}

// maxSignature is AWS's limit of a TokenSignature, in characters.
const maxSignature = 2560

// verify tells whether signature, in base64, is that of token by one of keys: RSA PKCS #1 v1.5 over SHA-256.
func verify(keys []*rsa.PublicKey, token, signature string) bool {
	if len(signature) > maxSignature {
		return false
	}
	// Signatures that were not escaped have lost their plus signs to the decoding of the query string.
	sig, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(signature, " ", "+"))
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(token))
	for _, k := range keys {
		if rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil {
			return true
		}
	}
	return false
}
