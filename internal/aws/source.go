package aws

import "context"

type sourceKey struct{}

// WithSource returns a context in which [SourceFrom] finds the ARN of the resource on whose behalf the server calls
// something: the rule, authorizer or template. It is what AWS's conditions call aws:SourceArn.
func WithSource(ctx context.Context, arn string) context.Context {
	return context.WithValue(ctx, sourceKey{}, arn)
}

// SourceFrom is the resource on whose behalf the server calls something; "" when it is not known.
func SourceFrom(ctx context.Context) string {
	arn, _ := ctx.Value(sourceKey{}).(string)
	return arn
}
