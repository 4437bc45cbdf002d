package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"flotilla/internal/account"
	"flotilla/internal/api"
	"flotilla/internal/audit"
	"flotilla/internal/aws"
	"flotilla/internal/awsclient"
	"flotilla/internal/bus"
	"flotilla/internal/commands"
	"flotilla/internal/function"
	"flotilla/internal/gateway"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/gateway/ticket"
	"flotilla/internal/iam"
	"flotilla/internal/identity"
	"flotilla/internal/identity/authorizer"
	"flotilla/internal/index"
	"flotilla/internal/jobs"
	"flotilla/internal/loggroup"
	"flotilla/internal/mqtt"
	"flotilla/internal/observe"
	"flotilla/internal/ota"
	"flotilla/internal/policy"
	"flotilla/internal/provision"
	"flotilla/internal/registry"
	"flotilla/internal/rules"
	"flotilla/internal/rules/sql"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/table"
	"flotilla/internal/telemetry/live"
)

// drainTime is how long Close waits for what is under way.
const drainTime = 15 * time.Second

// Server is a running node.
type Server struct {
	cfg       Config
	log       *slog.Logger
	endpoints Endpoints
	health    observe.Health
	failed    chan error

	closers []func() error // in the order of opening
	once    sync.Once
	closed  error
}

// rooms are what routes.go plugs into the API.
type rooms struct {
	account      *account.Account
	certificates *identity.Certificates
	policies     *policy.Policies
	registry     *registry.Registry
	templates    *provision.Templates
	shadows      *shadow.Shadows
	jobs         *jobs.Jobs
	ota          *ota.OTA
	commands     *commands.Commands
	index        *index.Index
	rules        *rules.Engine
	telemetry    *live.Store
	authorizers  *authorizer.Authorizers
	domains      *domain.Domains
	identities   *iam.Identities
	audit        *audit.Log
	gateway      *gateway.Gateway
	functions    *function.Functions
	tables       *table.Tables
}

// publisher lets rooms that are made before the gateway publish through it.
type publisher struct{ *gateway.Gateway }

