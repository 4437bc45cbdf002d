// Package action executes what topic rules do with the messages that they select.
//
// Each kind of action of AWS's model that works here has a file of its own, and
// all have a line in the table kinds; those that do not are refused by name.
// Compile turns an action of a rule, as its author wrote it, into an Action: what
// it is called, which of its fields are substitution templates, how large its
// batches are. Open makes the Sink that executes it, with the engine that the
// deployment has for it (Env): which stream, directory or service stands behind a
// Kinesis stream or an S3 bucket is configuration, never part of the rule.
//
//	republish  the gateway
//	kinesis    stream in NATS JetStream, named by streamName; the subject carries the partition key
//	sns        stream named by the topic of targetArn
//	sqs        work-queue stream named by the queue of queueUrl
//	firehose   Parquet archive of package telemetry, directory named by deliveryStreamName
//	http       POST to a confirmed web service, through package outbound
//	timestream live store of package telemetry/live, by databaseName and tableName
//	s3         file <objects>/<bucket>/<key>, or an object of an S3-compatible service
//	cloudwatchAlarm   state in the store, which /metrics shows as flotilla_cloudwatch_alarm
//	cloudwatchLogs    log group, a directory of package loggroup
//	cloudwatchMetric  flotilla_cloudwatch_metric of /metrics, labelled with namespace, name and unit
//
// Sinks are called by one goroutine at a time with records in order, again and
// again until they succeed; what they can not do twice without effect, they must
// recognise by Record.ID.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-rule-actions.html
package action
