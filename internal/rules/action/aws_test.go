package action_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/awsclient"
	"flotilla/internal/rules/action"
)

const role = "arn:aws:iam::123456789012:role/rules"

// client calls what is at an address as AWS.
func client(t *testing.T, at string) *awsclient.Client {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	c, err := awsclient.New(awsclient.Config{EndpointURL: at, Region: "us-east-1"}, "us-east-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sink opens an action that AWS serves.
func sink(t *testing.T, to action.AWS, a *iot.Action) action.Sink {
	t.Helper()
	compiled, err := action.Compile(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := action.Env{Account: aws.Account{Region: "us-east-1", ID: "123456789012"}, Source: 7, AWS: to, Engines: engines, Now: time.Now}
	s, err := compiled.Open(env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var received = time.UnixMilli(1764072000123)

func record(id int64, payload string, fields ...string) action.Record {
	return action.Record{ID: id, Rule: "r", Topic: "t", Received: received, Payload: []byte(payload), Fields: fields}
}

func must(t *testing.T, s action.Sink, records ...action.Record) {
	t.Helper()
	if done, err := s.Do(t.Context(), records); err != nil || done != len(records) {
		t.Fatalf("%d done, %v", done, err)
	}
}

// scripted answers each request with the next of its answers, the last one for ever.
type scripted struct {
	mu      sync.Mutex
	answers []string // "STATUS body"
	got     []string // "path target body"
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, strings.TrimSpace(r.URL.EscapedPath()+" "+r.Header.Get("X-Amz-Target"))+" "+string(body))
	answer := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	var status int
	_, _ = fmt.Sscan(answer[:3], &status)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer[4:])
}

func script(t *testing.T, answers ...string) (*scripted, *awsclient.Client) {
	t.Helper()
	s := &scripted{answers: answers}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, client(t, server.URL)
}

var kinesisAction = &iot.Action{Kinesis: &iot.KinesisAction{RoleArn: role, StreamName: "s", PartitionKey: new("k")}}

// Of a call that is done in part, only what failed is sent again, and nothing twice.
//
// AWS: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
func TestAWSPartialFailure(t *testing.T) {
	s, c := script(
		t,
		`200 {"FailedRecordCount":2,"Records":[{"SequenceNumber":"1","ShardId":"s"},{"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"Rate exceeded"},{"SequenceNumber":"2"},{"ErrorCode":"InternalFailure","ErrorMessage":"Internal service failure."}]}`,
		`200 {"FailedRecordCount":0,"Records":[{"SequenceNumber":"3"},{"SequenceNumber":"4"}]}`,
	)
	k := sink(t, c, kinesisAction)
	records := []action.Record{record(1, "a", "s", "k"), record(2, "b", "s", "k"), record(3, "c", "s", "k"), record(4, "d", "s", "k")}
	done, err := k.Do(t.Context(), records)
	if done != 1 || err == nil || action.IsPermanent(err) || !strings.Contains(err.Error(), "Rate exceeded") {
		t.Fatalf("%d %v", done, err)
	}
	must(t, k, records[1:]...)
	want := []string{
		`/ Kinesis_20131202.PutRecords {"StreamName":"s","Records":[{"Data":"YQ==","PartitionKey":"k"},{"Data":"Yg==","PartitionKey":"k"},{"Data":"Yw==","PartitionKey":"k"},{"Data":"ZA==","PartitionKey":"k"}]}`,
		`/ Kinesis_20131202.PutRecords {"StreamName":"s","Records":[{"Data":"Yg==","PartitionKey":"k"},{"Data":"ZA==","PartitionKey":"k"}]}`,
	}
	if diff := cmp.Diff(want, s.got); diff != "" {
		t.Error(diff)
	}
}

// A call that is refused for one of its records is made for each, and the others get through.
func TestAWSRefusedRecord(t *testing.T) {
	good := `200 {"Records":[{"SequenceNumber":"1"}]}`
	bad := `400 {"__type":"ValidationException","message":"1 validation error detected"}`
	s, c := script(t, bad, good, bad, good)
	k := sink(t, c, kinesisAction)
	records := []action.Record{record(1, "a", "s", "k"), record(2, "b", "s", "k"), record(3, "c", "s", "k")}
	done, err := k.Do(t.Context(), records)
	if done != 1 || !action.IsPermanent(err) {
		t.Fatalf("%d %v", done, err)
	}
	must(t, k, records[2:]...)
	if len(s.got) != 4 {
		t.Errorf("%d calls", len(s.got))
	}
}

// What an operator or time mends is tried again; a call that was not answered, too.
func TestAWSTemporary(t *testing.T) {
	for _, answer := range []string{
		`400 {"__type":"ResourceNotFoundException","message":"Stream s under account 123456789012 not found."}`,
		`400 {"__type":"LimitExceededException"}`, `503 `, `403 {"__type":"AccessDeniedException"}`, `200 {"Records":[]}`,
	} {
		_, c := script(t, answer)
		done, err := sink(t, c, kinesisAction).Do(t.Context(), []action.Record{record(1, "a", "s", "k")})
		if done != 0 || err == nil || action.IsPermanent(err) {
			t.Errorf("%s: %d %v", answer, done, err)
		}
	}
}

// Calls keep within the limits of the service: of records, of bytes, and of one stream each.
func TestAWSLimits(t *testing.T) {
	var calls []int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Records []json.RawMessage }
		_ = json.NewDecoder(r.Body).Decode(&in)
		calls = append(calls, len(in.Records))
		_ = json.NewEncoder(w).Encode(map[string]any{"Records": make([]struct{}, len(in.Records))})
	}))
	defer server.Close()
	k := sink(t, client(t, server.URL), kinesisAction)
	var records []action.Record
	for i := range 501 {
		records = append(records, record(int64(i), "x", "s", "k"))
	}
	big := strings.Repeat("x", 3<<20)
	must(t, k, append(records, record(1001, big, "s", "k"), record(1002, big, "s", "k"), record(1003, "x", "other", "k"))...)
	if diff := cmp.Diff([]int{500, 2, 1, 1}, calls); diff != "" {
		t.Error(diff)
	}
	if done, err := k.Do(t.Context(), []action.Record{record(1, "x", "s", strings.Repeat("k", 257))}); done != 0 || !action.IsPermanent(err) {
		t.Errorf("%d %v", done, err)
	}
}

