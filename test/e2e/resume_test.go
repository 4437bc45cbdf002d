package e2e_test

import (
	"crypto/tls"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

// returning connects with a TLS configuration that keeps sessions, and tells whether TLS has resumed one.
func returning(t testing.TB, n *servertest.Node, cfg *tls.Config) (resumed bool, err error) {
	t.Helper()
	ctx := deadline(t)
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", n.Endpoints().MQTT)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	c := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(conn), PacketTimeout: patience})
	_, err = c.Connect(ctx, &paho.Connect{ClientID: "returning", KeepAlive: 60, CleanStart: true})
	resumed = conn.(*tls.Conn).ConnectionState().DidResume
	if err == nil {
		err = c.Disconnect(&paho.Disconnect{})
	}
	return resumed, err
}

func sessions(cfg *tls.Config, version uint16) *tls.Config {
	cfg.ClientSessionCache, cfg.MaxVersion = tls.NewLRUClientSessionCache(4), version
	return cfg
}

// A TLS session outlives the server, and what may be done with it is decided anew each time.
func TestResumptionAfterARestart(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		for passphrase, secret := range map[string]string{"": "", ", sealed": "a passphrase"} {
			t.Run(name+passphrase, func(t *testing.T) {
				dir := t.TempDir()
				set := func(c *server.Config) { c.Identity.CAPassphrase = secret }
				n := servertest.StartNode(t, dir, set)
				id := n.Identity(t, "all", everything...)
				device := sessions(n.ClientTLS(id), version)
				back := func(wantIn, wantResumed bool, when string) {
					t.Helper()
					resumed, err := returning(t, n, device)
					if in := err == nil; in != wantIn || resumed != wantResumed {
						t.Errorf("%s: connected %v (%v), resumed %v", when, in, err, resumed)
					}
				}
				become := func(s types.CertificateStatus) {
					t.Helper()
					if _, err := n.IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: &id.ID, NewStatus: s}); err != nil {
						t.Fatal(err)
					}
				}
				restart := func() {
					t.Helper()
					n.Stop(t)
					n = servertest.StartNode(t, dir, set)
				}
				back(true, false, "first")
				back(true, true, "again")
				restart()
				back(true, true, "after a restart")

				become(types.CertificateStatusInactive)
				back(false, true, "INACTIVE")
				become(types.CertificateStatusActive)
				back(true, true, "ACTIVE again")
				become(types.CertificateStatusRevoked)
				back(false, true, "REVOKED")
				restart()
				back(false, true, "REVOKED, after a restart")

				if _, err := n.IoT().DetachPolicy(t.Context(), &iot.DetachPolicyInput{PolicyName: new("all"), Target: &id.ARN}); err != nil {
					t.Fatal(err)
				}
				if _, err := n.IoT().DeleteCertificate(t.Context(), &iot.DeleteCertificateInput{CertificateId: &id.ID}); err != nil {
					t.Fatal(err)
				}
				back(false, true, "deleted")
			})
		}
	}
}

func TestResumptionAtAnotherNode(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	device := sessions(d.Node(0).ClientTLS(id), tls.VersionTLS13)
	device.ServerName = "localhost" // one name for both
	for i := range 4 {
		resumed, err := returning(t, d.Node(i), device)
		if err != nil || resumed != (i > 0) {
			t.Errorf("connection %d: %v, resumed %v", i, err, resumed)
		}
	}
}
