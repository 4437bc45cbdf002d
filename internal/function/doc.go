// Package function runs what AWS gives to Lambda: functions that provisioning hooks, custom authorizers and rules call, and
// whoever calls the Lambda API.
//
// A function is configured, or it was created:
//
//	--function.endpoint arn:aws:lambda:us-east-1:123456789012:function:authorise=https://functions.internal/authorise
//	--function.endpoint hook=lambda://eu-central-1/hook
//	aws lambda create-function --function-name hook --runtime provided.al2023 --zip-file fileb://hook.zip ...
//
// The scheme of a configured address is its kind. http and https are an endpoint that takes the payload as the body of a POST
// and answers with the result; lambda is a function of AWS Lambda, or of what speaks its API. What was created is a zip in
// the store, which each node unpacks and runs as processes of its own (package environment); see docs/adr/0012.
//
//	rooms ── Invoke, InvokeEvents ──┐  as iot.amazonaws.com: AddPermission decides (permission.go)
//	Lambda API ── Invocation ───────┤  as the holder of an access key: its IAM policies have decided
//	                                ├── configured: endpoint.go, remote.go
//	                                ├── created: local.go ── environment
//	                                └── asynchronous: rows in the store, tried until done (event.go)
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
package function
