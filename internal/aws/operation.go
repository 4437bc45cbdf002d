package aws

import (
	"errors"

	"flotilla/internal/aws/wire"
)

// Route says how an operation is called. Path has {label} for one segment and
// {label+} for one or more; it has no query.
type Route struct {
	Service string // as credential scopes name it: "iot", "iotdata", "iot-jobs-data"
	Name    string
	Method  string
	Path    string
	// Target names the operation in a protocol that has one path for all: the header X-Amz-Target, or the form's
	// Action. Empty where method and path tell.
	Target string
}

// Protocol is how a service is spoken to when method and path don't tell what is asked for.
//
// AWS: https://smithy.io/2.0/aws/protocols/index.html
type Protocol struct {
	// JSON is the version of awsJson: "1.0", "1.1".
	JSON string
	// Query is the namespace of the answers of awsQuery.
	Query string
	// Version is that of the API, which a form names.
	Version string
	// Maps are the members that are maps; answers in XML show them as entries.
	Maps []string
}

// Operation is one operation of a service, with the codec of its input and
// output. Generated code makes them.
type Operation[In, Out any] struct {
	*Route
	// Read decodes a request and checks the model's constraints; its errors are
	// those of package wire.
	Read func(*wire.Request, *In) error
	// Write encodes a response.
	Write func(*wire.Response, *Out)
	// Invalid makes the exception that the operation has for invalid input.
	Invalid func(message string) error
	// Status is that of success; 0 is 200.
	Status int
}

// Decode decodes a request. Its errors are exceptions: what the operation says
// of invalid input, or SerializationException for what is no JSON of its shape.
func (o *Operation[In, Out]) Decode(r *wire.Request) (*In, error) {
	in := new(In)
	err := o.Read(r, in)
	if err == nil {
		return in, nil
	}
	if invalid, ok := errors.AsType[*wire.ConstraintError](err); ok {
		return nil, o.Invalid(invalid.Error())
	}
	return nil, &CommonError{400, "SerializationException", err.Error()}
}
