package doc

import "strconv"

// Error is a refusal as AWS words it; Code is the HTTP status.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-error-messages.html
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return e.Message }

// The refusals of this package; compare them with errors.Is or by Code.
var (
	ErrInvalidJSON      = &Error{400, "Invalid JSON"}
	ErrMissingState     = &Error{400, "Missing required node: state"}
	ErrStateNotObject   = &Error{400, "State node must be an object"}
	ErrDesiredNotObject = &Error{400, "Desired node must be an object"}
	ErrReportedNot      = &Error{400, "Reported node must be an object"}
	ErrInvalidVersion   = &Error{400, "Invalid version"}
	ErrInvalidToken     = &Error{400, "Invalid clientToken"}
	ErrInvalidNode      = &Error{400, "State contains an invalid node"}
	ErrVersionConflict  = &Error{409, "Version conflict"}
	ErrTooLarge         = &Error{413, "The payload exceeds the maximum size allowed"}
	ErrEncoding         = &Error{415, "Unsupported documented encoding; supported encoding is UTF-8"}
)

func errTooDeep(maximum int) *Error {
	return &Error{400, "JSON contains too many levels of nesting; maximum is " + strconv.Itoa(maximum)}
}
