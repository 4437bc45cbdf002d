package domain

import (
	"crypto/tls"
	"net"
	"regexp"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
)

// defaultPolicy is the security policy of a configuration that names none.
const defaultPolicy = "IoTSecurityPolicy_TLS13_1_2_2022_10"

// versions are the TLS versions of a security policy. Cipher suites are Go's, which are those of the newer policies
// without RSA key exchange.
type versions struct{ min, max uint16 }

// securityPolicies are AWS's, in lower case: documents spell them in two ways.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/transport-security.html#tls-policy-table
var securityPolicies = map[string]versions{
	"iotsecuritypolicy_tls13_1_3_2022_10": {tls.VersionTLS13, tls.VersionTLS13},
	"iotsecuritypolicy_tls13_1_2_2022_10": {tls.VersionTLS12, tls.VersionTLS13},
	"iotsecuritypolicy_tls12_1_2_2022_10": {tls.VersionTLS12, tls.VersionTLS12},
	"iotsecuritypolicy_tls12_1_0_2016_01": {tls.VersionTLS12, tls.VersionTLS12},
	"iotsecuritypolicy_tls12_1_0_2015_01": {tls.VersionTLS12, tls.VersionTLS12},
}

// speaks are the application protocols of each way to authenticate.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#connection-protocol-auth-mode
var speaks = map[string][]string{
	iot.AuthenticationTypeAwsX509:        {iot.ApplicationProtocolSecureMqtt, iot.ApplicationProtocolHttps},
	iot.AuthenticationTypeCustomAuthX509: {iot.ApplicationProtocolSecureMqtt, iot.ApplicationProtocolHttps},
	iot.AuthenticationTypeAwsSigv4:       {iot.ApplicationProtocolMqttWss, iot.ApplicationProtocolHttps},
	iot.AuthenticationTypeCustomAuth:     {iot.ApplicationProtocolSecureMqtt, iot.ApplicationProtocolMqttWss, iot.ApplicationProtocolHttps},
}

var (
	validName  = regexp.MustCompile(`^[\w.-]{1,128}$`)
	validLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	validARN   = regexp.MustCompile(`^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/([A-Za-z0-9-]{1,128})$`)
)

// checkDomainName takes host names of two labels or more, in lower case: no addresses, no wildcards.
func checkDomainName(name string) error {
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 || net.ParseIP(name) != nil ||
		slices.ContainsFunc(labels, func(l string) bool { return !validLabel.MatchString(l) }) {
		return invalid("domainName is not a fully qualified domain name.")
	}
	return nil
}

// certificateID is what a certificate's ARN names in the data directory; it is a file name.
func certificateID(arn string) (string, error) {
	m := validARN.FindStringSubmatch(arn)
	if m == nil {
		return "", invalid("%q is not the ARN of a certificate: arn:aws:acm:REGION:ACCOUNT:certificate/ID", bounded(arn))
	}
	return m[1], nil
}

// setTLS sets the security policy; nil leaves it as it is.
func (r *record) setTLS(c *iot.TlsConfig) error {
	if c == nil || value(c.SecurityPolicy) == "" {
		return nil
	}
	r.securityPolicy = *c.SecurityPolicy
	if _, ok := securityPolicies[strings.ToLower(r.securityPolicy)]; !ok {
		return invalid("Unknown tlsConfig.securityPolicy: %q", bounded(r.securityPolicy))
	}
	return nil
}

// setProtocols sets how clients authenticate and what they speak; nil leaves either as it is.
func (r *record) setProtocols(authentication, application *string) error {
	set(&r.authentication, authentication)
	set(&r.application, application)
	if _, ok := speaks[r.authentication]; !ok && r.authentication != iot.AuthenticationTypeDefault {
		return invalid("Invalid authenticationType: %q", bounded(r.authentication))
	}
	switch r.application {
	case iot.ApplicationProtocolDefault, iot.ApplicationProtocolSecureMqtt, iot.ApplicationProtocolMqttWss, iot.ApplicationProtocolHttps:
	default:
		return invalid("Invalid applicationProtocol: %q", bounded(r.application))
	}
	if r.authentication != iot.AuthenticationTypeDefault && r.application != iot.ApplicationProtocolDefault &&
		!slices.Contains(speaks[r.authentication], r.application) {
		return invalid("authenticationType %s has no applicationProtocol %s.", r.authentication, r.application)
	}
	return nil
}

// refuseUnsupported names the members that are not implemented, unless they ask for nothing.
func refuseUnsupported(s *iot.ServerCertificateConfig, c *iot.ClientCertificateConfig) error {
	switch {
	case s != nil && value(s.EnableOCSPCheck):
		return invalid("serverCertificateConfig.enableOCSPCheck is not supported.")
	case s != nil && value(s.OcspLambdaArn) != "":
		return invalid("serverCertificateConfig.ocspLambdaArn is not supported.")
	case s != nil && value(s.OcspAuthorizedResponderArn) != "":
		return invalid("serverCertificateConfig.ocspAuthorizedResponderArn is not supported.")
	case c != nil && value(c.ClientCertificateCallbackArn) != "":
		return invalid("clientCertificateConfig.clientCertificateCallbackArn is not supported.")
	}
	return nil
}

// bounded makes a stranger's text fit for a message.
func bounded(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
