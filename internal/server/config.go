package server

import (
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/alecthomas/kong"

	"flotilla/internal/api"
	"flotilla/internal/audit"
	"flotilla/internal/awsclient"
	"flotilla/internal/bus"
	"flotilla/internal/commands"
	"flotilla/internal/function"
	"flotilla/internal/gateway"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/iam"
	"flotilla/internal/identity"
	"flotilla/internal/identity/authorizer"
	"flotilla/internal/index"
	"flotilla/internal/jobs"
	"flotilla/internal/loggroup"
	"flotilla/internal/object"
	"flotilla/internal/observe"
	"flotilla/internal/ota"
	"flotilla/internal/policy"
	"flotilla/internal/provision"
	"flotilla/internal/registry"
	"flotilla/internal/rules"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/table"
	"flotilla/internal/telemetry/live"
)

// Config is everything that an operator may set. The flat names are fixed by the
// contract of the project; each room's finer settings carry its name.
type Config struct {
	Data string `name:"data" default:"./flotilla-data" placeholder:"DIR" help:"Data directory; made when missing."`

	MQTTAddr   string `name:"mqtt-addr" default:"127.0.0.1:8883" help:"MQTT over mutual TLS; port 0 picks a free one."`
	HTTPSAddr  string `name:"https-addr" default:"127.0.0.1:8443" help:"MQTT, MQTT over WebSocket and HTTPS of devices on one port, told apart by ALPN."`
	APIAddr    string `name:"api-addr" default:"127.0.0.1:8080" help:"All AWS APIs, /healthz, /readyz, /metrics."`
	Account    string `name:"account" default:"123456789012" help:"AWS account id in ARNs."`
	Region     string `name:"region" default:"us-east-1" help:"AWS region in ARNs; callers may use any."`
	PublicHost string `name:"public-host" default:"localhost" help:"Host name or address under which devices reach this deployment; DescribeEndpoint answers it."`
	Limits     string `name:"limits" default:"default" enum:"aws,default,unlimited" help:"Profile of limits: aws (its documented quotas), default (generous) or unlimited."`

	Store      store.Config      `embed:""`
	Bus        bus.Config        `embed:""`
	Observe    observe.Config    `embed:""`
	API        api.Config        `embed:""`
	IAM        iam.Config        `embed:""`
	Audit      audit.Config      `embed:""`
	Identity   identity.Config   `embed:""`
	Authorizer authorizer.Config `embed:""`
	Policy     policy.Config     `embed:""`
	Registry   registry.Config   `embed:""`
	Provision  provision.Config  `embed:""`
	Shadow     shadow.Config     `embed:""`
	Jobs       jobs.Config       `embed:""`
	OTA        ota.Config        `embed:""`
	Commands   commands.Config   `embed:""`
	Index      index.Config      `embed:""`
	Function   function.Config   `embed:""`
	Objects    object.Config     `embed:""`
	S3         object.Endpoint   `embed:""`
	Rules      rules.Config      `embed:""`
	Table      table.Config      `embed:""`
	AWS        awsclient.Config  `embed:""`
	Logs       loggroup.Config   `embed:""`
	Telemetry  live.Config       `embed:""`
	Gateway    gateway.Config    `embed:""`
	Domain     domain.Config     `embed:""`
}

// DefaultConfig is what `flotilla serve` runs without flags.
func DefaultConfig() Config {
	var c Config
	if err := kong.ApplyDefaults(&c); err != nil {
		panic("server: defaults: " + err.Error()) // a mistake in a tag
	}
	return c
}

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
)

// Validate checks what no tag can.
func (c *Config) Validate() error {
	if !accountPattern.MatchString(c.Account) {
		return fmt.Errorf("--account %q is not an account id of 12 digits", c.Account)
	}
	if !regionPattern.MatchString(c.Region) {
		return fmt.Errorf("--region %q is not the name of a region, such as us-east-1", c.Region)
	}
	if c.PublicHost == "" {
		return errors.New("--public-host is empty")
	}
	for flag, addr := range map[string]string{
		"mqtt-addr": c.MQTTAddr, "https-addr": c.HTTPSAddr, "api-addr": c.APIAddr,
	} {
		if _, err := net.ResolveTCPAddr("tcp", addr); err != nil || addr == "" {
			return fmt.Errorf("--%s %q is not host:port", flag, addr)
		}
	}
	return errors.Join(c.Store.Validate(), c.Gateway.Validate())
}
