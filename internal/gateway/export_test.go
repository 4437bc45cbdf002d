package gateway

// KeysChanged is what news of an access key does.
func (g *Gateway) KeysChanged() { g.watch.poke() }
