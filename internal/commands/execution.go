package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

const (
	defaultTimeout = 10           // s, as AWS has it
	maxTimeout     = 12 * 60 * 60 // s, as AWS has it
	noResponse     = "$NO_RESPONSE_FROM_DEVICE"
	publishTime    = 10 * time.Second
)

// execution is a row of command_execution.
type execution struct {
	target, id, command                   string
	status                                string
	reason                                *iot.StatusReason
	result                                map[string]*iot.CommandExecutionResult
	parameters                            map[string]*iot.CommandParameterValue
	timeout                               int64
	due                                   int64
	final                                 bool
	token                                 string
	created, modified, started, completed int64
}

const executionColumns = `target, id, command, status, reason, result, parameters, timeout, due, final, token, created, modified, started, completed`

func scanExecution(scan func(...any) error) (*execution, error) {
	var e execution
	var reason, result, parameters string
	err := scan(&e.target, &e.id, &e.command, &e.status, &reason, &result, &parameters, &e.timeout, &e.due, &e.final, &e.token,
		&e.created, &e.modified, &e.started, &e.completed)
	if err != nil {
		return nil, err
	}
	for text, into := range map[*string]any{&reason: &e.reason, &result: &e.result, &parameters: &e.parameters} {
		if *text != "" {
			err = errors.Join(err, json.Unmarshal([]byte(*text), into))
		}
	}
	return &e, err
}

// textOrNone is v as JSON; "" when there is nothing of it.
func textOrNone[T any](v T, none bool) (string, error) {
	if none {
		return "", nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

func selectExecution(tx store.Tx, target, id string) (*execution, error) {
	return scanExecution(tx.QueryRow(`SELECT `+executionColumns+` FROM command_execution WHERE target = $1 AND id = $2`, target, id).Scan)
}

func insertExecution(tx store.Tx, e *execution) error {
	parameters, err := textOrNone(e.parameters, len(e.parameters) == 0)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO command_execution (`+executionColumns+`) VALUES ($1, $2, $3, $4, '', '', $5, $6, $7, FALSE, $8, $9, $9, 0, 0)`,
		e.target, e.id, e.command, e.status, parameters, e.timeout, e.due, e.token, e.created)
	return err
}

func saveExecution(tx store.Tx, e *execution) error {
	reason, err := textOrNone(e.reason, e.reason == nil)
	if err != nil {
		return err
	}
	result, err := textOrNone(e.result, e.result == nil)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE command_execution SET status = $3, reason = $4, result = $5, due = $6, final = $7, modified = $8, started = $9, completed = $10
		WHERE target = $1 AND id = $2`, e.target, e.id, e.status, reason, result, e.due, e.final, e.modified, e.started, e.completed)
	return err
}

// move changes the status as of now; nothing when that is not possible. A device may report an end after its time was up,
// once; IN_PROGRESS it may report again.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-remote-command-concepts.html
func (e *execution) move(status string, byDevice bool, now int64) bool {
	if e.final {
		return false
	}
	switch status {
	case iot.CommandExecutionStatusInProgress:
		if e.status == iot.CommandExecutionStatusTimedOut {
			return false
		}
		if e.started == 0 {
			e.started = now
		}
	case iot.CommandExecutionStatusSucceeded, iot.CommandExecutionStatusFailed, iot.CommandExecutionStatusRejected, iot.CommandExecutionStatusTimedOut:
		e.final, e.due, e.completed = byDevice, 0, now
		if byDevice && e.started == 0 {
			e.started = now
		}
	default:
		return false
	}
	e.status, e.modified = status, now
	return true
}

// event tells of a status, where somebody awaits it.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/command-events.html
func (c *Commands) event(ctx context.Context, e *execution) error {
	topic := "$aws/events/commandExecution/" + e.command + "/" + e.status
	if c.Events == nil || !c.Publisher.Awaited(topic) {
		return nil
	}
	payload, err := json.Marshal(map[string]any{
		"executionId": e.id, "status": e.status, "statusReason": e.reason, "eventType": "COMMAND_EXECUTION", "commandArn": c.arn(e.command),
		"targetArn": c.targetARN(e.target), "timestamp": e.modified,
	})
	if err != nil {
		return err
	}
	return c.Events.Emit(ctx, topic, payload)
}

// StartCommandExecution sends a command to a thing or to a client that is no thing: once it returns the request is kept for
// the device's session. The same request with its client token again gives the same execution, and sends it if that failed.
//
// Errors: iotjobsdata.ValidationException, ResourceNotFoundException (command, thing), ConflictException (the command is
// deprecated or is being deleted, the token is of another request), ServiceQuotaExceededException (executions that the
// device has not ended).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_StartCommandExecution.html
func (c *Commands) StartCommandExecution(ctx context.Context, in *iotjobsdata.StartCommandExecutionRequest) (*iotjobsdata.StartCommandExecutionResponse, error) {
	target, ok := c.targetOf(in.TargetArn)
	if !ok {
		return nil, invalidStart("targetArn is not the ARN of a thing or a client of this account")
	}
	id, ok := strings.CutPrefix(in.CommandArn, c.Account.ARN("iot", "command/"))
	if !ok || id == "" {
		return nil, invalidStart("commandArn is not the ARN of a command of this account")
	}
	e := &execution{
		target: target, id: uuid.NewString(), command: id, status: iot.CommandExecutionStatusCreated, timeout: defaultTimeout,
		parameters: parametersOf(in.Parameters), token: value(in.ClientToken), created: c.nowMS(),
	}
	if in.ExecutionTimeoutSeconds != nil {
		e.timeout = *in.ExecutionTimeoutSeconds
	}
	if e.timeout < 1 || e.timeout > maxTimeout {
		return nil, invalidStart("executionTimeoutSeconds is between 1 and %d", maxTimeout)
	}
	if len(e.token) > 64 || strings.Contains(e.token, unsent) {
		return nil, invalidStart("clientToken has at most 64 characters, none a space")
	}
	size := 0
	for name, v := range e.parameters {
		size += len(name) + len(textOf(v))
	}
	if size > maxPayload {
		return nil, invalidStart("Parameters have at most %d bytes, as payloads", maxPayload)
	}
	e.due = e.created + 1000*e.timeout
	if name, is := strings.CutPrefix(target, "thing/"); is {
		_, err := c.Things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: name})
		if _, missing := errors.AsType[*iot.ResourceNotFoundException](err); missing {
			return nil, &iotjobsdata.ResourceNotFoundException{Message: "Thing " + name + " does not exist"}
		}
		if err != nil {
			return nil, err
		}
	}
	e, m, err := c.start(ctx, e)
	if err == nil && m != nil {
		err = c.send(ctx, e, m)
	}
	if err != nil {
		return nil, err
	}
	return &iotjobsdata.StartCommandExecutionResponse{ExecutionId: &e.id}, nil
}