// Start starts a node and returns once it serves. ctx bounds the start only. An
// error is one sentence for the operator, and nothing is left running.
func Start(ctx context.Context, cfg Config, log *slog.Logger) (_ *Server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: log, failed: make(chan error, 4)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()

	dir, err := openDataDir(cfg.Data)
	if err != nil {
		return nil, err
	}
	s.onClose(dir.close)
	if err := dir.removeEndpoints(); err != nil { // a killed server's
		return nil, err
	}
	nodeID, err := dir.secret("node-id")
	if err != nil {
		return nil, err
	}
	metrics := observe.Metrics()

	// State, and the way to other nodes.
	cfg.Store.Dir, cfg.Store.NodeID, cfg.Store.Log = cfg.Data, nodeID, log
	db, err := store.Open(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	s.onClose(db.Close)
	s.health.Add("store", func(ctx context.Context) error {
		return db.Read(ctx, func(_ context.Context, tx store.Tx) error {
			var one int
			return tx.QueryRow(`SELECT 1`).Scan(&one)
		})
	})
	cfg.Bus.NodeID, cfg.Bus.Dir, cfg.Bus.Log = nodeID, cfg.Data, log
	if cfg.Bus.Password, err = dir.secret("nats-password"); err != nil {
		return nil, err
	}
	news, err := bus.Open(ctx, cfg.Bus)
	if err != nil {
		return nil, err
	}
	s.onClose(func() error { news.Close(); return nil })
	s.health.Add("bus", func(context.Context) error { return news.Healthy() })

	// The rooms, each with what it needs of the others.
	var r rooms
	acct := aws.Account{ID: cfg.Account, Region: cfg.Region}
	late := &publisher{}
	keys := iam.New(cfg.IAM, iam.Deps{Account: acct, DB: db, Changes: news, Log: log})
	if err := s.keepCredentials(ctx, keys, dir.file("credentials"), news); err != nil {
		return nil, err
	}
	s.background(keys.Run)
	authority, err := openAuthority(ctx, db, &cfg)
	if err != nil {
		return nil, err
	}
	certificates, err := authority.ServerCertificates(cfg.Data, cfg.PublicHost)
	if err != nil {
		return nil, err
	}
	r.account = account.New(account.Deps{
		DB: db, Endpoint: s.endpoint, Events: account.Published, Publisher: late, NodeID: nodeID, Log: log, Metrics: metrics,
	})
	r.certificates = identity.New(cfg.Identity, identity.Deps{Account: acct, DB: db, Changes: news, Authority: authority, Log: log})
	s.background(r.certificates.Run)
	cfg.Registry.Limits = cfg.Limits
	r.registry = registry.New(cfg.Registry, registry.Deps{Account: acct, DB: db, Changes: news, Certificates: r.certificates, Events: r.account, Log: log})
	follow := newChanges(news) // after the registry, whose memory forgets before others ask
	r.policies = policy.New(cfg.Policy, policy.Deps{
		Account: acct, DB: db, Changes: news, Principals: r.certificates, Things: r.registry, Groups: r.registry, Tags: r.registry, Log: log,
	})
	r.certificates.Use(r.policies, r.registry)
	functions, err := function.New(cfg.Function, function.Deps{
		Account: acct, DB: db, Changes: news, NodeID: nodeID, Dir: dir.file("functions"), Trusted: onLoopback(cfg.APIAddr), Log: log, Metrics: metrics,
	})
	if err != nil {
		return nil, err
	}
	r.functions = functions
	s.onClose(func() error { functions.Close(); return nil })
	objects, urls, objectDoor, err := s.openObjects(ctx, cfg, dir, r.account, late, log)
	if err != nil {
		return nil, err
	}
	cfg.Provision.Limits = cfg.Limits
	r.templates = provision.New(cfg.Provision, provision.Deps{
		Account: acct, DB: db, Issuer: r.certificates, Certificates: r.certificates, Things: r.registry, Groups: r.registry,
		BillingGroups: r.registry, Policies: r.policies, Publisher: late, Tags: r.registry, Hook: functions, Log: log,
		Objects: objects, ReportURL: s.apiURL, NodeID: nodeID,
	})
	r.certificates.UseFunctions(functions)
	r.certificates.UseJustInTime(r.templates, late, r.registry)
	s.background(r.templates.Run)
	cfg.Shadow.Limits, cfg.Shadow.Log, cfg.Shadow.Changed, cfg.Shadow.Metrics = cfg.Limits, log, follow.thing, metrics
	r.shadows = shadow.New(db, r.registry, late, cfg.Shadow)
	s.background(func(ctx context.Context) { _ = r.shadows.Run(ctx) }) // ends with ctx alone
	cfg.Index.Limits = cfg.Limits
	r.index = index.New(cfg.Index, index.Deps{
		Account: acct, DB: db, Registry: r.registry, Dynamic: r.registry, Shadows: r.shadows, Changes: news, Tags: r.registry, NodeID: nodeID, Log: log, Metrics: metrics,
	})
	r.registry.UseIndex(r.index)
	followIndex(follow, r.index)
	s.background(r.index.Run)
	cfg.Jobs.Limits = cfg.Limits
	r.jobs = jobs.New(cfg.Jobs, jobs.Deps{Account: acct, DB: db, Things: r.registry, Publisher: late, Tags: r.registry, Events: r.account, Objects: objects, Presigner: urls, Log: log})
	followThings(news, r.jobs)
	cfg.OTA.Limits = cfg.Limits
	r.ota = ota.New(cfg.OTA, ota.Deps{Account: acct, DB: db, Publisher: late, Objects: objects, Jobs: r.jobs, Tags: r.registry, Log: log, Metrics: metrics})
	r.commands = commands.New(cfg.Commands, commands.Deps{Account: acct, DB: db, Things: r.registry, Publisher: late, Tags: r.registry, Events: r.account, Log: log})
	amazon, err := awsclient.New(cfg.AWS, cfg.Region, log)
	if err != nil {
		return nil, err
	}
	s.onClose(amazon.Close)
	r.tables = table.New(cfg.Table, table.Deps{Account: acct, DB: db, Log: log})
	s.background(r.tables.Run)
	r.telemetry, err = live.Open(cfg.Telemetry, live.Deps{Dir: dir.file("telemetry"), Durability: cfg.Store.Durability, Log: log})
	if err != nil {
		return nil, err
	}
	s.onClose(r.telemetry.Close)
	r.rules, err = rules.New(cfg.Rules, rules.Deps{
		Account: acct, DB: db, Bus: news, Publisher: late, Nodes: late, Tags: r.registry, Telemetry: r.telemetry,
		External: sql.External{Shadows: sqlShadows{r.shadows}, Registry: sqlRegistry{r.registry}, Lambda: sqlLambda{functions}, Schemas: sqlSchemas{objects}, Tables: sqlTables{r.tables}}, Functions: functions,
		Archive: dir.file("archive"), Objects: objects, APIURL: s.apiURL, AWS: amazon, Log: log, Metrics: metrics,
		Logs: loggroup.Open(dir.file("logs"), cfg.Logs),
	})
	if err != nil {
		return nil, err
	}
	tickets, err := ticket.Open(ctx, ticket.Deps{DB: db, Sealer: ticketSealer(cfg.Identity.CAPassphrase), Log: log})
	if err != nil {
		return nil, err
	}
	s.background(tickets.Run)
	cfg.Authorizer.Limits, cfg.Domain.Limits = cfg.Limits, cfg.Limits
	r.authorizers = authorizer.New(cfg.Authorizer, authorizer.Deps{Account: acct, DB: db, Changes: news, Functions: functions, Tags: r.registry, Log: log})
	r.domains = domain.New(cfg.Domain, domain.Deps{
		Account: acct, DB: db, Changes: news, Authorizers: r.authorizers, Tags: r.registry,
		Dir: cfg.Data, PublicHost: cfg.PublicHost, Hosts: []string{"localhost"}, Issue: issued(authority, cfg.Data), Tickets: tickets, Log: log,
	})
	r.authorizers.Use(r.domains)
	var departed registry.Shadows // AWS: "Deleting a thing object does not delete the corresponding device's shadow."
	if cfg.Shadow.DeleteWithThing {
		departed = r.shadows
	}
	r.registry.Use(r.policies, departed, r.taggable())

	r.identities = iam.NewIdentities(keys, resourceTags{r.registry})
	if r.audit, err = s.openAudit(ctx, dir, db, nodeID); err != nil {
		return nil, err
	}

	// The doors.
	door := api.New(cfg.API, api.Deps{Account: acct, Keys: keys, Objects: objectDoor, Permissions: r.identities, Audit: r.audit, AuditReads: cfg.Audit.Reads, Log: log, Metrics: metrics})
	cfg.Gateway.MQTTAddr, cfg.Gateway.HTTPSAddr = cfg.MQTTAddr, cfg.HTTPSAddr
	cfg.Gateway.Limits, cfg.Gateway.NodeID = cfg.Limits, nodeID
	reserved := &mqtt.Mux{}
	reserved.Handle("$aws/things/+/shadow/#", r.shadows.ServeMQTT)
	reserved.Handle(jobs.Filter, r.jobs.ServeMQTT)
	reserved.Handle(ota.Filter, r.ota.ServeMQTT)
	for _, f := range commands.Filters() {
		reserved.Handle(f, r.commands.ServeMQTT)
	}
	for _, f := range provision.Filters() {
		reserved.Handle(f, r.templates.ServeMQTT)
	}
	r.gateway, err = gateway.New(cfg.Gateway, gateway.Deps{
		Account: acct, DB: db, Bus: news, Principals: r.certificates, Policies: r.policies, Reserved: reserved, Rules: r.rules,
		Asked: map[string]func(context.Context, []byte) ([]byte, error){rules.AskStatus: r.rules.AnswerStatus},
		TLS:   certificates.TLS(), Log: log, Metrics: metrics,
		HTTP: door.Device(api.Devices{
			Principals: r.certificates, Policies: r.policies, Authorizers: httpAuthorizers{r.authorizers, r.domains}, Domains: httpDomains{r.domains},
			JustInTime: r.certificates,
		}),
		Domains: r.domains, Authorizers: mqttAuthorizers{r.authorizers}, Signatures: signatures{door, r.identities}, JustInTime: r.certificates,
		Denied: provisioningDenied(r.templates), Presence: follow.presence,
	})
	if err != nil {
		return nil, err
	}
	late.Gateway = r.gateway
	route(door, &r)
	if err := functions.Start(ctx); err != nil {
		return nil, err
	}
	if err := r.rules.Start(ctx); err != nil {
		return nil, err
	}
	s.onClose(r.rules.Close)
	if err := r.gateway.Start(ctx); err != nil {
		return nil, err
	}
	s.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		return r.gateway.Close(ctx)
	})
	s.background(r.account.Run)
	s.background(r.jobs.Run)
	s.background(r.commands.Run)
	outer := http.NewServeMux()
	observe.Mount(outer, &s.health, metrics)
	l, err := net.Listen("tcp", cfg.APIAddr)
	if err != nil {
		return nil, fmt.Errorf("api-addr: %w", err)
	}
	addrs := r.gateway.Addrs()
	s.endpoints = Endpoints{
		MQTT: addrs.MQTT.String(), HTTPS: addrs.HTTPS.String(),
		API: "http://" + l.Addr().String(), NATS: news.URL(), PID: os.Getpid(),
	}
	if addrs.Plain != nil {
		s.endpoints.MQTTPlain = addrs.Plain.String()
	}
	s.background(r.rules.Confirm)
	s.serve(l, api.HTTPServer(front{
		own: outer, crl: http.HandlerFunc(r.certificates.ServeCRL), webSocket: r.gateway.WebSocket(),
		reports: http.HandlerFunc(r.templates.ServeReport), confirm: http.HandlerFunc(r.rules.ServeConfirmation), api: door,
	}, cfg.API, log))
	s.health.SetReady(true)
	s.onClose(func() error { s.health.SetReady(false); return dir.removeEndpoints() })
	return s, dir.writeEndpoints(s.endpoints)
}