// An execution that an attempt before this one started is not started again, and is no failure.
func TestStepFunctionsOnce(t *testing.T) {
	s, c := script(t, `200 {"executionArn":"e","startDate":1}`, `400 {"__type":"com.amazonaws.swf.service.v2.model#ExecutionAlreadyExists","message":"Execution Already Exists"}`)
	a := &iot.Action{StepFunctions: &iot.StepFunctionsAction{RoleArn: role, StateMachineName: "m", ExecutionNamePrefix: new("p-")}}
	f := sink(t, c, a)
	must(t, f, record(1, `{"a":1}`, "m", "p-"))
	must(t, f, record(1, `{"a":1}`, "m", "p-"))
	if len(s.got) != 2 || s.got[0] != s.got[1] || !strings.Contains(s.got[0], `"stateMachineArn":"arn:aws:states:us-east-1:123456789012:stateMachine:m","name":"p-`) {
		t.Errorf("%q", s.got)
	}
}

// Requests of the services that no stand-in has. They are what AWS's SDK for Python (botocore 1.43.11) sends for the same
// parameters, but for spaces, the order of members and zeros at the end of fractions; iotAnalytics, which it no longer has,
// is by its API reference.
func TestAWSGoldenRequests(t *testing.T) {
	tests := []struct {
		name   string
		action *iot.Action
		record action.Record
		answer string
		want   string
	}{
		{
			"iotEvents", &iot.Action{IotEvents: &iot.IotEventsAction{RoleArn: role, InputName: "in", MessageId: new("m1")}},
			record(1, `{"a":1}`, "in", "m1"), `200 {"BatchPutMessageErrorEntries":[]}`,
			`/inputs/messages {"messages":[{"inputName":"in","messageId":"m1","payload":"eyJhIjoxfQ=="}]}`,
		},
		{
			"iotAnalytics", &iot.Action{IotAnalytics: &iot.IotAnalyticsAction{RoleArn: new(role), ChannelName: new("ch"), BatchMode: new(true)}},
			record(1, `[1,2]`, "ch"), `200 {"batchPutMessageErrorEntries":[]}`,
			`/messages/batch {"channelName":"ch","messages":[{"messageId":"1-0","payload":"MQ=="},{"messageId":"1-1","payload":"Mg=="}]}`,
		},
		{
			"location", &iot.Action{Location: &iot.LocationAction{RoleArn: role, TrackerName: "t r", DeviceId: "d", Latitude: "1", Longitude: "2", Timestamp: &iot.LocationTimestamp{Value: "1764072000123"}}},
			record(1, `{}`, "t r", "d", "-12.5", "170.25", "1764072000123"), `200 {"Errors":[]}`,
			`/tracking/v0/trackers/t%20r/positions {"Updates":[{"DeviceId":"d","Position":[170.25,-12.5],"SampleTime":"2025-11-25T12:00:00.123Z"}]}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, c := script(t, test.answer)
			must(t, sink(t, c, test.action), test.record)
			if diff := cmp.Diff([]string{test.want}, s.got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An action that only AWS has is refused where there are no credentials, and so is an engine.
func TestAWSNeedsCredentials(t *testing.T) {
	compiled, err := action.Compile(&iot.Action{StepFunctions: &iot.StepFunctionsAction{RoleArn: role, StateMachineName: "m"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Check(action.Env{}); err == nil || !strings.Contains(err.Error(), "stepFunctions") {
		t.Error(err)
	}
	if err := engines.Check(nil); err == nil || !strings.Contains(err.Error(), "=aws") {
		t.Error(err)
	}
}
