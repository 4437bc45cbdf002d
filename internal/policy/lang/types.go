package lang

import "time"

// Connection is what a policy may ask about the party that acts: the values behind the policy variables and
// condition keys. An empty string, nil list or nil pointer means that the value is not there, and a variable
// that names it is not substituted.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/basic-policy-variables.html
type Connection struct {
	Protocol          string       // "mqtt" or "http"; thing variables other than by client id exist for MQTT only
	ClientID          string       // iot:ClientId, the MQTT client id
	SourceIP          string       // aws:SourceIp, without port
	DomainName        string       // iot:DomainName, the server name that the client asked for
	ConnectAttributes []string     // iot:ConnectAttributes: "PersistentConnect", "LastWill"; nil = the connection asks for none
	Thing             *Thing       // the thing whose name is the client id, or that has the certificate to itself; nil when there is none
	Certificate       *Certificate // nil when the connection has not authenticated with a certificate
	Time              time.Time    // aws:CurrentTime, aws:EpochTime; the zero time = not known

	// Lookup gives the values of the keys that are not named above, in lower case ("aws:username"); nil when they
	// have none. It is for requests of the AWS APIs, which have other keys than devices; nil = there are none.
	Lookup func(key string) []string
}

// Thing is the registry's thing whose name equals the client id of the connection. A thing to which the certificate
// of the connection is attached exclusively may have any name.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html,
// https://docs.aws.amazon.com/iot/latest/developerguide/exclusive-thing.html
type Thing struct {
	Name       string
	TypeName   string // "" = the thing has no type
	Attributes map[string]string
	Attached   bool // the thing is attached to the principal of the connection
	Exclusive  bool // and the principal to no other thing: EXCLUSIVE_THING
}

// Certificate is what policy variables read from an X.509 client certificate. Keys of the maps are AWS's names
// of the attributes ("CommonName", "Country", "DNSName", ...), values are in the order of the certificate.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cert-policy-variables.html
type Certificate struct {
	ID                     string // lower-case hex SHA-256 of the DER encoding
	SerialNumber           string // decimal
	Subject                map[string][]string
	Issuer                 map[string][]string
	SubjectAlternativeName map[string][]string
	IssuerAlternativeName  map[string][]string
}

// Effect is the outcome of a [Decision].
type Effect uint8

// The three outcomes. The zero value denies.
const (
	ImplicitDeny Effect = iota // no statement allows
	ExplicitDeny               // a Deny statement applies; it wins over every Allow
	Allow
)

// String gives the names that TestAuthorization uses: allowed, implicit-deny, explicit-deny.
func (e Effect) String() string {
	switch e {
	case Allow:
		return "allowed"
	case ExplicitDeny:
		return "explicit-deny"
	default:
		return "implicit-deny"
	}
}

// Decision says whether an action is allowed and which statement decided. The zero value is an implicit deny.
type Decision struct {
	Effect    Effect
	Policy    string // name of the deciding policy; "" for an implicit deny
	Statement int    // index of the deciding statement in its document, from 0
	Sid       string // its Sid, when it has one
}

// Allowed reports whether the action may go on.
func (d Decision) Allowed() bool { return d.Effect == Allow }

// Authorizer answers for one connection. It is safe for concurrent use, and its answers follow every change of
// the policies, attachments and things behind it.
//
//	action    an IoT action as AWS names it, "iot:Publish"
//	resource  the full ARN, "arn:aws:iot:us-east-1:123456789012:topic/a/b"
type Authorizer interface {
	Authorize(action, resource string) Decision
}
