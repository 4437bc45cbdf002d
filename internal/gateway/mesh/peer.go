package mesh

type peer struct{ id string }

// ID is the node's.
func (p *Peer) ID() string { return p.id }
