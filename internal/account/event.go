package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// eventTypes are all that AWS has, in its order.
var eventTypes = []string{
	iot.EventTypeThing, iot.EventTypeThingGroup, iot.EventTypeThingType, iot.EventTypeThingGroupMembership,
	iot.EventTypeThingGroupHierarchy, iot.EventTypeThingTypeAssociation, iot.EventTypeJob, iot.EventTypeJobExecution,
	iot.EventTypePolicy, iot.EventTypeCertificate, iot.EventTypeCaCertificate,
}

// events is the setting: what is published.
type events struct {
	Enabled  []string `json:"enabled"`
	Created  int64    `json:"created"` // milliseconds
	Modified int64    `json:"modified"`
}

const eventSetting = "events"

func selectEvents(tx store.Tx) (*events, error) {
	var text string
	err := tx.QueryRow(`SELECT value FROM account_setting WHERE name = $1`, eventSetting).Scan(&text)
	if errors.Is(err, store.ErrNotFound) {
		return &events{}, nil
	}
	if err != nil {
		return nil, err
	}
	e := new(events)
	if err := json.Unmarshal([]byte(text), e); err != nil {
		return nil, fmt.Errorf("account: setting %s: %w", eventSetting, err)
	}
	return e, nil
}

// DescribeEventConfigurations tells which event types are published.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeEventConfigurations.html
func (a *Account) DescribeEventConfigurations(ctx context.Context, _ *iot.DescribeEventConfigurationsRequest) (*iot.DescribeEventConfigurationsResponse, error) {
	var e *events
	err := a.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		e, err = selectEvents(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.DescribeEventConfigurationsResponse{EventConfigurations: map[string]*iot.Configuration{}}
	for _, t := range eventTypes {
		out.EventConfigurations[t] = &iot.Configuration{Enabled: new(slices.Contains(e.Enabled, t))}
	}
	if e.Created != 0 {
		out.CreationDate, out.LastModifiedDate = date(e.Created), date(e.Modified)
	}
	return out, nil
}

// UpdateEventConfigurations switches the event types that it names. One that is
// never published here can't be switched on.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateEventConfigurations.html
func (a *Account) UpdateEventConfigurations(ctx context.Context, in *iot.UpdateEventConfigurationsRequest) (*iot.UpdateEventConfigurationsResponse, error) {
	for t, c := range in.EventConfigurations {
		if !slices.Contains(eventTypes, t) {
			return nil, &iot.InvalidRequestException{Message: "Invalid event type " + t}
		}
		if enabled(c) && !slices.Contains(a.Events, t) {
			return nil, &aws.CommonError{Status: http.StatusNotImplemented, Code: "NotImplementedException", Message: "Events of type " + t + " are not implemented."}
		}
	}
	err := a.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		e, err := selectEvents(tx)
		if err != nil {
			return err
		}
		var on []string
		for _, t := range eventTypes {
			c, given := in.EventConfigurations[t]
			if given && enabled(c) || !given && slices.Contains(e.Enabled, t) {
				on = append(on, t)
			}
		}
		e.Enabled, e.Modified = on, a.Now().UnixMilli()
		if e.Created == 0 {
			e.Created = e.Modified
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO account_setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, eventSetting, string(text))
		return err
	})
	if err != nil {
		return nil, err
	}
	a.read.Store(0)
	return &iot.UpdateEventConfigurationsResponse{}, nil
}

func enabled(c *iot.Configuration) bool { return c != nil && c.Enabled != nil && *c.Enabled }
