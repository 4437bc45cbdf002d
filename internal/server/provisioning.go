package server

import (
	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision"
)

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
