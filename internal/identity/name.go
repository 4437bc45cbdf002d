package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"net"
	"sync"

	"flotilla/internal/policy/lang"
)

// CertificateID is the id that AWS IoT gives a certificate: the lower-case hex SHA-256 of its DER encoding.
func CertificateID(c *x509.Certificate) string { return certificateID(c.Raw) }

func certificateID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// attributeNames are the attributes of a distinguished name that policies may ask for.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cert-policy-variables.html
var attributeNames = map[string]string{
	"2.5.4.3": "CommonName", "2.5.4.4": "Surname", "2.5.4.5": "SerialNumber", "2.5.4.6": "Country", "2.5.4.8": "State",
	"2.5.4.10": "Organization", "2.5.4.11": "OrganizationalUnit", "2.5.4.12": "Title", "2.5.4.42": "GivenName",
	"2.5.4.43": "Initials", "2.5.4.44": "GenerationQualifier", "2.5.4.46": "DistinguishedNameQualifier", "2.5.4.65": "Pseudonym",
}

var (
	subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	issuerAltName  = asn1.ObjectIdentifier{2, 5, 29, 18}
)

// names shares the attributes of names that many certificates have in common: their issuer's, often their
// subject's. A connection keeps them for as long as it lives. The zero value is ready.
type names struct {
	mu    sync.Mutex
	byDER map[string]map[string][]string
}

const maxNames = 1024 // kept; others are not shared

func (s *names) attributes(der []byte, n pkix.Name) map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.byDER[string(der)]; ok {
		return a
	}
	a := attributes(n)
	if s.byDER == nil {
		s.byDER = map[string]map[string][]string{}
	}
	if len(s.byDER) < maxNames {
		s.byDER[string(der)] = a
	}
	return a
}

// policyCertificate is what policies may ask about a certificate.
func (s *names) policyCertificate(c *x509.Certificate) *lang.Certificate {
	out := &lang.Certificate{
		ID: CertificateID(c), SerialNumber: c.SerialNumber.String(),
		Subject: s.attributes(c.RawSubject, c.Subject), Issuer: s.attributes(c.RawIssuer, c.Issuer),
	}
	for _, e := range c.Extensions {
		switch {
		case e.Id.Equal(subjectAltName):
			out.SubjectAlternativeName = alternativeNames(e.Value)
		case e.Id.Equal(issuerAltName):
			out.IssuerAlternativeName = alternativeNames(e.Value)
		}
	}
	return out
}

func attributes(n pkix.Name) map[string][]string {
	out := map[string][]string{}
	for _, a := range n.Names {
		name := attributeNames[a.Type.String()]
		if text, ok := a.Value.(string); ok && name != "" {
			out[name] = append(out[name], text)
		}
	}
	return out
}

// Tags of GeneralName (RFC 5280 4.2.1.6).
const (
	tagRFC822Name    = 1
	tagDNSName       = 2
	tagDirectoryName = 4
	tagURI           = 6
	tagIPAddress     = 7
)

// alternativeNames reads GeneralNames; what does not parse is left out.
func alternativeNames(der []byte) map[string][]string {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return nil
	}
	out := map[string][]string{}
	for _, n := range names {
		if n.Class != asn1.ClassContextSpecific {
			continue
		}
		switch n.Tag {
		case tagRFC822Name:
			out["RFC822Name"] = append(out["RFC822Name"], string(n.Bytes))
		case tagDNSName:
			out["DNSName"] = append(out["DNSName"], string(n.Bytes))
		case tagURI:
			out["UniformResourceIdentifier"] = append(out["UniformResourceIdentifier"], string(n.Bytes))
		case tagIPAddress:
			if len(n.Bytes) == net.IPv4len || len(n.Bytes) == net.IPv6len {
				out["IPAddress"] = append(out["IPAddress"], net.IP(n.Bytes).String())
			}
		case tagDirectoryName:
			var name pkix.RDNSequence
			if rest, err := asn1.Unmarshal(n.Bytes, &name); err == nil && len(rest) == 0 {
				out["DirectoryName"] = append(out["DirectoryName"], name.String())
			}
		}
	}
	return out
}
