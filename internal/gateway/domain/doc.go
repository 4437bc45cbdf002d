// Package domain keeps domain configurations: under which names the deployment answers devices, and how.
//
// A name that a client asks for in its TLS handshake (SNI) selects a configuration, and that decides which certificate
// the server shows, which versions of TLS it takes, whether a client certificate is asked for, how the client may
// authenticate, what it may speak, and which custom authorizer is its default:
//
//	ClientHello ──► [Domains.TLS]      DISABLED, or a name of nobody's: the handshake fails
//	                    │              certificate by serverCertificateArns, else of the deployment's own authority
//	                    ▼              securityPolicy -> TLS versions; authenticationType, ALPN -> client certificate
//	CONNECT, request ─► [Domains.Lookup]   authenticationType, applicationProtocol, authorizerConfig: for the gateway
//	                                       to enforce, by [Configuration.Admits]
//
// The configuration iot:Data-ATS is always there: it is the deployment's own host name, that of DescribeEndpoint. All
// others are made by CreateDomainConfiguration, ENABLED, and must be DISABLED before they are deleted.
//
// Server certificates are PEM files, chain and key together, that the operator puts into the data directory: the ARN
// arn:aws:acm:us-east-1:123456789012:certificate/ID names certificates/ID.pem. They are read again when they change.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-configurable.html
package domain
