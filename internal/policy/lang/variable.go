package lang

import (
	"strconv"
	"strings"
)

const (
	maxValues     = 5    // certificate attributes with more values: the rest is ignored
	maxCharacters = 1024 // certificate attributes that are longer are not substituted
)

// variable is a policy variable, which is a condition key as well.
type variable struct {
	kind  variableKind
	name  string // attribute name
	index int    // of a certificate attribute, from 0
	list  bool   // of a certificate attribute: all values, for set conditions
}

type variableKind uint8

const (
	unknownVariable variableKind = iota
	lookedUp                     // by Connection.Lookup
	sourceIP
	currentTime
	epochTime
	clientID
	domainName
	connectAttributes
	thingName
	thingTypeName
	thingAttribute
	thingIsAttached
	certificateID
	serialNumber
	availableKeys
	subject
	issuer
	subjectAlternativeName
	issuerAlternativeName
)

var simpleVariables = map[string]variableKind{
	"aws:sourceip":                       sourceIP,
	"aws:currenttime":                    currentTime,
	"aws:epochtime":                      epochTime,
	"iot:clientid":                       clientID,
	"iot:domainname":                     domainName,
	"iot:connectattributes":              connectAttributes,
	"iot:connection.thing.thingname":     thingName,
	"iot:connection.thing.thingtypename": thingTypeName,
	"iot:connection.thing.isattached":    thingIsAttached,
	"iot:certificateid":                  certificateID,
	"iot:certificate.serialnumber":       serialNumber,
	"iot:certificate.availablekeys":      availableKeys,
}

// The attributes of a distinguished name and of an alternative name that have variables.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cert-policy-variables.html
var (
	nameAttributes = []string{
		"DistinguishedNameQualifier", "Country", "Organization", "OrganizationalUnit", "State", "CommonName",
		"SerialNumber", "Title", "Surname", "GivenName", "Initials", "Pseudonym", "GenerationQualifier",
	}
	alternativeNameAttributes = []string{
		"RFC822Name", "DNSName", "DirectoryName", "UniformResourceIdentifier", "IPAddress",
	}
	certificateVariables = []struct {
		prefix     string
		kind       variableKind
		attributes []string
	}{ // longer prefixes first
		{"iot:Certificate.Subject.AlternativeName.", subjectAlternativeName, alternativeNameAttributes},
		{"iot:Certificate.Issuer.AlternativeName.", issuerAlternativeName, alternativeNameAttributes},
		{"iot:Certificate.Subject.", subject, nameAttributes},
		{"iot:Certificate.Issuer.", issuer, nameAttributes},
	}
)

const thingAttributePrefix = "iot:connection.thing.attributes["

// variableOf compiles a key. Keys are compared without case, as in IAM, but for the names of thing attributes.
// A key that is not known has the values that Connection.Lookup gives.
func variableOf(key string) variable {
	lower := strings.ToLower(key)
	if k, ok := simpleVariables[lower]; ok {
		return variable{kind: k}
	}
	if strings.HasPrefix(lower, thingAttributePrefix) && strings.HasSuffix(key, "]") {
		return variable{kind: thingAttribute, name: key[len(thingAttributePrefix) : len(key)-1]}
	}
	for _, c := range certificateVariables {
		if len(key) <= len(c.prefix) || !strings.EqualFold(key[:len(c.prefix)], c.prefix) {
			continue
		}
		v := variable{kind: c.kind}
		name, suffix, has := strings.Cut(key[len(c.prefix):], ".")
		if has {
			if strings.EqualFold(suffix, "List") {
				v.list = true
			} else if n, err := strconv.Atoi(suffix); err == nil && n >= 0 && n < maxValues && suffix == strconv.Itoa(n) {
				v.index = n
			} else {
				return variable{}
			}
		}
		for _, a := range c.attributes {
			if strings.EqualFold(a, name) {
				v.name = a
				return v
			}
		}
		return variable{}
	}
	return variable{kind: lookedUp, name: lower}
}

// lookup asks for a key that the connection does not have by itself.
func (c *Connection) lookup(key string) []string {
	if c == nil || c.Lookup == nil {
		return nil
	}
	return c.Lookup(key)
}

// thing is the connection's thing if its variables have values: the thing is attached to the principal, its name
// is the client id unless the attachment is exclusive, and the connection is an MQTT one.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
func (c *Connection) thing() *Thing {
	if c.Thing == nil || !c.Thing.Attached || c.Thing.Name != c.ClientID && !c.Thing.Exclusive || c.overHTTP() {
		return nil
	}
	return c.Thing
}

