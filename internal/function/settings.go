package function

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/lambda"
	"flotilla/internal/store"
)

// settings are those of a function as a whole, as the store has them in JSON.
type settings struct {
	Tags           map[string]string
	Statements     map[string][]*statement // by qualifier; "" is the function itself
	PolicyRevision string
	Concurrency    *int32                  // reserved
	Events         map[string]*eventConfig // by qualifier
}

// eventConfig says how asynchronous invocations are tried.
type eventConfig struct {
	Modified             int64 // ms
	Retries              *int32
	MaxAgeSeconds        *int32
	OnSuccess, OnFailure string // ARN of a function, "" none
}

const maxTags = 50

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return invalid("A function has at most %d tags.", maxTags)
	}
	for key, value := range tags {
		if key == "" || len(key) > 128 || len(value) > 256 || strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalid("The tag %.100q has a key of 1 to 128 characters that does not begin with aws:, and a value of at most 256.", key)
		}
	}
	return nil
}

// tagged gives the name of the function that an ARN means.
func (f *Functions) tagged(ctx context.Context, resource string) (*chosen, error) {
	if a, ok := aws.ParseARN(resource); !ok || !strings.HasPrefix(a.Resource, "function:") || strings.Count(a.Resource, ":") != 1 {
		return nil, invalid("%.200s is not the ARN of a function without a qualifier.", resource)
	}
	return f.choose(ctx, resource, "")
}

// ListTags gives the tags of a function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListTags.html
func (f *Functions) ListTags(ctx context.Context, in *lambda.ListTagsRequest) (*lambda.ListTagsResponse, error) {
	c, err := f.tagged(ctx, in.Resource)
	if err != nil {
		return nil, err
	}
	return &lambda.ListTagsResponse{Tags: c.settings.Tags}, nil
}

// TagResource adds tags to a function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_TagResource.html
func (f *Functions) TagResource(ctx context.Context, in *lambda.TagResourceRequest) (*lambda.TagResourceResponse, error) {
	c, err := f.tagged(ctx, in.Resource)
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		if r.settings.Tags == nil {
			r.settings.Tags = map[string]string{}
		}
		maps.Copy(r.settings.Tags, in.Tags)
		if err := checkTags(r.settings.Tags); err != nil {
			return err
		}
		return updateFunction(tx, r)
	})
	return &lambda.TagResourceResponse{}, err
}

// UntagResource takes tags off a function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UntagResource.html
func (f *Functions) UntagResource(ctx context.Context, in *lambda.UntagResourceRequest) (*lambda.UntagResourceResponse, error) {
	c, err := f.tagged(ctx, in.Resource)
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		for _, key := range in.TagKeys {
			delete(r.settings.Tags, key)
		}
		return updateFunction(tx, r)
	})
	return &lambda.UntagResourceResponse{}, err
}

// PutFunctionConcurrency bounds the processes of a function on each node; 0 throttles every invocation. Nothing is set
// aside for it.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionConcurrency.html
func (f *Functions) PutFunctionConcurrency(ctx context.Context, in *lambda.PutFunctionConcurrencyRequest) (*lambda.Concurrency, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		r.settings.Concurrency = &in.ReservedConcurrentExecutions
		return updateFunction(tx, r)
	})
	return &lambda.Concurrency{ReservedConcurrentExecutions: &in.ReservedConcurrentExecutions}, err
}

// DeleteFunctionConcurrency takes the bound of a function away.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionConcurrency.html
func (f *Functions) DeleteFunctionConcurrency(ctx context.Context, in *lambda.DeleteFunctionConcurrencyRequest) (*lambda.DeleteFunctionConcurrencyResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		r.settings.Concurrency = nil
		return updateFunction(tx, r)
	})
	return &lambda.DeleteFunctionConcurrencyResponse{}, err
}

// GetFunctionConcurrency gives the bound of a function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConcurrency.html
func (f *Functions) GetFunctionConcurrency(ctx context.Context, in *lambda.GetFunctionConcurrencyRequest) (*lambda.GetFunctionConcurrencyResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	return &lambda.GetFunctionConcurrencyResponse{ReservedConcurrentExecutions: c.settings.Concurrency}, nil
}

// PutFunctionEventInvokeConfig says how asynchronous invocations of a function are tried, in place of what was said before.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html
func (f *Functions) PutFunctionEventInvokeConfig(ctx context.Context, in *lambda.PutFunctionEventInvokeConfigRequest) (*lambda.FunctionEventInvokeConfig, error) {
	return f.setEvents(ctx, in.FunctionName, value(in.Qualifier), new(eventConfig), in.MaximumRetryAttempts, in.MaximumEventAgeInSeconds, in.DestinationConfig)
}

// UpdateFunctionEventInvokeConfig changes what is given of it.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionEventInvokeConfig.html
func (f *Functions) UpdateFunctionEventInvokeConfig(ctx context.Context, in *lambda.UpdateFunctionEventInvokeConfigRequest) (*lambda.FunctionEventInvokeConfig, error) {
	return f.setEvents(ctx, in.FunctionName, value(in.Qualifier), nil, in.MaximumRetryAttempts, in.MaximumEventAgeInSeconds, in.DestinationConfig)
}

