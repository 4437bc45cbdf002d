package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// record is a rule as the table has it.
type record struct {
	name     string
	created  int64
	disabled bool
	payload  string
}

// actionRecord is an action of a rule as the table has it.
type actionRecord struct {
	id          int64
	rule        string
	position    int
	definition  string
	errorAction int64
	retired     int64
}

const errorPosition = -1

const ruleColumns = `name, created, disabled, payload`

func scanRule(row store.Row) (r record, err error) {
	return r, row.Scan(&r.name, &r.created, &r.disabled, &r.payload)
}

// selectRule gives store.ErrNotFound for a rule that does not exist.
func selectRule(tx store.Tx, name string) (record, error) {
	return scanRule(tx.QueryRow(`SELECT `+ruleColumns+` FROM topic_rule WHERE name = $1`, name))
}

// selectRules gives up to limit rules after a name, in order.
func selectRules(tx store.Tx, after string, limit int) (out []record, err error) {
	rows, err := tx.Query(`SELECT `+ruleColumns+` FROM topic_rule WHERE name > $1 ORDER BY name LIMIT $2`, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRule(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

const actionColumns = `id, rule, position, definition, error_action, retired`

// selectActions gives the actions of a rule, those it had before included; of all
// rules for the name "".
func selectActions(tx store.Tx, rule string) (out []actionRecord, err error) {
	query, args := `SELECT `+actionColumns+` FROM topic_rule_action ORDER BY id`, []any(nil)
	if rule != "" {
		query, args = `SELECT `+actionColumns+` FROM topic_rule_action WHERE rule = $1 ORDER BY id`, []any{rule}
	}
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var a actionRecord
		if err := rows.Scan(&a.id, &a.rule, &a.position, &a.definition, &a.errorAction, &a.retired); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

func countRules(tx store.Tx) (n int, err error) {
	return n, tx.QueryRow(`SELECT COUNT(*) FROM topic_rule`).Scan(&n)
}

func insertRule(tx store.Tx, r record) error {
	_, err := tx.Exec(`INSERT INTO topic_rule (`+ruleColumns+`) VALUES ($1, $2, $3, $4)`, r.name, r.created, r.disabled, r.payload)
	return err
}

func updateRule(tx store.Tx, r record) error {
	_, err := tx.Exec(`UPDATE topic_rule SET disabled = $2, payload = $3 WHERE name = $1`, r.name, r.disabled, r.payload)
	return err
}

// setActions makes the payload's actions the rule's. Those that are the same as
// before, and have the same error action, keep their ids and so their outbox.
func (e *Engine) setActions(tx store.Tx, rule string, p *iot.TopicRulePayload, now int64) error {
	old, err := selectActions(tx, rule)
	if err != nil {
		return err
	}
	byID := map[int64]actionRecord{}
	free := map[string][]actionRecord{} // by definition and error action's definition
	for _, a := range old {
		byID[a.id] = a
	}
	key := func(position bool, definition, errorDefinition string) string {
		return strconv.FormatBool(position) + "\n" + definition + "\n" + errorDefinition
	}
	for _, a := range old {
		if a.retired == 0 {
			k := key(a.position == errorPosition, a.definition, byID[a.errorAction].definition)
			free[k] = append(free[k], a)
		}
	}
	keep := map[int64]bool{}
	place := func(position int, a *iot.Action, errorAction int64, errorDefinition string) (int64, string, error) {
		text, err := json.Marshal(a)
		if err != nil {
			return 0, "", err
		}
		k := key(position == errorPosition, string(text), errorDefinition)
		if same := free[k]; len(same) > 0 {
			free[k] = same[1:]
			keep[same[0].id] = true
			_, err := tx.Exec(`UPDATE topic_rule_action SET position = $2, error_action = $3 WHERE id = $1`, same[0].id, position, errorAction)
			return same[0].id, string(text), err
		}
		id := e.d.DB.NextID()
		_, err = tx.Exec(`INSERT INTO topic_rule_action (`+actionColumns+`) VALUES ($1, $2, $3, $4, $5, 0)`, id, rule, position, string(text), errorAction)
		return id, string(text), err
	}
	errorAction, errorDefinition := int64(0), ""
	if p != nil && p.ErrorAction != nil {
		if errorAction, errorDefinition, err = place(errorPosition, p.ErrorAction, 0, ""); err != nil {
			return err
		}
	}
	if p != nil {
		for i, a := range p.Actions {
			if _, _, err := place(i, a, errorAction, errorDefinition); err != nil {
				return err
			}
		}
	}
	for _, a := range old {
		if a.retired == 0 && !keep[a.id] {
			if _, err := tx.Exec(`UPDATE topic_rule_action SET retired = $2 WHERE id = $1`, a.id, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetActions removes actions retired before a time that have nothing to do any more.
func forgetActions(tx store.Tx, before int64) error {
	_, err := tx.Exec(`DELETE FROM topic_rule_action WHERE retired > 0 AND retired < $1
		AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.action = topic_rule_action.id)
		AND NOT EXISTS (SELECT 1 FROM topic_rule_action b WHERE b.error_action = topic_rule_action.id)`, before)
	return err
}

// outboxRow is a row on its way into the outbox.
type outboxRow struct {
	queue *queue
	body  []byte
}

// insertRows adds rows of a writer, with ids above those of all before.
func insertRows(tx store.Tx, writer int64, nextID func() int64, rows []outboxRow) error {
	for len(rows) > 0 {
		n := min(len(rows), len(insertTexts))
		args := make([]any, 0, 4*n)
		for _, r := range rows[:n] {
			args = append(args, r.queue.id, writer, nextID(), r.body)
		}
		if _, err := tx.Exec(insertTexts[n-1], args...); err != nil {
			return fmt.Errorf("rules: outbox: %w", err)
		}
		rows = rows[n:]
	}
	return nil
}

// insertTexts[n-1] inserts n rows.
var insertTexts = func() (texts [8]string) {
	values := []string(nil)
	for n := range texts {
		i := 4 * n
		values = append(values, fmt.Sprintf("($%d, $%d, $%d, $%d)", i+1, i+2, i+3, i+4))
		texts[n] = `INSERT INTO outbox (action, writer, id, body) VALUES ` + strings.Join(values, ", ")
	}
	return texts
}()

// selectRows gives the entries of a writer for an action after an id: at most limit,
// and no more once they have maxBytes. sizes are those of their rows.
func selectRows(tx store.Tx, action, writer, after int64, limit, maxBytes int) (out []entry, sizes []int, err error) {
	rows, err := tx.Query(`SELECT id, body FROM outbox WHERE action = $1 AND writer = $2 AND id > $3 ORDER BY id LIMIT $4`, action, writer, after, limit)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	total := 0
	for total < maxBytes && rows.Next() {
		var id int64
		var body []byte
		if err := rows.Scan(&id, &body); err != nil {
			return nil, nil, err
		}
		total += len(body)
		e, err := parseEntry(body)
		e.damaged, e.ID = err != nil, id
		out, sizes = append(out, e), append(sizes, len(body))
	}
	return out, sizes, errors.Join(rows.Err(), rows.Close())
}

func deleteRows(tx store.Tx, action, writer, through int64) error {
	_, err := tx.Exec(`DELETE FROM outbox WHERE action = $1 AND writer = $2 AND id <= $3`, action, writer, through)
	return err
}

// backlog is what a writer left for an action.
type backlog struct{ action, rows, bytes int64 }

func selectBacklog(tx store.Tx, writer int64) (out []backlog, err error) {
	rows, err := tx.Query(`SELECT action, COUNT(*), SUM(LENGTH(body)) FROM outbox WHERE writer = $1 GROUP BY action`, writer)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b backlog
		if err := rows.Scan(&b.action, &b.rows, &b.bytes); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}
