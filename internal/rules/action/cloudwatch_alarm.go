package action

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/sql"
)

// AlarmStates are the states of an alarm.
func AlarmStates() []string { return []string{"OK", "ALARM", "INSUFFICIENT_DATA"} }

// AlarmChange is a state that a rule gives an alarm.
type AlarmChange struct {
	Name, State, Reason, Rule string
	At                        time.Time
}

// Alarms keeps the states of alarms. Set returns once the changes, which are in order, are on
// stable storage; an older one than an alarm has leaves it as it is. done are those that were set,
// and the error, made by [Permanent] when no attempt can help, is of the one that follows.
type Alarms interface {
	SetAlarms(ctx context.Context, changes []AlarmChange) (done int, err error)
}

// CloudWatch's limits, in characters.
//
// AWS: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_SetAlarmState.html
const (
	maxAlarmName   = 255
	maxAlarmReason = 1023
)

// compileCloudwatchAlarm makes an action that sets the state of the alarm alarmName.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-alarms-rule-action.html
func compileCloudwatchAlarm(c *compiler, a *iot.Action) *Action {
	p := a.CloudwatchAlarm
	c.role(p.RoleArn)
	s := alarmSink{
		name:   c.checked("alarmName", p.AlarmName, checkAlarmName),
		state:  c.checked("stateValue", p.StateValue, checkAlarmState),
		reason: c.template("stateReason", &p.StateReason, sql.Generic),
	}
	c.constant(s.reason, checkAlarmReason)
	return &Action{open: func(env Env) (Sink, error) {
		if env.Alarms == nil {
			return nil, errors.New("cloudwatchAlarm: there are no alarms")
		}
		out := s
		out.env = env
		return &out, nil
	}}
}

func checkAlarmName(s string) error {
	if s == "" || utf8.RuneCountInString(s) > maxAlarmName || !utf8.ValidString(s) {
		return fmt.Errorf("alarmName has 1 to %d characters", maxAlarmName)
	}
	return nil
}

func checkAlarmState(s string) error {
	for _, state := range AlarmStates() {
		if s == state {
			return nil
		}
	}
	return fmt.Errorf("stateValue %q is neither OK, ALARM nor INSUFFICIENT_DATA", s)
}

func checkAlarmReason(s string) error {
	if utf8.RuneCountInString(s) > maxAlarmReason || !utf8.ValidString(s) {
		return fmt.Errorf("stateReason has at most %d characters", maxAlarmReason)
	}
	return nil
}

// alarmSink sets states. The numbers are indexes of Record.Fields.
type alarmSink struct {
	env                 Env
	name, state, reason int
}

func (s *alarmSink) Do(ctx context.Context, records []Record) (int, error) {
	var changes []AlarmChange
	var broken error
	for i := range records {
		r := &records[i]
		c := AlarmChange{Name: r.Fields[s.name], State: r.Fields[s.state], Reason: r.Fields[s.reason], Rule: r.Rule, At: r.Received}
		if err := errors.Join(checkAlarmName(c.Name), checkAlarmState(c.State), checkAlarmReason(c.Reason)); err != nil {
			broken = Permanent(err)
			break
		}
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		if done, err := s.env.Alarms.SetAlarms(ctx, changes); err != nil {
			return done, err
		}
	}
	return len(changes), broken
}

func (s *alarmSink) Resource(r *Record) string { return r.Fields[s.name] }

func (s *alarmSink) Close() error { return nil }
