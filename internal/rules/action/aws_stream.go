package action

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"unicode/utf8"
)

// onAWSKinesis appends to a stream of Kinesis: up to 500 records and 5 MiB in a call. Those of one call that are refused
// are sent again in their order. Without a partitionKey the record's id is the key, which spreads them over shards.
//
// AWS: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
func onAWSKinesis(env Env, stream, key int, check func(string) error) (Sink, error) {
	type entry struct {
		Data         []byte
		PartitionKey string
	}
	s := &awsSink[entry]{limit: weight{500, 5 << 20}, resource: func(r *Record) string { return r.Fields[stream] }}
	s.entry = func(r *Record) (entry, weight, error) {
		e := entry{r.Payload, optional(r, key, strconv.FormatInt(r.ID, 10))}
		switch {
		case check(r.Fields[stream]) != nil:
			return e, weight{}, check(r.Fields[stream])
		case e.PartitionKey == "" || utf8.RuneCountInString(e.PartitionKey) > maxPartitionKey:
			return e, weight{}, fmt.Errorf("partitionKey has 1 to %d characters", maxPartitionKey)
		}
		return e, one(r, len(e.PartitionKey)), nil
	}
	s.send = func(ctx context.Context, resource string, entries []entry) ([]error, error) {
		in := struct {
			StreamName string
			Records    []entry
		}{resource, entries}
		var out struct {
			Records []struct{ ErrorCode, ErrorMessage string }
		}
		if err := s.aws.JSON(ctx, "kinesis", "Kinesis_20131202.PutRecords", "1.1", in, &out); err != nil {
			return nil, err
		}
		if len(out.Records) != len(entries) {
			return nil, errors.New("kinesis: the answer is not about all records")
		}
		failed := make([]error, len(entries))
		for i, r := range out.Records {
			if r.ErrorCode != "" {
				failed[i] = refused(r.ErrorCode, r.ErrorMessage)
			}
		}
		return failed, nil
	}
	return s.start(env)
}

// onAWSFirehose sends to a delivery stream: up to 500 records and 4 MiB in a call. A message that is several records is
// sent whole again when one of them is refused.
//
// AWS: https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html
func onAWSFirehose(env Env, stream int, separator string, split bool) (Sink, error) {
	const most = 500
	type record struct{ Data []byte }
	s := &awsSink[[]record]{limit: weight{most, 4 << 20}, resource: func(r *Record) string { return r.Fields[stream] }}
	s.entry = func(r *Record) (out []record, w weight, err error) {
		for _, p := range parts(r, split) {
			data := append(slices.Clip(p), separator...)
			out, w.rows, w.bytes = append(out, record{data}), w.rows+1, w.bytes+len(data)
		}
		if w.rows > most {
			err = fmt.Errorf("the message is %d records; firehose takes %d at once", w.rows, most)
		}
		return out, w, err
	}
	s.send = func(ctx context.Context, resource string, entries [][]record) ([]error, error) {
		in := struct {
			DeliveryStreamName string
			Records            []record
		}{resource, slices.Concat(entries...)}
		if len(in.Records) == 0 { // messages that are empty arrays
			return nil, nil
		}
		var out struct {
			RequestResponses []struct{ ErrorCode, ErrorMessage string }
		}
		if err := s.aws.JSON(ctx, "firehose", "Firehose_20150804.PutRecordBatch", "1.1", in, &out); err != nil {
			return nil, err
		}
		if len(out.RequestResponses) != len(in.Records) {
			return nil, errors.New("firehose: the answer is not about all records")
		}
		failed, n := make([]error, len(entries)), 0
		for i, e := range entries {
			for _, r := range out.RequestResponses[n : n+len(e)] {
				if r.ErrorCode != "" {
					failed[i] = refused(r.ErrorCode, r.ErrorMessage)
				}
			}
			n += len(e)
		}
		return failed, nil
	}
	return s.start(env)
}

var errNotText = errors.New("the payload is not UTF-8 text")

// outcome is what an answer says of the entries of a batch that have ids: those that are done are the others.
type outcome struct{ Id, Code, Message string }

// outcomes gives the errors of n entries whose ids are their positions.
func outcomes(n int, out []outcome) []error {
	failed := make([]error, n)
	for _, o := range out {
		if i, err := strconv.Atoi(o.Id); err == nil && i >= 0 && i < n {
			failed[i] = refused(o.Code, o.Message)
		}
	}
	return failed
}

// onAWSSNS publishes to a topic: up to 10 messages and 256 KiB in a call.
//
// AWS: https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html
func onAWSSNS(env Env, target int, structured bool, check func(string) error) (Sink, error) {
	s := &awsSink[string]{limit: weight{10, 256 << 10}, resource: func(r *Record) string { return r.Fields[target] }}
	s.entry = func(r *Record) (string, weight, error) {
		err := check(r.Fields[target])
		if err == nil && !utf8.Valid(r.Payload) {
			err = errNotText
		}
		return string(r.Payload), one(r, 0), err
	}
	s.send = func(ctx context.Context, resource string, entries []string) ([]error, error) {
		form := url.Values{"Action": {"PublishBatch"}, "TopicArn": {resource}}
		for i, text := range entries {
			member := fmt.Sprintf("PublishBatchRequestEntries.member.%d.", i+1)
			form.Set(member+"Id", strconv.Itoa(i))
			form.Set(member+"Message", text)
			if structured {
				form.Set(member+"MessageStructure", "json")
			}
		}
		answer, err := s.aws.Query(ctx, "sns", "2010-03-31", form)
		if err != nil {
			return nil, err
		}
		var out struct {
			Failed []outcome `xml:"PublishBatchResult>Failed>member"`
		}
		if err := xml.Unmarshal(answer, &out); err != nil {
			return nil, fmt.Errorf("sns: the answer is not XML: %w", err)
		}
		return outcomes(len(entries), out.Failed), nil
	}
	return s.start(env)
}

// onAWSSQS sends to a queue: up to 10 messages and 256 KiB in a call.
//
// AWS: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
func onAWSSQS(env Env, target int, encode bool, check func(string) error) (Sink, error) {
	type entry struct{ Id, MessageBody string }
	s := &awsSink[entry]{limit: weight{10, 256 << 10}, resource: func(r *Record) string { return r.Fields[target] }}
	s.entry = func(r *Record) (e entry, w weight, err error) {
		if err = check(r.Fields[target]); err != nil {
			return e, w, err
		}
		if e.MessageBody = string(r.Payload); encode {
			e.MessageBody = base64.StdEncoding.EncodeToString(r.Payload)
		} else if !utf8.Valid(r.Payload) {
			err = errNotText
		}
		return e, weight{1, len(e.MessageBody)}, err
	}
	s.send = func(ctx context.Context, resource string, entries []entry) ([]error, error) {
		for i := range entries {
			entries[i].Id = strconv.Itoa(i)
		}
		in := struct {
			QueueUrl string
			Entries  []entry
		}{resource, entries}
		var out struct{ Failed []outcome }
		if err := s.aws.JSON(ctx, "sqs", "AmazonSQS.SendMessageBatch", "1.0", in, &out); err != nil {
			return nil, err
		}
		return outcomes(len(entries), out.Failed), nil
	}
	return s.start(env)
}
