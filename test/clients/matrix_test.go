package clients_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/server/servertest"
)

// kits are the libraries and programs that devices use.
var kits = []struct {
	name string
	open func(t *testing.T) kit
}{
	{"mosquitto_v3", mosquitto(false)},
	{"mosquitto_v5", mosquitto(true)},
	{"paho_v3", paho3},
	{"paho_v5", paho5},
	{"mqttjs_v3", mqttjs(false)},
	{"mqttjs_v5", mqttjs(true)},
	{"devicesdk_v3", deviceSDK(false)},
	{"devicesdk_v5", deviceSDK(true)},
}

// scenarios are what each kit goes through; v5 ones only if it speaks MQTT 5, and
// those that need a trait only if it has it.
var scenarios = []struct {
	name  string
	v5    bool
	needs trait
	play  func(s *stage)
}{
	{"connect", false, 0, connects},
	{"connect by ALPN", false, choosesALPN, connectsByALPN},
	{"client id assigned", true, takesNoID | tellsLimits, getsClientID},
	{"what CONNACK tells", true, tellsLimits, hearsLimits},
	{"QoS 0 and 1", false, 0, exchanges},
	{"QoS 2 refused", false, 0, refusesQoS2},
	{"wildcards", false, 0, usesWildcards},
	{"retained", false, 0, retains},
	{"will", false, 0, leavesWill},
	{"persistent session", false, 0, resumes},
	{"take-over", false, 0, takesOver},
	{"shared subscription", false, 0, shares},
	{"denied connect", false, 0, deniedConnect},
	{"denied subscribe", false, 0, deniedSubscribe},
	{"denied publish", false, 0, deniedPublish},
	{"largest payload", false, 0, sendsLargest},
	{"payload too large", false, 0, sendsTooLarge},
	{"unacknowledged is sent again", false, acknowledges | tellsSession, getsAgain},
	{"properties", true, 0, sendsProperties},
	{"topic alias to the server", true, sendsAlias, sendsAliases},
	{"topic alias from the server", true, receivesAlias, receivesAliases},
	{"message expiry", true, 0, expiresMessages},
	{"session expiry", true, tellsSession, expiresSession},
	{"receive maximum", true, acknowledges, holdsBack},
	{"certificate revoked", false, 0, losesCertificate},
}

// site is a server with certificates for the scenarios.
type site struct {
	node         *servertest.Node
	open, narrow string // directories with the certificates' files
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{node: servertest.Start(t).Node(0)}
	s.open = device(t, s.node, "open", "iot:Connect client/*", "iot:Publish topic/m/*", "iot:RetainPublish topic/m/*", "iot:Subscribe topicfilter/m/*", "iot:Receive topic/m/*")
	s.narrow = device(t, s.node, "narrow", "iot:Connect client/narrow-*", "iot:Publish topic/m/mine", "iot:Subscribe topicfilter/m/idle,topicfilter/m/mine")
	return s
}

// stage is one scenario with one kit.
type stage struct {
	*testing.T
	kit  kit
	site *site
	name string // unique; begins topics and client ids
}

// TestMatrix plays each scenario with each kit, against one server.
func TestMatrix(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	for _, row := range kits {
		t.Run(row.name, func(t *testing.T) {
			k := row.open(t)
			for _, sc := range scenarios {
				if sc.v5 && !k.v5 || sc.needs&^k.can != 0 {
					continue
				}
				t.Run(sc.name, func(t *testing.T) {
					sc.play(&stage{t, k, at, row.name + "-" + strings.ReplaceAll(sc.name, " ", "-")})
				})
			}
		})
	}
}

// TestKeepAlive has a client of each kit idle for longer than the server tolerates
// without pings: one and a half times 30 s, the least keep-alive that it takes.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	const keepAlive = 30
	var idle []*party
	for _, row := range kits {
		// Of t, not of a subtest: the connection outlives that.
		k := row.open(t)
		s := &stage{t, k, at, row.name}
		idle = append(idle, s.connect("idle", subscribing("m/idle/"+row.name), func(o *options) { o.KeepAlive = keepAlive }))
	}
	<-time.After(keepAlive*3/2*time.Second + 5*time.Second)
	for _, p := range idle {
		select {
		case e := <-p.ended():
			t.Errorf("%s: the connection has ended: %+v", p.stage.name, e)
		default:
			p.text("m/idle/"+p.stage.name, "still here")
			p.expect("still here")
		}
	}
}

// certificate makes another device with the rights of those of site.open.
func (s *site) certificate(t *testing.T) (id, dir string) {
	t.Helper()
	made, err := s.node.IoT().CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.node.IoT().AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: new("open"), Target: made.CertificateArn}); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	writeDevice(t, s.node, dir, *made.CertificatePem, *made.KeyPair.PrivateKey)
	return *made.CertificateId, dir
}

// party is one connection of a scenario.
type party struct {
	link
	stage *stage
	cable *cable
}

func (s *stage) topic(levels string) string  { return "m/" + s.name + "/" + levels }
func (s *stage) clientID(role string) string { return s.name + "-" + role }

func subscribing(filters ...string) func(*options) {
	return func(o *options) { o.Filters = filters }
}

func persistent(o *options) { o.Resume, o.SessionExpiry = true, 600 }

// dial connects with the client id of a role.
func (s *stage) dial(role string, change ...func(*options)) (*party, error) {
	s.Helper()
	o := options{Host: "localhost", Files: s.site.open, V5: s.kit.v5, ClientID: s.clientID(role), KeepAlive: 60, QoS: 1}
	for _, c := range change {
		c(&o)
	}
	target := s.site.node.Endpoints().MQTT
	if o.ALPN != "" {
		target = s.site.node.Endpoints().HTTPS
	}
	o.cable = layCable(s.T, target)
	o.Port = o.cable.port
	o.direct = func() (string, int) {
		_, port, err := net.SplitHostPort(target)
		if err != nil {
			s.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			s.Fatal(err)
		}
		return o.Host, n
	}
	l, err := s.kit.dial(s.T, o)
	if err != nil {
		return nil, err
	}
	p := &party{l, s, o.cable}
	s.Cleanup(l.close)
	return p, nil
}

func (s *stage) connect(role string, change ...func(*options)) *party {
	s.Helper()
	p, err := s.dial(role, change...)
	if err != nil {
		s.Fatalf("%s: connect: %v", role, err)
	}
	return p
}

func (p *party) send(m message) {
	p.stage.Helper()
	if err := p.publish(m); err != nil {
		p.stage.Fatalf("publish %s: %v", m.Topic, err)
	}
}

func (p *party) text(topic, payload string) {
	p.stage.Helper()
	p.send(message{Topic: topic, Payload: []byte(payload), QoS: 1})
}

// next waits for a message.
func (p *party) next() message {
	p.stage.Helper()
	select {
	case m := <-p.messages():
		return m
	case <-time.After(grace):
		p.stage.Fatal("no message came")
		return message{}
	}
}

// expect waits for messages with these payloads, in order.
func (p *party) expect(payloads ...string) {
	p.stage.Helper()
	for _, want := range payloads {
		if m := p.next(); string(m.Payload) != want {
			p.stage.Fatalf("got %.40q on %s, want %q", m.Payload, m.Topic, want)
		}
	}
}

// gone waits for the end of the connection.
func (p *party) gone() ending {
	p.stage.Helper()
	select {
	case e := <-p.ended():
		return e
	case <-time.After(grace):
		p.stage.Fatal("the connection is still there")
		return ending{}
	}
}