func (c *Connection) overHTTP() bool {
	return len(c.Protocol) >= 4 && strings.EqualFold(c.Protocol[:4], "http")
}

// attribute gives the values of a certificate's attribute, at most five.
func (c *Connection) attribute(v *variable) []string {
	cert := c.Certificate
	if cert == nil {
		return nil
	}
	var m map[string][]string
	switch v.kind {
	case subject:
		m = cert.Subject
	case issuer:
		m = cert.Issuer
	case subjectAlternativeName:
		m = cert.SubjectAlternativeName
	case issuerAlternativeName:
		m = cert.IssuerAlternativeName
	default:
		return nil
	}
	values := m[v.name]
	return values[:min(len(values), maxValues)]
}

// substitutable tells whether AWS substitutes a certificate attribute: not with wildcard characters in it, and not
// when it is longer than 1,024 characters.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/use-policy-variables.html#policy-limits
func substitutable(s string) bool {
	return s != "" && !strings.ContainsAny(s, "*$+?#") && (len(s) <= maxCharacters || len([]rune(s)) <= maxCharacters)
}

// escapeName prefixes special characters of a distinguished name's value with a backslash, as AWS shows them to
// policies: "Example, Inc." is written "Example\\, Inc." there.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/use-policy-variables.html#policy-limits
func escapeName(s string) string {
	const special = `,"\+=<>;`
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// text gives the value of a variable; ok is false when it has none.
func (v *variable) text(c *Connection) (value string, ok bool) {
	switch v.kind {
	case lookedUp:
		if values := c.lookup(v.name); len(values) == 1 {
			value = values[0]
		}
	case sourceIP:
		value = c.SourceIP
	case clientID:
		value = c.ClientID
	case domainName:
		value = c.DomainName
	case currentTime:
		if !c.Time.IsZero() {
			value = c.Time.UTC().Format("2006-01-02T15:04:05Z")
		}
	case epochTime:
		if !c.Time.IsZero() {
			value = strconv.FormatInt(c.Time.Unix(), 10)
		}
	case thingName:
		if t := c.thing(); t != nil {
			value = t.Name
		}
	case thingTypeName:
		if t := c.thing(); t != nil {
			value = t.TypeName
		}
	case thingAttribute:
		if t := c.thing(); t != nil {
			value = t.Attributes[v.name]
		}
	case thingIsAttached:
		switch {
		case c.thing() != nil:
			value = "true"
		case !c.overHTTP():
			value = "false"
		}
	case certificateID:
		if c.Certificate != nil {
			value = c.Certificate.ID
		}
	case serialNumber:
		if c.Certificate != nil {
			value = c.Certificate.SerialNumber
		}
	case subject, issuer, subjectAlternativeName, issuerAlternativeName:
		values := c.attribute(v)
		if v.list || v.index >= len(values) || !substitutable(values[v.index]) {
			return "", false
		}
		value = values[v.index]
		if v.kind == subject || v.kind == issuer {
			value = escapeName(value)
		}
	}
	return value, value != ""
}

// texts appends all values of a condition key.
func (v *variable) texts(c *Connection, to []string) []string {
	switch {
	case v.kind == connectAttributes:
		for _, a := range c.ConnectAttributes {
			if a != "" {
				to = append(to, a)
			}
		}
	case v.kind == availableKeys:
		to = c.availableKeys(to)
	case v.kind == lookedUp:
		to = append(to, c.lookup(v.name)...)
	case v.list:
		for _, s := range c.attribute(v) {
			if !substitutable(s) {
				continue
			}
			if v.kind == subject || v.kind == issuer {
				s = escapeName(s)
			}
			to = append(to, s)
		}
	default:
		if s, ok := v.text(c); ok {
			to = append(to, s)
		}
	}
	return to
}

// availableKeys appends the names of the certificate variables that have a value.
func (c *Connection) availableKeys(to []string) []string {
	if c.Certificate == nil {
		return to
	}
	if c.Certificate.SerialNumber != "" {
		to = append(to, "iot:Certificate.SerialNumber")
	}
	for _, group := range certificateVariables {
		for _, a := range group.attributes {
			if len(c.attribute(&variable{kind: group.kind, name: a})) > 0 {
				to = append(to, group.prefix+a)
			}
		}
	}
	return to
}
