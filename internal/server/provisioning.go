package server

import (
	"net"
	"strings"

	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision"
)

// apiURL is how this node's API is reached from elsewhere: by the public host when it listens on all addresses.
func (s *Server) apiURL() string {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(s.endpoints.API, "http://"))
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return "http://" + net.JoinHostPort(s.cfg.PublicHost, port)
	}
	return s.endpoints.API
}

// provisioningDenied has provisioning remember what policies refuse on its topics.
func provisioningDenied(t *provision.Templates) func(string, gateway.Denial) {
	return func(clientID string, n gateway.Denial) {
		switch n.Action {
		case "iot:Publish", "iot:Subscribe", "iot:Receive":
		default:
			return
		}
		if n.Code == mqtt.NotAuthorized && provision.Concerns(n.Resource) {
			t.Denied(provision.Denial{
				ClientID: clientID, PrincipalID: n.Principal, Action: n.Action, Topic: n.Resource, Reason: n.Reason, Policy: n.Policy,
			})
		}
	}
}