// onLoopback tells whether only users of this machine reach what listens on addr.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// front is the API listener's handler. Only its own paths go to a ServeMux, which would
// answer AWS's paths with redirects (//, ..).
type front struct {
	own       *http.ServeMux
	crl       http.Handler // revocation lists, for everybody
	webSocket http.Handler // MQTT, for clients that a signature or a custom authorizer admits
	reports   http.Handler // of bulk registration, by signed links
	confirm   http.Handler // of topic rule destinations, by the token sent to them
	api       http.Handler
}

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, provision.ReportPath) {
		f.reports.ServeHTTP(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, rules.ConfirmPath) && r.Header.Get("Authorization") == "" && !r.URL.Query().Has("X-Amz-Signature") {
		f.confirm.ServeHTTP(w, r)
		return
	}
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics":
		f.own.ServeHTTP(w, r)
	case "/crl":
		f.crl.ServeHTTP(w, r)
	case "/mqtt":
		f.webSocket.ServeHTTP(w, r)
	default:
		if strings.HasPrefix(r.URL.Path, "/crl/") {
			f.crl.ServeHTTP(w, r)
			return
		}
		f.api.ServeHTTP(w, r)
	}
}

// endpoint is the address that devices use for an endpoint type of AWS: the public
// host, with the port unless it is MQTT's own; of the jobs data plane with that of
// HTTPS. There is none for credentials.
func (s *Server) endpoint(kind string) string {
	switch kind {
	case "iot:CredentialProvider":
		return ""
	case "iot:Jobs":
		_, port, err := net.SplitHostPort(s.endpoints.HTTPS)
		if err != nil {
			return ""
		}
		return net.JoinHostPort(s.cfg.PublicHost, port)
	}
	_, port, err := net.SplitHostPort(s.endpoints.MQTT)
	if err != nil || port == "8883" {
		return s.cfg.PublicHost
	}
	return net.JoinHostPort(s.cfg.PublicHost, port)
}

// onClose has fn run by Close, before what was registered earlier.
func (s *Server) onClose(fn func() error) { s.closers = append(s.closers, fn) }

// background runs fn until Close.
func (s *Server) background(fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(ctx)
	}()
	s.onClose(func() error { cancel(); <-done; return nil })
}

// serve serves HTTP until Close.
func (s *Server) serve(l net.Listener, h *http.Server) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("api: %w", err)
		}
	}()
	s.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		err := h.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = h.Close()
		}
		<-done
		return err
	})
}

// Endpoints is where the server listens.
func (s *Server) Endpoints() Endpoints { return s.endpoints }

// Account is the account and region that the server plays.
func (s *Server) Account() aws.Account {
	return aws.Account{ID: s.cfg.Account, Region: s.cfg.Region}
}

// Failed gives the error of a part that has ended by itself; the server is to be
// closed then.
func (s *Server) Failed() <-chan error { return s.failed }

// Close drains connections and stops everything. It may be called again.
func (s *Server) Close() error {
	s.once.Do(func() {
		for i := len(s.closers) - 1; i >= 0; i-- {
			s.closed = errors.Join(s.closed, s.closers[i]())
		}
	})
	return s.closed
}
