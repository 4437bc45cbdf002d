package domain_test

import (
	"crypto/tls"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/gateway/ticket"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// node starts a node on a store, with the keys that are in it.
func node(t testing.TB, db *store.DB) *world {
	t.Helper()
	keys, err := ticket.Open(t.Context(), ticket.Deps{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, db, domain.Config{}, func(d *domain.Deps) { d.Tickets = keys })
}

// latest is a session cache that gives the session kept last, whatever the server's name.
type latest struct{ state *tls.ClientSessionState }

func (l *latest) Get(string) (*tls.ClientSessionState, bool) { return l.state, l.state != nil }

func (l *latest) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		l.state = s
	}
}

// resumable is a device that resumes whatever it can; that it is another name's server is no reason for it not to.
func (w *world) resumable(t testing.TB, serverName string) *tls.Config {
	cfg := w.device(t, serverName)
	cfg.ClientSessionCache, cfg.InsecureSkipVerify = &latest{}, true
	return cfg
}

func resumed(t testing.TB, server, client *tls.Config, serverName string) bool {
	t.Helper()
	client = client.Clone()
	client.ServerName = serverName
	state, err := handshake(t, server, client)
	if err != nil {
		t.Fatal(err)
	}
	return state.DidResume
}

func TestSessionIsResumedAtEveryNodeAndAfterARestart(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			db := storetest.Open(t)
			one, two := node(t, db), node(t, db)
			one.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "one", DomainName: new("one.example.com")})
			two.bus.Changed("domain", "one")
			for _, serverName := range []string{"iot.example.org", "one.example.com"} {
				device := one.resumable(t, serverName)
				device.MaxVersion = version
				if resumed(t, one.TLS(one.base), device, serverName) {
					t.Error("resumed what never was")
				}
				for where, w := range map[string]*world{"here": one, "at the other node": two, "after a restart": node(t, db)} {
					if !resumed(t, w.TLS(w.base), device, serverName) {
						t.Errorf("%s is not resumed %s", serverName, where)
					}
				}
			}
		})
	}
}

// A ticket is good for the configuration that gave it, as it was then.
func TestSessionIsNotResumedElsewhere(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			w := node(t, storetest.Open(t))
			for _, name := range []string{"one", "two"} {
				w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: name, DomainName: new(name + ".example.com")})
			}
			w.create(t, &iot.CreateDomainConfigurationRequest{
				DomainConfigurationName: "custom", DomainName: new("custom.example.com"),
				AuthenticationType: new("CUSTOM_AUTH"), ApplicationProtocol: new("SECURE_MQTT"),
			})
			server := w.TLS(w.base)
			names := []string{"one.example.com", "two.example.com", "custom.example.com", "iot.example.org"}
			for _, from := range names {
				for _, to := range names {
					device := w.resumable(t, from)
					device.MaxVersion = version
					resumed(t, server, device, from)
					if got := resumed(t, server, device, to); got != (from == to) {
						t.Errorf("from %s to %s: resumed %v", from, to, got)
					}
				}
			}
			// The other port of the same domain asks for a certificate without requiring one.
			lenient := w.base.Clone()
			lenient.ClientAuth = tls.RequestClientCert
			device := w.resumable(t, "one.example.com")
			device.MaxVersion = version
			resumed(t, w.TLS(lenient), device, "one.example.com")
			if resumed(t, server, device, "one.example.com") {
				t.Error("resumed under another demand for certificates")
			}
			// A change of how clients authenticate, or of the TLS versions, ends sessions from before.
			for what, change := range map[string]*iot.UpdateDomainConfigurationRequest{
				"authentication": {DomainConfigurationName: "one", AuthenticationType: new("AWS_X509"), ApplicationProtocol: new("SECURE_MQTT")},
				"policy":         {DomainConfigurationName: "two", TlsConfig: &iot.TlsConfig{SecurityPolicy: new("IotSecurityPolicy_TLS12_1_2_2022_10")}},
			} {
				serverName := change.DomainConfigurationName + ".example.com"
				device := w.resumable(t, serverName)
				device.MaxVersion = tls.VersionTLS12
				resumed(t, server, device, serverName)
				w.update(t, change)
				if resumed(t, server, device, serverName) {
					t.Errorf("resumed after a change of %s", what)
				}
				if !resumed(t, server, device, serverName) {
					t.Errorf("not resumed after that")
				}
			}
			// Nor does one come back with its name.
			device = w.resumable(t, "two.example.com")
			device.MaxVersion = tls.VersionTLS12
			resumed(t, server, device, "two.example.com")
			w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: "two", DomainConfigurationStatus: new("DISABLED")})
			if _, err := w.DeleteDomainConfiguration(t.Context(), &iot.DeleteDomainConfigurationRequest{DomainConfigurationName: "two"}); err != nil {
				t.Fatal(err)
			}
			w.create(t, &iot.CreateDomainConfigurationRequest{
				DomainConfigurationName: "three", DomainName: new("two.example.com"),
				TlsConfig: &iot.TlsConfig{SecurityPolicy: new("IotSecurityPolicy_TLS12_1_2_2022_10")},
			})
			if resumed(t, server, device, "two.example.com") {
				t.Error("resumed with another configuration of the same domain")
			}
		})
	}
}
