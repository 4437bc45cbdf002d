package rules

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	destinationHTTP = "http"
	tokenLifetime   = 3 * 24 * 3600 * 1000 // ms
	maxAddress      = 2000
)

// destination is a topic rule destination as the table has it.
type destination struct {
	id, kind, address, status, reason string
	created, updated, expires         int64
	token                             string
	due                               bool
}

const destinationColumns = `id, kind, address, status, reason, created, updated, token, expires, due`

func scanDestination(row store.Row) (d destination, err error) {
	return d, row.Scan(&d.id, &d.kind, &d.address, &d.status, &d.reason, &d.created, &d.updated, &d.token, &d.expires, &d.due)
}

// selectDestination gives store.ErrNotFound for one that does not exist.
func selectDestination(tx store.Tx, id string) (destination, error) {
	return scanDestination(tx.QueryRow(`SELECT `+destinationColumns+` FROM topic_rule_destination WHERE id = $1`, id))
}

func selectDestinations(tx store.Tx, where string, args ...any) (out []destination, err error) {
	rows, err := tx.Query(`SELECT `+destinationColumns+` FROM topic_rule_destination WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		d, err := scanDestination(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

func updateDestination(tx store.Tx, d destination) error {
	_, err := tx.Exec(`UPDATE topic_rule_destination SET status = $2, reason = $3, updated = $4, token = $5, expires = $6, due = $7 WHERE id = $1`,
		d.id, d.status, d.reason, d.updated, d.token, d.expires, d.due)
	return err
}

func (e *Engine) destinationARN(d destination) string {
	return e.d.Account.ARN("iot", "ruledestination/"+d.kind+"/"+d.id)
}

// destinationID is the id in the ARN of a destination of this account.
func (e *Engine) destinationID(arn string) (string, error) {
	id, ok := strings.CutPrefix(arn, e.d.Account.ARN("iot", "ruledestination/"+destinationHTTP+"/"))
	if !ok || uuid.Validate(id) != nil {
		return "", invalid("%q is not the ARN of a topic rule destination of this account", arn)
	}
	return id, nil
}

func destinationNotFound(err error, arn string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.UnauthorizedException{Message: "Access to topic rule destination '" + arn + "' was denied"}
	}
	return err
}

// current is the destination as it is now: a token that nobody sent back in time is an error.
func (d destination) current(now int64) destination {
	if d.status == iot.TopicRuleDestinationStatusInProgress && !d.due && d.expires > 0 && d.expires <= now {
		d.status, d.reason = iot.TopicRuleDestinationStatusError, "The confirmation timed out."
	}
	return d
}

func (e *Engine) describeDestination(d destination) *iot.TopicRuleDestination {
	d = d.current(e.now().UnixMilli())
	out := &iot.TopicRuleDestination{
		Arn: new(e.destinationARN(d)), Status: &d.status, CreatedAt: date(d.created), LastUpdatedAt: date(d.updated),
		HttpUrlProperties: &iot.HttpUrlDestinationProperties{ConfirmationUrl: &d.address},
	}
	if d.reason != "" {
		out.StatusReason = &d.reason
	}
	return out
}

// CreateTopicRuleDestination makes a destination, and has a confirmation message sent to it.
//
// Errors: InvalidRequestException (a URL that requests may not go to), ConflictingResourceUpdateException (there is one
// of that URL).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateTopicRuleDestination.html
func (e *Engine) CreateTopicRuleDestination(ctx context.Context, in *iot.CreateTopicRuleDestinationRequest) (*iot.CreateTopicRuleDestinationResponse, error) {
	c := in.DestinationConfiguration
	switch {
	case c == nil || c.HttpUrlConfiguration == nil && c.VpcConfiguration == nil:
		return nil, invalid("destinationConfiguration has httpUrlConfiguration")
	case c.VpcConfiguration != nil:
		return nil, invalid("destinationConfiguration.vpcConfiguration is not implemented")
	}
	if err := e.checkAddress(c.HttpUrlConfiguration.ConfirmationUrl); err != nil {
		return nil, err
	}
	var d destination
	err := e.d.DB.Write(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		var made bool
		if d, made, err = e.ensureDestination(ctx, tx, c.HttpUrlConfiguration.ConfirmationUrl); err == nil && !made {
			return &iot.ConflictingResourceUpdateException{Message: "There is a destination of that confirmationUrl: " + e.destinationARN(d)}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateTopicRuleDestinationResponse{TopicRuleDestination: e.describeDestination(d)}, nil
}

// checkAddress refuses what no request may go to.
func (e *Engine) checkAddress(address string) error {
	if len(address) > maxAddress {
		return invalid("confirmationUrl has more than %d bytes", maxAddress)
	}
	if err := e.client.Check(address); err != nil {
		return invalid("confirmationUrl: %s", err)
	}
	return nil
}

// checkActions refuses actions that send to where no request may go.
func (e *Engine) checkActions(r *rule, p *iot.TopicRulePayload) error {
	for _, a := range r.destined() {
		if err := e.checkAddress(a); err != nil {
			return err
		}
	}
	for _, a := range append(p.Actions[:len(p.Actions):len(p.Actions)], p.ErrorAction) {
		if a != nil && a.Http != nil && a.Http.Auth != nil && !e.cfg.HTTPSign {
			return invalid("http: auth: the server does not sign requests of rules (--rules.http-sign)")
		}
	}
	return nil
}

// destined are the confirmation URLs of a rule's actions that are known without a message.
func (r *rule) destined() (out []string) {
	for _, a := range r.actions {
		if a.Destination != "" {
			out = append(out, a.Destination)
		}
	}
	if r.errorAction != nil && r.errorAction.Destination != "" {
		out = append(out, r.errorAction.Destination)
	}
	return out
}

// ensureDestinations makes the destinations of a rule that are not there.
func (e *Engine) ensureDestinations(ctx context.Context, tx store.Tx, r *rule) error {
	for _, address := range r.destined() {
		if _, _, err := e.ensureDestination(ctx, tx, address); err != nil {
			return err
		}
	}
	return nil
}

// ensureDestination gives the destination of a confirmation URL, made if there was none.
func (e *Engine) ensureDestination(ctx context.Context, tx store.Tx, address string) (d destination, made bool, err error) {
	found, err := selectDestinations(tx, `kind = $1 AND address = $2`, destinationHTTP, address)
	if err != nil {
		return d, false, err
	}
	if len(found) > 0 {
		return found[0], false, nil
	}
	n := 0
	if err := tx.QueryRow(`SELECT COUNT(*) FROM topic_rule_destination`).Scan(&n); err != nil {
		return d, false, err
	}
	if n >= e.cfg.MaxDestinations {
		return d, false, invalid("There are %d topic rule destinations, the most allowed", n)
	}
	now := e.now().UnixMilli()
	d = destination{id: uuid.NewString(), kind: destinationHTTP, address: address, status: iot.TopicRuleDestinationStatusInProgress, created: now, updated: now, due: true}
	_, err = tx.Exec(`INSERT INTO topic_rule_destination (`+destinationColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		d.id, d.kind, d.address, d.status, d.reason, d.created, d.updated, d.token, d.expires, d.due)
	if err == nil {
		e.d.DB.AfterCommit(ctx, e.wakeConfirmations)
	}
	return d, true, err
}

// GetTopicRuleDestination describes a destination.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetTopicRuleDestination.html
func (e *Engine) GetTopicRuleDestination(ctx context.Context, in *iot.GetTopicRuleDestinationRequest) (*iot.GetTopicRuleDestinationResponse, error) {
	id, err := e.destinationID(in.Arn)
	if err != nil {
		return nil, err
	}
	var d destination
	err = e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		d, err = selectDestination(tx, id)
		return destinationNotFound(err, in.Arn)
	})
	if err != nil {
		return nil, err
	}
	return &iot.GetTopicRuleDestinationResponse{TopicRuleDestination: e.describeDestination(d)}, nil
}

// ListTopicRuleDestinations lists destinations by their ids.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListTopicRuleDestinations.html
func (e *Engine) ListTopicRuleDestinations(ctx context.Context, in *iot.ListTopicRuleDestinationsRequest) (*iot.ListTopicRuleDestinationsResponse, error) {
	page, after := defaultPage, ""
	if in.MaxResults != nil {
		page = int(*in.MaxResults)
	}
	if page < 1 || page > 1000 {
		return nil, invalid("maxResults is between 1 and 1000")
	}
	if in.NextToken != nil && *in.NextToken != "" {
		id, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err != nil || uuid.Validate(string(id)) != nil {
			return nil, invalid("Invalid nextToken")
		}
		after = string(id)
	}
	var found []destination
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		found, err = selectDestinations(tx, `id > $1 ORDER BY id LIMIT $2`, after, page+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListTopicRuleDestinationsResponse{DestinationSummaries: []*iot.TopicRuleDestinationSummary{}}
	if len(found) > page {
		found = found[:page]
		out.NextToken = new(base64.RawURLEncoding.EncodeToString([]byte(found[page-1].id)))
	}
	for _, d := range found {
		t := e.describeDestination(d)
		out.DestinationSummaries = append(out.DestinationSummaries, &iot.TopicRuleDestinationSummary{
			Arn: t.Arn, Status: t.Status, CreatedAt: t.CreatedAt, LastUpdatedAt: t.LastUpdatedAt, StatusReason: t.StatusReason,
			HttpUrlSummary: &iot.HttpUrlDestinationSummary{ConfirmationUrl: t.HttpUrlProperties.ConfirmationUrl},
		})
	}
	return out, nil
}

// UpdateTopicRuleDestination enables a destination that is disabled, disables one that is enabled, or has another
// confirmation message sent.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateTopicRuleDestination.html
func (e *Engine) UpdateTopicRuleDestination(ctx context.Context, in *iot.UpdateTopicRuleDestinationRequest) (*iot.UpdateTopicRuleDestinationResponse, error) {
	id, err := e.destinationID(in.Arn)
	if err != nil {
		return nil, err
	}
	err = e.d.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		d, err := selectDestination(tx, id)
		if err != nil {
			return destinationNotFound(err, in.Arn)
		}
		now := e.now().UnixMilli()
		from := d.current(now).status
		d.status, d.reason, d.updated = in.Status, "", now
		switch {
		case in.Status == iot.TopicRuleDestinationStatusEnabled && from == iot.TopicRuleDestinationStatusDisabled:
		case in.Status == iot.TopicRuleDestinationStatusDisabled && from == iot.TopicRuleDestinationStatusEnabled:
		case in.Status == iot.TopicRuleDestinationStatusInProgress:
			d.token, d.expires, d.due = "", 0, true
			e.d.DB.AfterCommit(ctx, e.wakeConfirmations)
		default:
			return invalid("The status of a destination can't be changed from %s to %s", from, in.Status)
		}
		return updateDestination(tx, d)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateTopicRuleDestinationResponse{}, nil
}

// DeleteTopicRuleDestination deletes a destination: nothing is sent there from then on.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteTopicRuleDestination.html
func (e *Engine) DeleteTopicRuleDestination(ctx context.Context, in *iot.DeleteTopicRuleDestinationRequest) (*iot.DeleteTopicRuleDestinationResponse, error) {
	id, err := e.destinationID(in.Arn)
	if err != nil {
		return nil, err
	}
	err = e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		n, err := tx.Exec(`DELETE FROM topic_rule_destination WHERE id = $1`, id)
		if err == nil && n == 0 {
			return destinationNotFound(store.ErrNotFound, in.Arn)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteTopicRuleDestinationResponse{}, nil
}

// destinationEnabled tells whether traffic may go to a confirmation URL.
func (e *Engine) destinationEnabled(ctx context.Context, address string) (enabled bool, err error) {
	err = e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		found, err := selectDestinations(tx, `kind = $1 AND address = $2`, destinationHTTP, address)
		enabled = len(found) > 0 && found[0].status == iot.TopicRuleDestinationStatusEnabled
		return err
	})
	if err != nil {
		return false, fmt.Errorf("rules: destinations: %w", err)
	}
	return enabled, nil
}
