package gateway

// KeysChanged is what news of an access key does.
func (g *Gateway) KeysChanged() { g.watch.poke() }

// HasConnection tells whether the client is connected to this node.
func (g *Gateway) HasConnection(clientID string) bool { return g.registry.connection(clientID) != nil }
