package domain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// Configuration is what a domain configuration asks of the connections of its domain.
type Configuration struct {
	Name       string
	DomainName string // "" for DefaultName
	Enabled    bool
	// AuthenticationType is CUSTOM_AUTH_X509, CUSTOM_AUTH, AWS_X509 or AWS_SIGV4; DEFAULT leaves it to port and ALPN.
	AuthenticationType string
	// ApplicationProtocol is SECURE_MQTT, MQTT_WSS or HTTPS; DEFAULT leaves it to port and ALPN.
	ApplicationProtocol string
	SecurityPolicy      string
	// DefaultAuthorizer is the custom authorizer of connections that name none, "" for the account's default. Another
	// may be named if AllowAuthorizerOverride, or if there is none.
	DefaultAuthorizer       string
	AllowAuthorizerOverride bool
}

// Admits tells whether a connection that authenticates in that way and speaks that protocol may come in.
//
//	authentication  iot.AuthenticationTypeAwsX509, ...; not DEFAULT
//	application     iot.ApplicationProtocolSecureMqtt, ...; not DEFAULT
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#connection-protocol-auth-mode
func (c *Configuration) Admits(authentication, application string) bool {
	return c.Enabled && slices.Contains(speaks[authentication], application) &&
		(c.AuthenticationType == iot.AuthenticationTypeDefault || c.AuthenticationType == authentication) &&
		(c.ApplicationProtocol == iot.ApplicationProtocolDefault || c.ApplicationProtocol == application)
}

// entry is a configuration ready to be served.
type entry struct {
	Configuration
	versions versions
	get      GetCertificate // nil: that of the listener
}

// snapshot is all that the store says of domains. It is immutable.
type snapshot struct {
	byDomain map[string]*entry
	enabled  map[string]bool // by name
	def      *entry
}

// snapshots keeps the newest one. The zero value is ready.
type snapshots struct {
	mu    sync.RWMutex
	epoch uint64 // rises with each forget: what was read before it is not kept
	kept  *snapshot
}

func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.kept = nil
}

func (s *snapshots) get() (*snapshot, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.kept, s.epoch
}

func (s *snapshots) put(n *snapshot, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		s.kept = n
	}
}

// loadTimeout bounds reading the store during a handshake.
const loadTimeout = 5 * time.Second

// load gives all configurations, from memory unless something changed.
func (d *Domains) load(ctx context.Context) (*snapshot, error) {
	kept, epoch := d.known.get()
	if kept != nil {
		return kept, nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	var rows []record
	err := d.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		rows, err = selectAll(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("domain: %w", err)
	}
	n := &snapshot{byDomain: make(map[string]*entry, len(rows)), enabled: make(map[string]bool, len(rows)+1), def: newEntry(defaultRecord())}
	for i := range rows {
		r := &rows[i]
		e := newEntry(r)
		if r.name == DefaultName {
			n.def = e
			continue
		}
		e.get = d.certificates.source(r)
		n.byDomain[r.domainName] = e
		n.enabled[r.name] = e.Enabled
	}
	n.enabled[DefaultName] = n.def.Enabled
	d.certificates.keep(rows)
	d.known.put(n, epoch)
	return n, nil
}

func newEntry(r *record) *entry {
	return &entry{
		Configuration: Configuration{
			Name: r.name, DomainName: r.domainName, Enabled: r.status == iot.DomainConfigurationStatusEnabled,
			AuthenticationType: r.authentication, ApplicationProtocol: r.application, SecurityPolicy: r.securityPolicy,
			DefaultAuthorizer: r.authorizer, AllowAuthorizerOverride: r.allowOverride,
		},
		versions: securityPolicies[strings.ToLower(r.securityPolicy)],
	}
}

// entry gives the configuration of a server name; known is false for a name that none has, for which the default one
// stands in.
func (d *Domains) entry(s *snapshot, serverName string) (e *entry, known bool) {
	name := strings.ToLower(serverName)
	if e, ok := s.byDomain[name]; ok {
		return e, true
	}
	return s.def, name == "" || d.hosts[name]
}

// Lookup gives the configuration of the server name that a client asked for, "" when it asked for none; false when it
// is no one's, or when the store fails. It reads the store only after a change.
func (d *Domains) Lookup(serverName string) (Configuration, bool) {
	s, err := d.load(context.Background())
	if err != nil {
		d.log.Error("domain configurations can't be read", "op", "TLS", "err", err)
		return Configuration{}, false
	}
	e, known := d.entry(s, serverName)
	if !known && d.cfg.RefuseUnknown {
		return Configuration{}, false
	}
	return e.Configuration, true
}

// Enabled tells whether there is a configuration of that name, ENABLED. It reads the store only after a change.
func (d *Domains) Enabled(configurationName string) (bool, error) {
	s, err := d.load(context.Background())
	if err != nil {
		return false, err
	}
	return s.enabled[configurationName], nil
}
