// Package identity answers which principal a connection is.
//
// It owns the installation's certificate authority, a root and an issuing authority below it, issues the server's TLS
// certificates from it, and keeps the certificates of devices: issued here (CreateKeysAndCertificate, CreateCertificateFromCsr), brought along
// (RegisterCertificate, RegisterCertificateWithoutCA), or short-lived claims of a provisioning template.
//
//	                     RegisterCertificate status ACTIVE, setAsActive
//	                                   │
//	create ──► INACTIVE ◄──────────► ACTIVE ──► REVOKED
//	              ▲  │                 ▲           │
//	              │  └────► REVOKED    │           └──► INACTIVE | ACTIVE
//	              │                    │
//	      PENDING_ACTIVATION ──────────┘     (fleet and just-in-time provisioning only; deleted when its
//	                                          ownership token expires unused)
//
// A certificate authority that is registered (RegisterCACertificate) vouches for certificates: RegisterCertificate takes
// them, and with auto-registration they register themselves when they first connect ([Certificates.FirstConnect]):
//
//	unknown ──connect──► PENDING_ACTIVATION, event ──somebody's UpdateCertificate──► ACTIVE      (JITR)
//	                            └── the authority's template is carried out ────────► ACTIVE      (JITP)
//
// [Certificates.Identify] is asked on every connect: it answers from a bounded cache that follows changes, and
// takes a certificate only while it is registered here, ACTIVE and within its validity.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/x509-client-certs.html
package identity