// unsent begins the token of an execution that could not be sent; no client's token has a space.
const unsent = " "

// earlier is the execution that the token of another has started before; nil when there is none.
func earlier(tx store.Tx, e *execution) (*execution, error) {
	if e.token == "" {
		return nil, nil
	}
	list, err := executions(tx, `SELECT `+executionColumns+` FROM command_execution WHERE token IN ($1, $2)`, e.token, unsent+e.token)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	was := list[0]
	before, err := json.Marshal(was.parameters)
	if err != nil {
		return nil, err
	}
	now, err := json.Marshal(e.parameters)
	if err != nil {
		return nil, err
	}
	same := string(before) == string(now) || len(was.parameters)+len(e.parameters) == 0
	if !same || was.target != e.target || was.command != e.command || was.timeout != e.timeout {
		return nil, &iotjobsdata.ConflictException{Message: "The client token is that of another request", ResourceId: e.command}
	}
	return was, nil
}

// start writes a new execution and gives it with its message, or the one that its token has started before; without a
// message if that was sent, or has ended.
func (c *Commands) start(ctx context.Context, e *execution) (out *execution, m *mqtt.Message, err error) {
	err = c.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		out, m = e, nil
		was, err := earlier(tx, e)
		if err != nil {
			return err
		}
		if was != nil {
			out = was
			if was.due == 0 || !strings.HasPrefix(was.token, unsent) {
				return nil
			}
		}
		def, err := selectCommand(tx, e.command)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return &iotjobsdata.ResourceNotFoundException{Message: "Command " + e.command + " does not exist"}
		case err != nil:
			return err
		case def.deprecated:
			return &iotjobsdata.ConflictException{Message: "Command " + e.command + " is deprecated", ResourceId: e.command}
		case def.deleting > 0:
			return &iotjobsdata.ConflictException{Message: "Command " + e.command + " is pending deletion", ResourceId: e.command}
		}
		payload, contentType, err := payloadOf(def.def, e.parameters, e.timeout)
		if v, is := errors.AsType[*iot.ValidationException](err); is {
			return invalidStart("%s", v.Message)
		}
		if err != nil {
			return err
		}
		m = request(out, payload, contentType)
		if was != nil {
			_, err := tx.Exec(`UPDATE command_execution SET token = $3 WHERE target = $1 AND id = $2`, was.target, was.id, e.token)
			return err
		}
		var active int
		err = tx.QueryRow(`SELECT COUNT(*) FROM (SELECT 1 AS one FROM command_execution WHERE due > 0 AND target = $1 LIMIT $2) AS active`, e.target, c.cfg.MaxActive).Scan(&active)
		if err != nil {
			return err
		}
		if active >= c.cfg.MaxActive {
			return &iotjobsdata.ServiceQuotaExceededException{Message: fmt.Sprintf("%s has %d executions that it has not ended", e.target, active)}
		}
		e.modified = e.created
		return errors.Join(insertExecution(tx, e), c.event(ctx, e))
	})
	return out, m, err
}

