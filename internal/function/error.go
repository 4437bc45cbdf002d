package function

import (
	"context"
	"fmt"
	"time"
)

// NotFoundError says that no such function is configured or was created.
type NotFoundError struct{ Function string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("function: %s is not configured (--function.endpoint), and was not created here", e.Function)
}

// FunctionError says that a function was reached, or should have been, and did not answer with a result. Its text is
// bounded, but it is the function's own: it is for the operator, never for who caused the call.
type FunctionError struct {
	Function string
	Kind     string // "Handled" or "Unhandled", as X-Amz-Function-Error has it; "" when the function was not reached
	Type     string // errorType of its answer, "" without
	Message  string
}

func (e *FunctionError) Error() string {
	text := "function: " + e.Function + ": "
	if e.Type != "" {
		text += e.Type + ": "
	}
	return text + e.Message
}

// TimeoutError says that a function did not answer in time. It is a context.DeadlineExceeded.
type TimeoutError struct {
	Function string
	After    time.Duration // how long it was waited for
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("function: %s: no answer after %s", e.Function, e.After.Round(time.Millisecond))
}

// Unwrap gives context.DeadlineExceeded.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// ThrottledError says that as many calls of a function are under way, and wait, as may.
type ThrottledError struct{ Function string }

func (e *ThrottledError) Error() string {
	return "function: " + e.Function + ": too many calls are under way"
}

// TooLargeError says that a payload is larger than functions take.
type TooLargeError struct {
	Function  string
	SizeBytes int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("function: %s: the payload has %d bytes, at most %d are allowed", e.Function, e.SizeBytes, maxPayload)
}

// DeniedError says that a function has no permission that lets IoT invoke it.
type DeniedError struct{ Function, Source string }

func (e *DeniedError) Error() string {
	source := e.Source
	if source == "" {
		source = "IoT"
	}
	return "function: " + e.Function + ": it has no permission (lambda add-permission) that lets iot.amazonaws.com invoke it for " + source
}
