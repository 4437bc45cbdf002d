package api

import (
	"net/url"
	"strings"

	"flotilla/internal/aws"
)

// service is the route table of one AWS service.
type service struct {
	title     string
	endpoints []*endpoint // by name
	byName    map[string]*endpoint
	methods   map[string]*node
	protocol  aws.Protocol
	byTarget  map[string]*endpoint // empty for REST
}

// node is a step of the paths of one method.
type node struct {
	literal map[string]*node
	label   *node     // any one segment
	rest    *endpoint // one segment or more, to the end
	end     *endpoint // the path ends here
	slash   *endpoint // the path ends here with a slash
}

// newRPC is the table of a service whose requests name their operation.
func newRPC(title string, routes []aws.Route, p aws.Protocol) *service {
	s := &service{title: title, byName: map[string]*endpoint{}, byTarget: map[string]*endpoint{}, protocol: p}
	for i := range routes {
		e := &endpoint{Route: &routes[i]}
		s.endpoints = append(s.endpoints, e)
		s.byName[e.Name], s.byTarget[e.Target] = e, e
	}
	return s
}

func newService(title string, routes []aws.Route) *service {
	s := &service{title: title, byName: map[string]*endpoint{}, methods: map[string]*node{}}
	for i := range routes {
		e := &endpoint{Route: &routes[i], labels: labelsOf(routes[i].Path)}
		s.endpoints = append(s.endpoints, e)
		s.byName[e.Name] = e
		root := s.methods[e.Method]
		if root == nil {
			root = new(node)
			s.methods[e.Method] = root
		}
		root.add(e)
	}
	return s
}

// labelsOf names the labels of a path.
func labelsOf(path string) (names []string) {
	for seg := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			names = append(names, strings.TrimSuffix(strings.TrimSuffix(name, "}"), "+"))
		}
	}
	return names
}

// add enters a route. A path that ends with a slash is found without it as well:
// AWS's SDKs differ there.
func (n *node) add(e *endpoint) {
	path, slash := strings.CutSuffix(strings.TrimPrefix(e.Path, "/"), "/")
	for seg := range strings.SplitSeq(path, "/") {
		switch {
		case strings.HasSuffix(seg, "+}"):
			if n.rest != nil {
				panic("api: two routes for " + e.Method + " " + e.Path)
			}
			n.rest = e
			return
		case strings.HasPrefix(seg, "{"):
			if n.label == nil {
				n.label = new(node)
			}
			n = n.label
		default:
			if n.literal == nil {
				n.literal = map[string]*node{}
			}
			if n.literal[seg] == nil {
				n.literal[seg] = new(node)
			}
			n = n.literal[seg]
		}
	}
	if n.end != nil {
		panic("api: two routes for " + e.Method + " " + e.Path)
	}
	n.end = e
	if slash {
		n.slash = e
	}
}

// find gives the operation of a method and an escaped path, with the labels
// unescaped; nil when there is none.
func (s *service) find(method, escapedPath string) (*endpoint, []string) {
	root := s.methods[method]
	path, ok := strings.CutPrefix(escapedPath, "/")
	if root == nil || !ok {
		return nil, nil
	}
	return root.find(path, nil)
}

func (n *node) find(path string, labels []string) (*endpoint, []string) {
	raw, after, more := strings.Cut(path, "/")
	seg, err := url.PathUnescape(raw)
	if err != nil {
		return nil, nil
	}
	if next := n.literal[seg]; next != nil {
		if e, l := next.follow(after, more, labels); e != nil {
			return e, l
		}
	}
	if n.label != nil && seg != "" {
		if e, l := n.label.follow(after, more, append(labels, seg)); e != nil {
			return e, l
		}
	}
	if n.rest != nil && path != "" {
		if all, err := url.PathUnescape(path); err == nil {
			return n.rest, append(labels, all)
		}
	}
	return nil, nil
}

func (n *node) follow(after string, more bool, labels []string) (*endpoint, []string) {
	switch {
	case !more:
		return n.end, labels
	case after == "" && n.slash != nil:
		return n.slash, labels
	}
	return n.find(after, labels)
}
