// Package awsclient calls services of AWS, or what speaks their API.
//
// It has the SDK's signer and cache of credentials, and none of the SDK's generated clients: each of them would make the
// binary one to two megabytes larger for the one or two operations that rules call. A caller names the operation and gives
// the members as AWS's API reference has them, by one of the three protocols:
//
//	JSON   awsJson1_0, awsJson1_1: Kinesis, Firehose, SQS, DynamoDB, Timestream, EventBridge, CloudWatch Logs, Step Functions
//	Query  awsQuery: SNS, CloudWatch
//	REST   rest-json: IoT Events, IoT SiteWise, IoT Analytics, Location; OpenSearch
//
// A call is one attempt. What is to be repeated is in the caller's outbox, and [Error.Temporary] says whether it helps.
//
// Credentials are looked for where AWS's SDKs look: the environment, the profile in the shared files (static keys), a web
// identity, the container's endpoint, and, if Config.InstanceRole allows, the instance's metadata.
//
// AWS: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
package awsclient
