package rules

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// ConfirmPath begins the links that ServeConfirmation serves: ConfirmPath{token}.
const ConfirmPath = "/confirmdestination/"

const (
	confirmTimeout  = 3 * time.Second
	confirmTries    = 3
	confirmParallel = 8
)

func (e *Engine) wakeConfirmations() {
	select {
	case e.unconfirmed <- struct{}{}:
	default:
	}
}

// Confirm sends the confirmation messages that are due, those that an earlier run left first, until ctx ends. Their
// links work when it is called.
func (e *Engine) Confirm(ctx context.Context) {
	e.wakeConfirmations()
	for {
		select {
		case <-e.unconfirmed:
		case <-ctx.Done():
			return
		}
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = e.confirmDue(ctx); err != nil && ctx.Err() == nil {
				e.log.Warn("rules: confirmation messages could not be sent", "err", err)
				more = wait(ctx, time.Second)
			}
		}
	}
}

// confirmDue sends some of the messages that are due; more tells that there were any.
func (e *Engine) confirmDue(ctx context.Context) (more bool, err error) {
	var due []destination
	err = e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		due, err = selectDestinations(tx, `due ORDER BY id LIMIT $1`, confirmParallel)
		return err
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, d := range due {
		all.Go(func() {
			one := e.confirm(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, one)
		})
	}
	all.Wait()
	return true, err
}

// confirm sends a confirmation message with a new token, of which only the hash is kept. The token is durable before
// it is sent.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/rule-destination-http-managing.html
func (e *Engine) confirm(ctx context.Context, d destination) error {
	token := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(token))
	d.token, d.expires = hex.EncodeToString(sum[:]), e.now().UnixMilli()+tokenLifetime
	set := func(change func(*destination)) error {
		return e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
			now, err := selectDestination(tx, d.id)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			change(&now)
			return updateDestination(tx, now)
		})
	}
	if err := set(func(now *destination) { now.token, now.expires = d.token, d.expires }); err != nil {
		return err
	}
	err := e.sendConfirmation(ctx, d, token)
	if ctx.Err() != nil {
		return nil // still due after the next start
	}
	if err != nil {
		e.log.Warn("rules: a destination could not be asked to confirm", "destination", e.destinationARN(d), "err", err)
	}
	return set(func(now *destination) {
		if now.token != d.token { // it is asked again
			return
		}
		now.due = false
		if err != nil && now.status == iot.TopicRuleDestinationStatusInProgress {
			now.token, now.expires, now.status, now.updated = "", 0, iot.TopicRuleDestinationStatusError, e.now().UnixMilli()
			now.reason = "The confirmation message could not be sent: " + err.Error()
		}
	})
}

// wait pauses; false means that ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sendConfirmation posts the message, at most three times.
func (e *Engine) sendConfirmation(ctx context.Context, d destination, token string) error {
	body, err := json.Marshal(map[string]string{
		"arn": e.destinationARN(d), "confirmationToken": token, "enableUrl": e.confirmURL(token), "messageType": "DestinationConfirmation",
	})
	if err != nil {
		return err
	}
	address, err := url.Parse(d.address)
	if err != nil {
		return errors.New("its URL can't be parsed")
	}
	if address.Path == "" {
		address.Path = "/"
	}
	q := address.Query()
	q.Set("confirmationToken", token)
	address.RawQuery = q.Encode()
	for try := 1; ; try++ {
		if err = e.postConfirmation(ctx, d, address.String(), body); err == nil || try == confirmTries || !wait(ctx, 200*time.Millisecond) {
			return err
		}
	}
}

func (e *Engine) postConfirmation(ctx context.Context, d destination, address string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("the request can't be made")
	}
	req.Header.Set("User-Agent", "flotilla")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Amz-Rules-Engine-Message-Type", "DestinationConfirmation")
	req.Header.Set("X-Amz-Rules-Engine-Destination-Arn", e.destinationARN(d))
	a, err := e.client.Do(ctx, req)
	if err == nil && (a.Status < 200 || a.Status > 299) {
		err = fmt.Errorf("status %d", a.Status)
	}
	return err
}

// confirmURL is the link that confirms.
func (e *Engine) confirmURL(token string) string {
	base := ""
	if e.d.APIURL != nil {
		base = e.d.APIURL()
	}
	return base + ConfirmPath + token
}

// ConfirmTopicRuleDestination enables the destination that a token was sent to.
//
// Errors: InvalidRequestException for a token that is not valid, or not any more.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ConfirmTopicRuleDestination.html
func (e *Engine) ConfirmTopicRuleDestination(ctx context.Context, in *iot.ConfirmTopicRuleDestinationRequest) (*iot.ConfirmTopicRuleDestinationResponse, error) {
	sum := sha256.Sum256([]byte(in.ConfirmationToken))
	// Strangers may ask: what no destination has costs a read.
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		found, err := selectDestinations(tx, `token = $1`, hex.EncodeToString(sum[:]))
		if err == nil && len(found) == 0 {
			err = invalid("The confirmation token is not valid, or not any more.")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		found, err := selectDestinations(tx, `token = $1`, hex.EncodeToString(sum[:]))
		if err != nil {
			return err
		}
		now := e.now().UnixMilli()
		if len(found) == 0 || found[0].expires <= now {
			return invalid("The confirmation token is not valid, or not any more.")
		}
		d := found[0]
		if d.status == iot.TopicRuleDestinationStatusEnabled {
			return nil // a second use of the link
		}
		if d.status != iot.TopicRuleDestinationStatusInProgress {
			return invalid("The confirmation token is not valid, or not any more.")
		}
		d.status, d.reason, d.updated, d.due = iot.TopicRuleDestinationStatusEnabled, "", now, false
		return updateDestination(tx, d)
	})
	if err != nil {
		return nil, err
	}
	return &iot.ConfirmTopicRuleDestinationResponse{}, nil
}

// ServeConfirmation serves the links of confirmation messages: who has one needs no signature.
func (e *Engine) ServeConfirmation(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	token, ok := strings.CutPrefix(r.URL.Path, ConfirmPath)
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if !ok || token == "" || len(token) > 2048 {
		http.Error(w, "this link is not valid, or not any more", http.StatusForbidden)
		return
	}
	_, err := e.ConfirmTopicRuleDestination(r.Context(), &iot.ConfirmTopicRuleDestinationRequest{ConfirmationToken: token})
	if _, refused := errors.AsType[*iot.InvalidRequestException](err); refused {
		http.Error(w, "this link is not valid, or not any more", http.StatusForbidden)
		return
	}
	if err != nil {
		e.log.Error("rules: a destination could not be confirmed", "err", err)
		http.Error(w, "it can't be confirmed now", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// credentials are those of the environment, as every AWS SDK reads them.
//
// AWS: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
func credentials(context.Context) (sdk.Credentials, error) {
	c := sdk.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")}
	if !c.HasKeys() {
		return c, errors.New("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set for the server")
	}
	return c, nil
}
