package rules

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/rules/action"
	"flotilla/internal/store"
)

// alarms are those of cloudwatchAlarm actions: an alarm begins with the first state that a rule gives it.
type alarms struct {
	db   *store.DB
	most int
	desc *prometheus.Desc
}

func newAlarms(db *store.DB, most int) *alarms {
	return &alarms{db, most, prometheus.NewDesc("flotilla_cloudwatch_alarm",
		"1 for the state that a cloudwatchAlarm action gave an alarm, 0 for the others.", []string{"alarm", "state"}, nil)}
}

// SetAlarms implements [action.Alarms].
func (a *alarms) SetAlarms(ctx context.Context, changes []action.AlarmChange) (done int, err error) {
	full := false
	err = a.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		done, full = 0, false
		for _, c := range changes {
			taken, err := a.set(tx, c)
			if err != nil {
				return err
			}
			if !taken {
				full = true
				return nil
			}
			done++
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("rules: alarms: %w", err)
	case full:
		return done, action.Permanent(fmt.Errorf("there are %d alarms, the most that there may be (--rules.max-alarms)", a.most))
	}
	return done, nil
}

// set sets one; false means that there are as many as there may be.
func (a *alarms) set(tx store.Tx, c action.AlarmChange) (bool, error) {
	at := c.At.UnixMilli()
	var one int
	err := tx.QueryRow(`SELECT 1 FROM alarm WHERE name = $1`, c.Name).Scan(&one)
	if errors.Is(err, store.ErrNotFound) {
		var n int
		if err := tx.QueryRow(`SELECT COUNT(*) FROM alarm`).Scan(&n); err != nil || n >= a.most {
			return false, err
		}
	} else if err != nil {
		return false, err
	}
	_, err = tx.Exec(`INSERT INTO alarm (name, state, reason, rule, updated, changed) VALUES ($1, $2, $3, $4, $5, $5)
		ON CONFLICT (name) DO UPDATE SET state = excluded.state, reason = excluded.reason, rule = excluded.rule, updated = excluded.updated,
			changed = CASE WHEN alarm.state = excluded.state THEN alarm.changed ELSE excluded.updated END
		WHERE excluded.updated >= alarm.updated`, c.Name, c.State, c.Reason, c.Rule, at)
	return true, err
}

func (a *alarms) list(ctx context.Context) (out []*flotilla.Alarm, err error) {
	err = a.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		out = nil
		rows, err := tx.Query(`SELECT name, state, reason, rule, updated, changed FROM alarm ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name, state, reason, rule string
			var updated, changed int64
			if err := rows.Scan(&name, &state, &reason, &rule, &updated, &changed); err != nil {
				return err
			}
			out = append(out, &flotilla.Alarm{
				AlarmName: &name, StateValue: &state, StateReason: &reason, RuleName: &rule,
				StateUpdated: &aws.Time{Time: time.UnixMilli(updated).UTC()}, StateChanged: &aws.Time{Time: time.UnixMilli(changed).UTC()},
			})
		}
		return rows.Err()
	})
	return out, err
}

// Describe implements [prometheus.Collector].
func (a *alarms) Describe(out chan<- *prometheus.Desc) { out <- a.desc }

// scrapeTime bounds reading the alarms for /metrics.
const scrapeTime = 5 * time.Second

// Collect implements [prometheus.Collector].
func (a *alarms) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	list, err := a.list(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(a.desc, err)
		return
	}
	for _, alarm := range list {
		for _, state := range action.AlarmStates() {
			v := 0.0
			if state == *alarm.StateValue {
				v = 1
			}
			out <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, v, *alarm.AlarmName, state)
		}
	}
}

// ListAlarms lists the alarms that rules have set, by name.
func (e *Engine) ListAlarms(ctx context.Context, _ *flotilla.ListAlarmsRequest) (*flotilla.ListAlarmsResponse, error) {
	list, err := e.alarms.list(ctx)
	return &flotilla.ListAlarmsResponse{Alarms: list}, err
}

// DeleteAlarm forgets an alarm; a rule that sets it makes it again.
func (e *Engine) DeleteAlarm(ctx context.Context, in *flotilla.DeleteAlarmRequest) (*flotilla.DeleteAlarmResponse, error) {
	err := e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		n, err := tx.Exec(`DELETE FROM alarm WHERE name = $1`, in.AlarmName)
		if err == nil && n == 0 {
			err = &flotilla.ResourceNotFoundException{Message: "Unknown alarm " + in.AlarmName}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &flotilla.DeleteAlarmResponse{}, nil
}
