package server

import (
	"flotilla/internal/api"
	"flotilla/internal/gateway"
)

// Coverage is the text of docs/coverage.md: every operation of the services, and
// whether it has a handler here.
func Coverage() []byte {
	s := api.New(api.Config{}, api.Deps{})
	route(s, &rooms{gateway: &gateway.Gateway{}})
	return api.Coverage(s)
}
