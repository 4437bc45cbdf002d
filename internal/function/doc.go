// Package function runs what AWS gives to Lambda: functions that provisioning hooks, custom authorisers and rules call.
//
// A function has an ARN, or just a name, and an address that says how it is run. Configuration maps one to the other:
//
//	--function.endpoint arn:aws:lambda:us-east-1:123456789012:function:authorise=https://functions.internal/authorise
//	--function.endpoint hook=http://127.0.0.1:9000/hook
//
// The scheme of the address is the kind of the function. One kind exists: http and https, an endpoint that takes the
// payload as the body of a POST and answers with the result, as a function behind Lambda's Invoke API does. Further
// kinds (a local executable behind the Lambda Runtime API, AWS's own Lambda) are further schemes behind the same
// [Functions.Invoke].
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
package function
