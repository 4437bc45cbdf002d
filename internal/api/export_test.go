package api

// Routes are all operations, as "service name", each with the labels of its path.
func (s *Server) Routes() map[string][]string {
	out := map[string][]string{}
	for _, service := range s.services {
		for _, e := range service.endpoints {
			out[e.Service+" "+e.Name] = e.labels
		}
	}
	return out
}

// Named tells whether sources names the resources of an AWS IoT operation.
func Named(operation string) bool { return sources[operation] != nil }

// ResourceType is the kind of resource that a label names; ok is false when nobody thought of the label.
func ResourceType(label string) (kind string, ok bool) {
	kind, ok = resourceTypes[label]
	return kind, ok
}
