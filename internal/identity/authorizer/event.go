package authorizer

import (
	"encoding/pem"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
)

// event is what an authorizer's function is given. What does not concern the request is left out.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html
type event struct {
	Token              string       `json:"token,omitempty"`
	SignatureVerified  bool         `json:"signatureVerified"`
	Protocols          []string     `json:"protocols"`
	ProtocolData       protocolData `json:"protocolData"`
	ConnectionMetadata struct {
		ID string `json:"id"`
	} `json:"connectionMetadata"`
}

type protocolData struct {
	TLS  *tlsData  `json:"tls,omitzero"`
	HTTP *httpData `json:"http,omitzero"`
	MQTT *mqttData `json:"mqtt,omitzero"`
}

// tlsData has the certificate and its principal for CUSTOM_AUTH_X509 only.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-509cert.html
type tlsData struct {
	ServerName     string `json:"serverName,omitempty"`
	CertificatePEM string `json:"x509CertificatePem,omitempty"`
	PrincipalID    string `json:"principalId,omitempty"`
}

type httpData struct {
	Headers     map[string]string `json:"headers,omitempty"`
	QueryString string            `json:"queryString,omitempty"` // with its "?"
}

type mqttData struct {
	Username string `json:"username,omitempty"` // whole, with its parameters
	Password []byte `json:"password,omitempty"` // base64
	ClientID string `json:"clientId,omitempty"`
}

// newEvent describes a request.
func newEvent(r *Request, token string, verified bool) *event {
	e := &event{Token: token, SignatureVerified: verified, Protocols: []string{"tls"}}
	e.ConnectionMetadata.ID = r.ConnectionID
	if r.ServerName != "" || r.Certificate != nil {
		e.ProtocolData.TLS = &tlsData{ServerName: r.ServerName}
		if r.Certificate != nil {
			e.ProtocolData.TLS.CertificatePEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate.Raw}))
			e.ProtocolData.TLS.PrincipalID = r.CertificateID
		}
	}
	if r.Protocol != MQTT {
		e.Protocols = append(e.Protocols, "http")
		e.ProtocolData.HTTP = &httpData{Headers: headers(r.Header)}
		if r.RawQuery != "" {
			e.ProtocolData.HTTP.QueryString = "?" + strings.TrimPrefix(r.RawQuery, "?")
		}
	}
	if r.Protocol != HTTP {
		e.Protocols = append(e.Protocols, "mqtt")
		e.ProtocolData.MQTT = &mqttData{r.Username, r.Password, r.ClientID}
	}
	return e
}

// headers names headers as clients write them, since net/http does not keep how they did: those of the standards as
// Content-Type, others as x-amz-customauthorizer-name.
func headers(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if strings.HasPrefix(name, "X-") {
			name = strings.ToLower(name)
		}
		out[name] = strings.Join(values, ",")
	}
	return out
}

// marshal encodes the event; text that is not UTF-8 is made so.
func (e *event) marshal() ([]byte, error) {
	return json.Marshal(e, json.Deterministic(true), allowInvalidUTF8)
}
