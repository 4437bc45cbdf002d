package function

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/lambda"
	"flotilla/internal/function/environment"
)

// MaxEventPayload bounds the payload of an asynchronous invocation, in bytes.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const MaxEventPayload = 1 << 20

// Invocation is Invoke of the Lambda API: for callers with an access key, who need no permission of the function. It
// knows configured functions as well.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
func (f *Functions) Invocation(ctx context.Context, in *lambda.InvocationRequest) (*lambda.InvocationResponse, error) {
	client, err := clientContext(in.ClientContext)
	if err != nil {
		return nil, err
	}
	if len(in.Payload) > 0 && !json.Valid(in.Payload) {
		return nil, &lambda.InvalidRequestContentException{Type: "User", Message: "Could not parse request body into json"}
	}
	fn, configured := f.find(in.FunctionName)
	var c *chosen
	if !configured {
		if c, err = f.choose(ctx, in.FunctionName, value(in.Qualifier)); err != nil {
			return nil, err
		}
	}
	switch value(in.InvocationType) {
	case lambda.InvocationTypeDryRun:
		return &lambda.InvocationResponse{StatusCode: new(int32(http.StatusNoContent))}, nil
	case lambda.InvocationTypeEvent:
		return f.invokeEvent(ctx, in)
	}
	if configured {
		return f.invokeConfigured(ctx, fn, in)
	}
	return f.invokeLocal(ctx, c, in, client)
}

// clientContext reads X-Amz-Client-Context: JSON in base64.
func clientContext(text *string) (string, error) {
	if text == nil {
		return "", nil
	}
	b, err := base64.StdEncoding.DecodeString(*text)
	if err != nil || !json.Valid(b) || len(b) > 3583 {
		return "", &lambda.InvalidRequestContentException{Type: "User", Message: "Client context must be a valid Base64-encoded JSON object."}
	}
	return string(b), nil
}

func (f *Functions) invokeEvent(ctx context.Context, in *lambda.InvocationRequest) (*lambda.InvocationResponse, error) {
	if len(in.Payload) > MaxEventPayload {
		return nil, &lambda.RequestTooLargeException{Type: "User", Message: fmt.Sprintf("%d byte payload is too large for the Event invocation type (limit %d bytes)", len(in.Payload), MaxEventPayload)}
	}
	target := in.FunctionName
	if _, inName, _ := f.split(target); in.Qualifier != nil && inName == "" {
		target += ":" + *in.Qualifier
	}
	if err := f.enqueue(ctx, target, [][]byte{in.Payload}); err != nil {
		return nil, refusal(err)
	}
	return &lambda.InvocationResponse{StatusCode: new(int32(http.StatusAccepted))}, nil
}

func (f *Functions) invokeConfigured(ctx context.Context, fn *function, in *lambda.InvocationRequest) (*lambda.InvocationResponse, error) {
	start := time.Now()
	answer, err := f.invoke(ctx, fn, in.FunctionName, in.Payload)
	f.metrics.observe(fn.name, err, time.Since(start))
	out := &lambda.InvocationResponse{StatusCode: new(int32(http.StatusOK)), Payload: answer, ExecutedVersion: new(latestTag)}
	failed, ok := errors.AsType[*FunctionError](err)
	switch _, late := errors.AsType[*TimeoutError](err); {
	case err == nil:
		return out, nil
	case late:
		failed = &FunctionError{fn.name, "Unhandled", "Sandbox.Timedout", "Task timed out"}
	case !ok || failed.Kind == "":
		return nil, refusal(err)
	}
	out.FunctionError = &failed.Kind
	out.Payload, _ = json.Marshal(map[string]string{"errorType": failed.Type, "errorMessage": failed.Message}) // strings alone
	return out, nil
}

func (f *Functions) invokeLocal(ctx context.Context, c *chosen, in *lambda.InvocationRequest, client string) (*lambda.InvocationResponse, error) {
	id := newRequestID()
	if caller := aws.CallerFrom(ctx); caller != nil {
		id = caller.RequestID
	}
	arn := f.arn(c.name)
	if c.qualifier != "" {
		arn += ":" + c.qualifier
	}
	start := time.Now()
	res, err := f.local.run(ctx, c, &environment.Invocation{RequestID: id, FunctionARN: arn, Payload: in.Payload, ClientContext: client})
	var failed error
	if err == nil && res.Error != "" {
		failed = &FunctionError{c.name, res.Error, "", ""}
	}
	f.metrics.observe(c.name, errors.Join(err, failed), time.Since(start))
	if err != nil {
		return nil, refusal(err)
	}
	out := &lambda.InvocationResponse{StatusCode: new(int32(http.StatusOK)), Payload: res.Payload, ExecutedVersion: new(c.tag())}
	if res.Error != "" {
		out.FunctionError = &res.Error
	}
	if value(in.LogType) == lambda.LogTypeTail {
		out.LogResult = new(base64.StdEncoding.EncodeToString(res.Log))
	}
	return out, nil
}

// refusal turns what the room says into an exception of the API.
func refusal(err error) error {
	_, throttled := errors.AsType[*ThrottledError](err)
	_, missing := errors.AsType[*NotFoundError](err)
	_, large := errors.AsType[*TooLargeError](err)
	switch {
	case throttled, errors.Is(err, environment.ErrThrottled):
		return &lambda.TooManyRequestsException{Type: "User", Message: "Rate Exceeded.", Reason: lambda.ThrottleReasonConcurrentInvocationLimitExceeded}
	case missing:
		return &lambda.ResourceNotFoundException{Type: "User", Message: err.Error()}
	case large:
		return &lambda.RequestTooLargeException{Type: "User", Message: err.Error()}
	case errors.Is(err, environment.ErrClosed):
		return &lambda.ResourceNotReadyException{Type: "Service", Message: "The function is ending or changing. Please try again."}
	}
	if failed, ok := errors.AsType[*FunctionError](err); ok {
		return &lambda.ServiceException{Type: "Service", Message: failed.Error()}
	}
	return err
}

// InvokeAsync is the old form of an asynchronous invocation.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_InvokeAsync.html
func (f *Functions) InvokeAsync(ctx context.Context, in *lambda.InvokeAsyncRequest) (*lambda.InvokeAsyncResponse, error) {
	out, err := f.Invocation(ctx, &lambda.InvocationRequest{FunctionName: in.FunctionName, InvocationType: new(lambda.InvocationTypeEvent), Payload: in.InvokeArgs})
	if err != nil {
		return nil, err
	}
	return &lambda.InvokeAsyncResponse{Status: out.StatusCode}, nil
}
