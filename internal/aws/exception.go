package aws

import "flotilla/internal/aws/wire"

// Exception is an expected failure of an operation: the generated exceptions of
// each service, and [CommonError]. The door answers with it, however deep
// errors.As finds it.
type Exception interface {
	error // the message alone
	// ErrorCode is the exception's name, as "ResourceNotFoundException".
	ErrorCode() string
	// StatusCode is its HTTP status.
	StatusCode() int
	// AppendJSON appends its members as a JSON object.
	AppendJSON(b []byte) []byte
}

// CommonError is an error that every AWS service has, so that none has a shape
// for it: of the signature, of the route, of the encoding.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
type CommonError struct {
	Status  int
	Code    string
	Message string
}

// Error is the message.
func (e *CommonError) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

// ErrorCode implements [Exception].
func (e *CommonError) ErrorCode() string { return e.Code }

// StatusCode implements [Exception].
func (e *CommonError) StatusCode() int { return e.Status }

// AppendJSON implements [Exception].
func (e *CommonError) AppendJSON(b []byte) []byte {
	return append(wire.AppendString(append(b, `{"message":`...), e.Message), '}')
}
