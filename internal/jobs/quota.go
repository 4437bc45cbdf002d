package jobs

import (
	"errors"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// inherent sets a quota that the configuration leaves open.
func inherent(quota *int, aws int) {
	if *quota == 0 {
		*quota = aws
	}
}

// concurrent is the condition of a job that rolls out executions now, or cancels some.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-limits.html
const concurrent = `(job.status = 'IN_PROGRESS' AND (EXISTS (SELECT 1 FROM job_target t WHERE t.job_id = job.job_id AND NOT t.expanded AND NOT t.again)
		OR EXISTS (SELECT 1 FROM job_waiting w WHERE w.job_id = job.job_id))
	OR job.status = 'CANCELED' AND EXISTS (SELECT 1 FROM job_count c WHERE c.job_id = job.job_id AND c.n > 0
		AND (c.status = 'QUEUED' OR c.status = 'IN_PROGRESS' AND job.force_canceled)))`

func isConcurrent(tx store.Tx, jobID string) (bool, error) {
	err := tx.QueryRow(`SELECT job_id FROM job WHERE job_id = $1 AND `+concurrent, jobID).Scan(new(string))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// mayStart refuses a job that is about to be IN_PROGRESS while as many are as may be, or as many roll out as may.
func (j *Jobs) mayStart(tx store.Tx, b *job) error {
	if b.status != inProgress {
		return nil
	}
	most, kind := j.cfg.MaxSnapshot, "snapshot"
	if b.selection == iot.TargetSelectionContinuous {
		most, kind = j.cfg.MaxContinuous, "continuous"
	}
	if most > 0 {
		var n int
		if err := tx.QueryRow(`SELECT COUNT(*) FROM job WHERE status = 'IN_PROGRESS' AND target_selection = $1`, b.selection).Scan(&n); err != nil {
			return err
		}
		if n >= most {
			return &iot.LimitExceededException{Message: fmt.Sprintf("The limit of %d active %s jobs is reached.", most, kind)}
		}
	}
	full, err := j.full(tx)
	if err == nil && full {
		err = &iot.LimitExceededException{Message: fmt.Sprintf("The limit of %d concurrent jobs is reached.", j.cfg.MaxConcurrent)}
	}
	return err
}

// full tells whether as many jobs roll out, or cancel executions, as may.
func (j *Jobs) full(tx store.Tx) (bool, error) {
	if j.cfg.MaxConcurrent <= 0 {
		return false, nil
	}
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM job WHERE status IN ('IN_PROGRESS', 'CANCELED') AND ` + concurrent).Scan(&n)
	return n >= j.cfg.MaxConcurrent, err
}

// mayKeepTemplate refuses a further job template when there are as many as may be.
func (j *Jobs) mayKeepTemplate(tx store.Tx) error {
	if j.cfg.MaxTemplates <= 0 {
		return nil
	}
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM job_template`).Scan(&n)
	if err == nil && n >= j.cfg.MaxTemplates {
		err = &iot.LimitExceededException{Message: fmt.Sprintf("The limit of %d job templates is reached.", j.cfg.MaxTemplates)}
	}
	return err
}
