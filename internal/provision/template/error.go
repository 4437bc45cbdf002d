package template

import "fmt"

// Category says what kind of failure an Error is.
type Category string

// The categories of failure.
const (
	// InvalidTemplate: the document is not a provisioning template.
	InvalidTemplate Category = "invalidTemplate"
	// MissingParameter: a value was needed that neither the caller, nor the
	// certificate, nor a default gave.
	MissingParameter Category = "missingParameter"
	// FunctionError: an intrinsic function could not be computed.
	FunctionError Category = "functionError"
	// InvalidRequest: a computed value is not one that its place allows.
	InvalidRequest Category = "invalidRequest"
	// MalformedPolicy: a policy document is not a JSON object.
	MalformedPolicy Category = "malformedPolicy"
)

// Error is the only type of error that this package returns.
type Error struct {
	Category Category
	// Path is where in the template, e.g. "Resources.thing.Properties.ThingName".
	Path string
	// Message is one sentence without the path.
	Message string
}

// Error is the path and the message.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}

func fail(c Category, path, format string, args ...any) *Error {
	return &Error{Category: c, Path: path, Message: fmt.Sprintf(format, args...)}
}