// setEvents changes a configuration; from is what to begin with, nil for what there is.
func (f *Functions) setEvents(ctx context.Context, name, qualifier string, from *eventConfig, retries, age *int32, to *lambda.DestinationConfig) (*lambda.FunctionEventInvokeConfig, error) {
	c, err := f.choose(ctx, name, qualifier)
	if err != nil {
		return nil, err
	}
	var out *lambda.FunctionEventInvokeConfig
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		e := r.settings.Events[c.qualifier]
		switch {
		case from != nil:
			e = new(*from)
		case e == nil:
			return noEventConfig(f, r, c.qualifier)
		}
		if retries != nil {
			e.Retries = retries
		}
		if age != nil {
			e.MaxAgeSeconds = age
		}
		if err := f.setDestinations(r, e, to); err != nil {
			return err
		}
		e.Modified = f.now().UnixMilli()
		if r.settings.Events == nil {
			r.settings.Events = map[string]*eventConfig{}
		}
		r.settings.Events[c.qualifier] = e
		out = f.eventConfig(r, c.qualifier)
		return updateFunction(tx, r)
	})
	return out, err
}

func (f *Functions) setDestinations(r *record, e *eventConfig, to *lambda.DestinationConfig) error {
	if to == nil {
		return nil
	}
	check := func(what, arn string) (string, error) {
		name, _, ok := f.split(arn)
		switch {
		case arn == "":
			return "", nil
		case !ok || !strings.HasPrefix(arn, "arn:"):
			return "", invalid("%s: a destination other than a function of this account is not implemented.", what)
		case name == r.name:
			return "", invalid("%s: a function is not its own destination.", what)
		}
		return arn, nil
	}
	var err error
	if to.OnSuccess != nil {
		if e.OnSuccess, err = check("OnSuccess", value(to.OnSuccess.Destination)); err != nil {
			return err
		}
	}
	if to.OnFailure != nil {
		e.OnFailure, err = check("OnFailure", value(to.OnFailure.Destination))
	}
	return err
}

func noEventConfig(f *Functions, r *record, qualifier string) error {
	if qualifier == "" {
		qualifier = latestTag
	}
	return &lambda.ResourceNotFoundException{Type: "User", Message: "The function " + f.arn(r.name) + ":" + qualifier + " doesn't have an EventInvokeConfig"}
}

// eventConfig describes a configuration.
func (f *Functions) eventConfig(r *record, qualifier string) *lambda.FunctionEventInvokeConfig {
	e := r.settings.Events[qualifier]
	if qualifier == "" {
		qualifier = latestTag
	}
	out := &lambda.FunctionEventInvokeConfig{
		LastModified: &aws.Time{Time: time.UnixMilli(e.Modified)}, FunctionArn: new(f.arn(r.name) + ":" + qualifier),
		MaximumRetryAttempts: e.Retries, MaximumEventAgeInSeconds: e.MaxAgeSeconds,
		DestinationConfig: &lambda.DestinationConfig{OnSuccess: &lambda.OnSuccess{}, OnFailure: &lambda.OnFailure{}},
	}
	if e.OnSuccess != "" {
		out.DestinationConfig.OnSuccess.Destination = &e.OnSuccess
	}
	if e.OnFailure != "" {
		out.DestinationConfig.OnFailure.Destination = &e.OnFailure
	}
	return out
}

// GetFunctionEventInvokeConfig says how asynchronous invocations of a function are tried.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionEventInvokeConfig.html
func (f *Functions) GetFunctionEventInvokeConfig(ctx context.Context, in *lambda.GetFunctionEventInvokeConfigRequest) (*lambda.FunctionEventInvokeConfig, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	if c.settings.Events[c.qualifier] == nil {
		return nil, noEventConfig(f, c.record, c.qualifier)
	}
	return f.eventConfig(c.record, c.qualifier), nil
}

// DeleteFunctionEventInvokeConfig goes back to two retries within six hours.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionEventInvokeConfig.html
func (f *Functions) DeleteFunctionEventInvokeConfig(ctx context.Context, in *lambda.DeleteFunctionEventInvokeConfigRequest) (*lambda.DeleteFunctionEventInvokeConfigResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		if r.settings.Events[c.qualifier] == nil {
			return noEventConfig(f, r, c.qualifier)
		}
		delete(r.settings.Events, c.qualifier)
		return updateFunction(tx, r)
	})
	return &lambda.DeleteFunctionEventInvokeConfigResponse{}, err
}

// ListFunctionEventInvokeConfigs lists those of a function, on one page.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionEventInvokeConfigs.html
func (f *Functions) ListFunctionEventInvokeConfigs(ctx context.Context, in *lambda.ListFunctionEventInvokeConfigsRequest) (*lambda.ListFunctionEventInvokeConfigsResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	out := &lambda.ListFunctionEventInvokeConfigsResponse{}
	for _, qualifier := range slices.Sorted(maps.Keys(c.settings.Events)) {
		out.FunctionEventInvokeConfigs = append(out.FunctionEventInvokeConfigs, f.eventConfig(c.record, qualifier))
	}
	return out, nil
}