// request is the message that a device gets.
func request(e *execution, payload []byte, contentType string) *mqtt.Message {
	topic := topicOf(e.target, e.id) + "request"
	utf8 := byte(1)
	format := &utf8
	switch contentType {
	case typeJSON:
		topic += "/json"
	case typeCBOR:
		topic, format = topic+"/cbor", nil
	default:
		if !strings.HasPrefix(contentType, "text/") {
			format = nil
		}
	}
	return &mqtt.Message{
		Topic: topic, Payload: payload, QoS: 1, Received: time.UnixMilli(e.created),
		Properties: &mqtt.PublishProperties{
			PayloadFormat: format, ContentType: contentType, ResponseTopic: topicOf(e.target, e.id) + "response/json", MessageExpiry: new(uint32(e.timeout)),
		},
	}
}

func (c *Commands) send(ctx context.Context, e *execution, m *mqtt.Message) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTime)
	defer cancel()
	err := c.Publisher.Publish(ctx, m)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("commands: execution %s: %w", e.id, err)
	if e.token == "" {
		return err
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), publishTime)
	defer cancel()
	return errors.Join(err, c.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE command_execution SET token = $3 WHERE target = $1 AND id = $2`, e.target, e.id, unsent+strings.TrimPrefix(e.token, unsent))
		return err
	}))
}

func parametersOf(in map[string]*iotjobsdata.CommandParameterValue) map[string]*iot.CommandParameterValue {
	out := map[string]*iot.CommandParameterValue{}
	for k, v := range in {
		if v != nil {
			out[k] = &iot.CommandParameterValue{S: v.S, B: v.B, I: v.I, L: v.L, D: v.D, BIN: v.BIN, UL: v.UL}
		}
	}
	return out
}

func noExecution(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: "Command execution " + id + " does not exist for this target"}
	}
	return err
}

// GetCommandExecution gives an execution, its result on request.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetCommandExecution.html
func (c *Commands) GetCommandExecution(ctx context.Context, in *iot.GetCommandExecutionRequest) (*iot.GetCommandExecutionResponse, error) {
	target, ok := c.targetOf(in.TargetArn)
	if !ok {
		return nil, invalid("targetArn is not the ARN of a thing or a client of this account")
	}
	var e *execution
	err := c.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		e, err = selectExecution(tx, target, in.ExecutionId)
		return err
	})
	if err != nil {
		return nil, noExecution(err, in.ExecutionId)
	}
	out := &iot.GetCommandExecutionResponse{
		ExecutionId: &e.id, CommandArn: new(c.arn(e.command)), TargetArn: &in.TargetArn, Status: &e.status, StatusReason: e.reason, Parameters: e.parameters,
		ExecutionTimeoutSeconds: &e.timeout, CreatedAt: date(e.created), LastUpdatedAt: date(e.modified), StartedAt: date(e.started),
		CompletedAt: date(e.completed), TimeToLive: date(e.created + c.cfg.Keep.Milliseconds()),
	}
	if value(in.IncludeResult) {
		out.Result = e.result
	}
	return out, nil
}

// DeleteCommandExecution deletes an execution that has ended, or timed out.
//
// Errors: iot.ConflictException (it may still run).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteCommandExecution.html
func (c *Commands) DeleteCommandExecution(ctx context.Context, in *iot.DeleteCommandExecutionRequest) (*iot.DeleteCommandExecutionResponse, error) {
	target, ok := c.targetOf(in.TargetArn)
	if !ok {
		return nil, invalid("targetArn is not the ARN of a thing or a client of this account")
	}
	err := c.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		e, err := selectExecution(tx, target, in.ExecutionId)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.due > 0 {
			return &iot.ConflictException{Message: "The execution is " + e.status, ResourceId: e.id}
		}
		_, err = tx.Exec(`DELETE FROM command_execution WHERE target = $1 AND id = $2`, target, e.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteCommandExecutionResponse{}, nil
}

// timeLayouts are those of TimeFilter.
var timeLayouts = []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, "2006-01-02"}

// bounds reads a filter: ms, exclusive of the ends.
func bounds(f *iot.TimeFilter) (after, before int64, err error) {
	before = 1<<62 - 1
	if f == nil {
		return -1, before, nil
	}
	read := func(text *string, into *int64) error {
		if text == nil {
			return nil
		}
		for _, layout := range timeLayouts {
			if t, err := time.Parse(layout, *text); err == nil {
				*into = t.UnixMilli()
				return nil
			}
		}
		return invalid("%q is no time such as 2006-01-02T15:04", *text)
	}
	after = -1
	return after, before, errors.Join(read(f.After, &after), read(f.Before, &before))
}

// ListCommandExecutions lists executions by when they were created, the latest first unless sortOrder says otherwise.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListCommandExecutions.html
func (c *Commands) ListCommandExecutions(ctx context.Context, in *iot.ListCommandExecutionsRequest) (*iot.ListCommandExecutionsResponse, error) {
	if in.Namespace != nil && *in.Namespace != iot.CommandNamespaceAwsIoT {
		return &iot.ListCommandExecutionsResponse{}, nil
	}
	q := &query{}
	startedAfter, startedBefore, err := bounds(in.StartedTimeFilter)
	if err != nil {
		return nil, err
	}
	endedAfter, endedBefore, err := bounds(in.CompletedTimeFilter)
	if err != nil {
		return nil, err
	}
	if in.StartedTimeFilter != nil { // of those that the device has not begun: when they were created
		q.and(`CASE WHEN started > 0 THEN started ELSE created END > `, startedAfter)
		q.and(`CASE WHEN started > 0 THEN started ELSE created END < `, startedBefore)
	}
	if in.CompletedTimeFilter != nil {
		q.and(`completed > `, max(endedAfter, 0))
		q.and(`completed < `, endedBefore)
	}
	if in.Status != nil {
		q.and(`status = `, *in.Status)
	}
	if in.TargetArn != nil {
		target, ok := c.targetOf(*in.TargetArn)
		if !ok {
			return nil, invalid("targetArn is not the ARN of a thing or a client of this account")
		}
		q.and(`target = `, target)
	}
	if in.CommandArn != nil {
		id, ok := strings.CutPrefix(*in.CommandArn, c.Account.ARN("iot", "command/"))
		if !ok {
			return nil, invalid("commandArn is not the ARN of a command of this account")
		}
		q.and(`command = `, id)
	}
	return c.list(ctx, q, value(in.SortOrder) == iot.SortOrderAscending, in.NextToken, pageOf(in.MaxResults))
}

// query collects the conditions of a list.
type query struct {
	where string
	args  []any
}

func (q *query) and(condition string, arg any) {
	if q.where != "" {
		q.where += " AND "
	}
	q.args = append(q.args, arg)
	q.where += condition + "$" + strconv.Itoa(len(q.args))
}

// list pages executions; the token is the time and key of the last one.
func (c *Commands) list(ctx context.Context, q *query, ascending bool, token *string, size int) (*iot.ListCommandExecutionsResponse, error) {
	text, err := readToken(token)
	if err != nil {
		return nil, err
	}
	order, sign := " DESC", "<"
	if ascending {
		order, sign = "", ">"
	}
	if text != "" {
		at, key, _ := strings.Cut(text, " ")
		target, id, _ := strings.Cut(key, " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return nil, invalid("Invalid nextToken")
		}
		n := len(q.args)
		q.args = append(q.args, ms, target, id)
		if q.where != "" {
			q.where += " AND "
		}
		q.where += fmt.Sprintf("(created, target, id) %s ($%d, $%d, $%d)", sign, n+1, n+2, n+3)
	}
	statement := `SELECT ` + executionColumns + ` FROM command_execution`
	if q.where != "" {
		statement += ` WHERE ` + q.where
	}
	q.args = append(q.args, size+1)
	statement += fmt.Sprintf(` ORDER BY created%s, target%s, id%s LIMIT $%d`, order, order, order, len(q.args))
	out := &iot.ListCommandExecutionsResponse{}
	err = c.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list, err := executions(tx, statement, q.args...)
		if err != nil {
			return err
		}
		*out = iot.ListCommandExecutionsResponse{}
		for i, e := range list {
			if i == size {
				last := list[size-1]
				out.NextToken = tokenOf(strconv.FormatInt(last.created, 10) + " " + last.target + " " + last.id)
				break
			}
			out.CommandExecutions = append(out.CommandExecutions, &iot.CommandExecutionSummary{
				CommandArn: new(c.arn(e.command)), ExecutionId: &e.id, TargetArn: new(c.targetARN(e.target)), Status: &e.status,
				CreatedAt: date(e.created), StartedAt: date(e.started), CompletedAt: date(e.completed),
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func executions(tx store.Tx, statement string, args ...any) (list []*execution, err error) {
	rows, err := tx.Query(statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanExecution(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}
