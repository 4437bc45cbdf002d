package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"flotilla/internal/mqtt/client"
)

// Claim is what every device of a fleet is built with: the shared certificate,
// and where to turn.
type Claim struct {
	Addr        string // host:port, mutual TLS
	Roots       *x509.CertPool
	Certificate tls.Certificate
	Template    string // provisioning template
}

// Device is one simulated device: hardware with a serial number that becomes a
// thing.
type Device struct {
	Serial string
	// OwnKey makes the device generate its key and send a CSR, so that the key
	// never leaves it; otherwise it asks for key and certificate.
	OwnKey bool

	thing string
	cert  tls.Certificate
	conn  *client.Client
	rooms chan client.Message // what arrives on its topics
}

// answer is a service answer on .../accepted, or what .../rejected says.
type answer struct {
	CertificateID             string            `json:"certificateId"`
	CertificatePEM            string            `json:"certificatePem"`
	PrivateKey                string            `json:"privateKey"`
	CertificateOwnershipToken string            `json:"certificateOwnershipToken"`
	ThingName                 string            `json:"thingName"`
	DeviceConfiguration       map[string]string `json:"deviceConfiguration"`

	StatusCode   int    `json:"statusCode"`
	ErrorCode    string `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// Provision connects with the claim certificate, gets a certificate of the
// device's own and registers it through the template (AWS: provision-wo-cert).
func (d *Device) Provision(ctx context.Context, claim Claim) error {
	inbox := make(chan client.Message, 8)
	c, err := client.Dial(ctx, client.Config{
		Addr: claim.Addr, ClientID: "claim-" + d.Serial, CleanStart: true,
		TLS:       &tls.Config{RootCAs: claim.Roots, Certificates: []tls.Certificate{claim.Certificate}, MinVersion: tls.VersionTLS12},
		OnMessage: func(m client.Message) { inbox <- m },
	})
	if err != nil {
		return fmt.Errorf("%s: claim connection: %w", d.Serial, err)
	}
	defer c.Disconnect()

	topic, body := "$aws/certificates/create/json", []byte("{}")
	var key *ecdsa.PrivateKey
	if d.OwnKey {
		topic = "$aws/certificates/create-from-csr/json"
		if key, body, err = csr(d.Serial); err != nil {
			return fmt.Errorf("%s: %w", d.Serial, err)
		}
	}
	created, err := ask(ctx, c, inbox, topic, body)
	if err != nil {
		return fmt.Errorf("%s: certificate: %w", d.Serial, err)
	}
	if d.cert, err = keyPair(created, key); err != nil {
		return fmt.Errorf("%s: certificate: %w", d.Serial, err)
	}
	body, err = json.Marshal(map[string]any{
		"certificateOwnershipToken": created.CertificateOwnershipToken,
		"parameters":                map[string]string{"SerialNumber": d.Serial},
	})
	if err != nil {
		return err
	}
	registered, err := ask(ctx, c, inbox, "$aws/provisioning-templates/"+claim.Template+"/provision/json", body)
	if err != nil {
		return fmt.Errorf("%s: provisioning: %w", d.Serial, err)
	}
	if registered.ThingName == "" {
		return fmt.Errorf("%s: provisioning: no thing name in the answer", d.Serial)
	}
	d.thing = registered.ThingName
	return nil
}

// refusal is an answer on .../rejected.
type refusal struct{ answer *answer }

func (r *refusal) Error() string {
	return fmt.Sprintf("refused: %d %s: %s", r.answer.StatusCode, r.answer.ErrorCode, r.answer.ErrorMessage)
}

// ask publishes a request and waits for its answer.
func ask(ctx context.Context, c *client.Client, inbox <-chan client.Message, topic string, body []byte) (*answer, error) {
	if err := c.Subscribe(ctx, 1, topic+"/accepted", topic+"/rejected"); err != nil {
		return nil, err
	}
	if err := c.Publish(ctx, topic, body, 1); err != nil {
		return nil, err
	}
	for {
		select {
		case m := <-inbox:
			var a answer
			if err := json.Unmarshal(m.Payload, &a); err != nil {
				return nil, fmt.Errorf("%s: not JSON: %w", m.Topic, err)
			}
			switch m.Topic {
			case topic + "/accepted":
				return &a, nil
			case topic + "/rejected":
				return nil, &refusal{&a}
			}
		case <-c.Done():
			return nil, fmt.Errorf("connection lost: %w", c.Err())
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer on %s: %w", topic, ctx.Err())
		}
	}
}

func csr(name string) (*ecdsa.PrivateKey, []byte, error) {
	key, text, err := newRequest(name)
	if err != nil {
		return nil, nil, err
	}
	body, err := json.Marshal(map[string]string{"certificateSigningRequest": string(text)})
	return key, body, err
}

// newRequest makes a key and a certificate signing request for it, as PEM.
func newRequest(name string) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

func keyPair(a *answer, own *ecdsa.PrivateKey) (tls.Certificate, error) {
	if own == nil {
		return tls.X509KeyPair([]byte(a.CertificatePEM), []byte(a.PrivateKey))
	}
	block, _ := pem.Decode([]byte(a.CertificatePEM))
	if block == nil {
		return tls.Certificate{}, errors.New("no certificate in the answer")
	}
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: own}, nil
}

// Connect connects as the thing that the device has become, and listens for
// changes of its configuration.
func (d *Device) Connect(ctx context.Context, claim Claim) error {
	d.rooms = make(chan client.Message, 64)
	c, err := client.Dial(ctx, client.Config{
		Addr: claim.Addr, ClientID: d.thing, CleanStart: true,
		TLS:       &tls.Config{RootCAs: claim.Roots, Certificates: []tls.Certificate{d.cert}, MinVersion: tls.VersionTLS12},
		OnMessage: func(m client.Message) { d.rooms <- m },
	})
	if err != nil {
		return fmt.Errorf("%s: connect: %w", d.thing, err)
	}
	d.conn = c
	shadow := "$aws/things/" + d.thing + "/shadow/update/"
	if err := c.Subscribe(ctx, 1, shadow+"delta", shadow+"accepted", shadow+"rejected"); err != nil {
		return fmt.Errorf("%s: subscribe: %w", d.thing, err)
	}
	return nil
}

// Close ends the device's connection in good order.
func (d *Device) Close() {
	if d.conn != nil {
		d.conn.Disconnect()
	}
}

// reading is the n-th telemetry message of the device; every tenth is hot.
func (d *Device) reading(n int) (body []byte, hot bool) {
	hot = n%10 == 9
	temperature := 20 + float64(n%50)/4
	if hot {
		temperature = 91.5
	}
	body = fmt.Appendf(nil, `{"sequence":%d,"temperature":%g,"humidity":%d,"battery":{"volts":%.2f},"at":%d}`,
		n, temperature, 40+n%20, 3.3+float64(n%10)/100, time.Now().UnixMilli())
	return body, hot
}

// Telemetry publishes count readings on the topic, QoS 1: when it returns, the
// server has acknowledged each. It returns how many were hot.
func (d *Device) Telemetry(ctx context.Context, topic string, count int, sent func()) (hot int, err error) {
	for n := range count {
		body, isHot := d.reading(n)
		if err := d.conn.Publish(ctx, topic, body, 1); err != nil {
			return hot, fmt.Errorf("%s: telemetry: %w", d.thing, err)
		}
		if isHot {
			hot++
		}
		sent()
	}
	return hot, nil
}

// Follow waits for the next change of configuration, applies it and reports it;
// it returns when the service has accepted the report.
func (d *Device) Follow(ctx context.Context) error {
	shadow := "$aws/things/" + d.thing + "/shadow/update"
	token := ""
	for {
		select {
		case m := <-d.rooms:
			var body struct {
				State       json.RawMessage `json:"state"`
				ClientToken string          `json:"clientToken"`
				Message     string          `json:"message"`
			}
			if err := json.Unmarshal(m.Payload, &body); err != nil {
				return fmt.Errorf("%s: %s: %w", d.thing, m.Topic, err)
			}
			switch m.Topic {
			case shadow + "/delta":
				if token != "" {
					continue // what changes later is another call's
				}
				token = "applied-" + d.thing
				var report bytes.Buffer
				fmt.Fprintf(&report, `{"state":{"reported":%s},"clientToken":%q}`, body.State, token)
				if err := d.conn.Publish(ctx, shadow, report.Bytes(), 1); err != nil {
					return fmt.Errorf("%s: report: %w", d.thing, err)
				}
			case shadow + "/accepted":
				if token != "" && body.ClientToken == token {
					return nil
				}
			case shadow + "/rejected":
				return fmt.Errorf("%s: report refused: %s", d.thing, body.Message)
			}
		case <-d.conn.Done():
			return fmt.Errorf("%s: connection lost: %w", d.thing, d.conn.Err())
		case <-ctx.Done():
			return fmt.Errorf("%s: configuration: %w", d.thing, ctx.Err())
		}
	}
}
