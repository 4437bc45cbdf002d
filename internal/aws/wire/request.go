package wire

import "strings"

// Request is what an operation's input is decoded from.
type Request struct {
	Labels []string            // of the path, unescaped, in order
	Query  map[string][]string // unescaped
	Header map[string][]string // names in canonical form (net/http)
	Body   []byte
}

// Response is what an operation's output is encoded to.
type Response struct {
	Status int // 200 unless the operation says otherwise
	Header map[string]string
	Body   []byte
	Raw    bool // Body is what a member holds, not JSON of members
}

// SetHeader sets a header; name is in canonical form (net/http).
func (r *Response) SetHeader(name, value string) {
	if r.Header == nil {
		r.Header = map[string]string{}
	}
	r.Header[name] = value
}

// SyntaxError is a request that is not of the shape's form: not JSON, or a value
// of another type.
type SyntaxError struct{ Message string }

func (e *SyntaxError) Error() string { return e.Message }

// ConstraintError is a request with values that the model does not allow.
type ConstraintError struct{ Violations []string }

// Error lists the violations as AWS does.
func (e *ConstraintError) Error() string {
	if len(e.Violations) == 1 {
		return "1 validation error detected: " + e.Violations[0]
	}
	return itoa(len(e.Violations)) + " validation errors detected: " + strings.Join(e.Violations, "; ")
}
