package provision

import (
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// task is a row of registration_task.
type task struct {
	id, body, bucket, key, roleARN string
	status, message                string
	created, modified              int64
	succeeded, failed              int64
	size                           int64
	version                        string
	doneBytes, doneLines           int64
	holder                         string
	heldUntil                      int64
	reportKey                      []byte
}

const taskColumns = `id, template_body, bucket, object_key, role_arn, status, message, created, modified, succeeded, failed,
	size_bytes, version, done_bytes, done_lines, holder, held_until, report_key`

func (k *task) fields() []any {
	return []any{
		&k.id, &k.body, &k.bucket, &k.key, &k.roleARN, &k.status, &k.message, &k.created, &k.modified, &k.succeeded, &k.failed,
		&k.size, &k.version, &k.doneBytes, &k.doneLines, &k.holder, &k.heldUntil, &k.reportKey,
	}
}

func insertTask(tx store.Tx, k *task) error {
	_, err := tx.Exec(`INSERT INTO registration_task (`+taskColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
		k.id, k.body, k.bucket, k.key, k.roleARN, k.status, k.message, k.created, k.modified, k.succeeded, k.failed,
		k.size, k.version, k.doneBytes, k.doneLines, k.holder, k.heldUntil, k.reportKey)
	return err
}

func selectTask(tx store.Tx, id string) (*task, error) {
	k := &task{}
	err := tx.QueryRow(`SELECT `+taskColumns+` FROM registration_task WHERE id = $1`, id).Scan(k.fields()...)
	return k, err
}

// selectOpenTask gives the task that is not over.
func selectOpenTask(tx store.Tx) (*task, error) {
	k := &task{}
	err := tx.QueryRow(`SELECT ` + taskColumns + ` FROM registration_task WHERE status IN ('InProgress', 'Cancelling')
		ORDER BY id LIMIT 1`).Scan(k.fields()...)
	return k, err
}

// selectTaskIDs gives ids after one, of a status unless that is "".
func selectTaskIDs(tx store.Tx, after, status string, limit int) ([]string, error) {
	rows, err := tx.Query(`SELECT id FROM registration_task WHERE id > $1 AND ($2 = '' OR status = $2) ORDER BY id LIMIT $3`, after, status, limit)
	return collect(rows, err, func(s *string) []any { return []any{s} })
}

func setTaskStatus(tx store.Tx, id, status, message string, now int64) error {
	_, err := tx.Exec(`UPDATE registration_task SET status = $2, message = $3, modified = $4 WHERE id = $1`, id, status, message, now)
	return err
}

// holdTask takes or renews the lease of a task; false when another node has it.
func holdTask(tx store.Tx, id, holder string, now, until int64) (bool, error) {
	n, err := tx.Exec(`UPDATE registration_task SET holder = $2, held_until = $4
		WHERE id = $1 AND (holder = $2 OR holder = '' OR held_until <= $3)`, id, holder, now, until)
	return n == 1, err
}

// setTaskInput notes what the input is.
func setTaskInput(tx store.Tx, id string, size int64, version string) error {
	_, err := tx.Exec(`UPDATE registration_task SET size_bytes = $2, version = $3 WHERE id = $1`, id, size, version)
	return err
}

// advanceTask notes that all lines before are done, and renews the lease; false when another node has it.
func advanceTask(tx store.Tx, id, holder string, bytes, lines, now, until int64) (bool, error) {
	n, err := tx.Exec(`UPDATE registration_task SET done_bytes = $3, done_lines = $4, modified = $5, held_until = $6
		WHERE id = $1 AND holder = $2`, id, holder, bytes, lines, now, until)
	return n == 1, err
}

// countLine counts a line, and with it makes sure that the task may go on on this node; false when not.
func countLine(tx store.Tx, id, holder string, failed bool) (bool, error) {
	query := `UPDATE registration_task SET succeeded = succeeded + 1 WHERE id = $1 AND holder = $2 AND status = '` + iot.StatusInProgress + `'`
	if failed {
		query = `UPDATE registration_task SET failed = failed + 1 WHERE id = $1 AND holder = $2 AND status = '` + iot.StatusInProgress + `'`
	}
	n, err := tx.Exec(query, id, holder)
	return n == 1, err
}

// lineIsDone tells whether a line was tried before.
func lineIsDone(tx store.Tx, id string, line int64) (bool, error) {
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM registration_line WHERE task = $1 AND line = $2`, id, line).Scan(&n)
	return n > 0, err
}

func insertLine(tx store.Tx, id string, line int64, failed bool, report string) error {
	_, err := tx.Exec(`INSERT INTO registration_line (task, line, failed, report) VALUES ($1, $2, $3, $4)`, id, line, failed, report)
	return err
}

// reportLine is a line of a report.
type reportLine struct {
	line   int64
	report string
}

func selectLines(tx store.Tx, id string, failed bool, after int64, limit int) ([]reportLine, error) {
	query := `SELECT line, report FROM registration_line WHERE task = $1 AND line > $2 AND NOT failed ORDER BY line LIMIT $3`
	if failed {
		query = `SELECT line, report FROM registration_line WHERE task = $1 AND line > $2 AND failed ORDER BY line LIMIT $3`
	}
	rows, err := tx.Query(query, id, after, limit)
	return collect(rows, err, func(r *reportLine) []any { return []any{&r.line, &r.report} })
}

// selectForgotten gives the tasks that are over and not remembered any more.
func selectForgotten(tx store.Tx, before int64, kept int) ([]string, error) {
	rows, err := tx.Query(`SELECT id FROM registration_task WHERE status NOT IN ('InProgress', 'Cancelling') AND (modified <= $1 OR id NOT IN (
		SELECT id FROM registration_task ORDER BY id DESC LIMIT $2))`, before, kept)
	return collect(rows, err, func(s *string) []any { return []any{s} })
}

// deleteLines deletes some lines of a task and tells how many.
func deleteLines(tx store.Tx, id string, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM registration_line WHERE task = $1 AND line IN (
		SELECT line FROM registration_line WHERE task = $1 ORDER BY line LIMIT $2)`, id, limit)
}

func deleteTask(tx store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM registration_task WHERE id = $1`, id)
	return err
}
