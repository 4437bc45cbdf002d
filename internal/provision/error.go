package provision

import (
	"errors"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/provision/template"
	"flotilla/internal/store"
)

// rejection is a refusal that only the MQTT API has; the HTTP API has exceptions.
type rejection struct {
	status        int
	code, message string
	why           string // for the operator alone
}

// Error is for the log.
func (r *rejection) Error() string {
	if r.why == "" {
		return r.code + ": " + r.message
	}
	return r.code + ": " + r.why
}

// The refusals of the MQTT API. AWS documents none but ACCESS_DENIED; the code of bad tokens was seen in a capture
// (aws-iot-device-sdk-js-v2 issue 69).
func badToken(message, why string) error {
	return &rejection{400, "InvalidCertificateOwnershipToken", message, why}
}

// tokenNotValid is one message for all that is wrong with a token: a thief learns nothing.
func tokenNotValid(why string) error {
	return badToken("Certificate ownership token is not valid.", why)
}

func accessDenied(message, why string) error {
	return &rejection{403, "ACCESS_DENIED", message, why}
}

func invalid(message string) error { return &iot.InvalidRequestException{Message: message} }

func notEnabled(template string) error {
	return invalid("Provisioning template " + template + " is not enabled.")
}

// conflictError is what OverrideSettings FAIL leads to.
type conflictError struct{ message string }

func (e *conflictError) Error() string { return e.message }

// exception turns what carrying out a template ended with into an exception that RegisterThing has.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RegisterThing.html
func exception(err error) error {
	var bad *template.Error
	var conflict *conflictError
	var rejected *rejection
	var exc aws.Exception
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		return invalid("Invalid template: " + bad.Error())
	case errors.As(err, &conflict):
		return &iot.ConflictingResourceUpdateException{Message: conflict.message}
	case errors.As(err, &rejected):
		return invalid(rejected.message)
	case errors.As(err, &exc):
		switch exc.(type) {
		case *iot.InvalidRequestException, *iot.ThrottlingException, *iot.ServiceUnavailableException,
			*iot.UnauthorizedException, *iot.InternalFailureException:
			return exc
		}
		return &iot.ResourceRegistrationFailureException{Message: strings.TrimSuffix(exc.ErrorCode(), "Exception") + ": " + exc.Error()}
	}
	return err
}

// errorPayload is the payload of …/rejected.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
type errorPayload struct {
	StatusCode   int    `json:"statusCode"`
	ErrorCode    string `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// rejected says what a device is told of an error; internal is true for one that the operator must hear of.
func rejected(err error) (p errorPayload, internal bool) {
	var r *rejection
	var bad *template.Error
	var conflict *conflictError
	var exc aws.Exception
	switch {
	case errors.As(err, &r):
		return errorPayload{r.status, r.code, r.message}, false
	case errors.As(err, &bad):
		code := "InvalidTemplate"
		switch bad.Category {
		case template.MissingParameter, template.InvalidRequest, template.FunctionError:
			code = "InvalidParameters"
		}
		return errorPayload{400, code, bad.Error()}, false
	case errors.As(err, &conflict):
		return errorPayload{409, "ResourceConflicts", conflict.message}, false
	case errors.As(err, &exc):
		return errorPayload{exc.StatusCode(), strings.TrimSuffix(exc.ErrorCode(), "Exception"), exc.Error()}, exc.StatusCode() >= 500
	}
	return errorPayload{500, "InternalFailure", "An internal failure occurred."}, true
}

// isNotFound tells whether another room said that a resource does not exist.
func isNotFound(err error) bool {
	var e *iot.ResourceNotFoundException
	return errors.As(err, &e)
}

func noTemplate(err error, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: "Provisioning template " + name + " was not found."}
	}
	return err
}
