package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// maxMarked is how many things wait to be looked at; with more, all are.
const maxMarked = 10_000

// marks are things whose memberships may have changed.
type marks struct {
	mu      sync.Mutex
	leading bool // what nobody follows is not kept
	things  map[string]bool
	all     bool
}

// ThingChanged tells that a thing, or the groups that it is in, have changed; "" that any may have. It does not block.
func (j *Jobs) ThingChanged(thing string) {
	m := &j.marks
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.leading {
		return
	}
	if thing == "" || len(m.things) >= maxMarked {
		m.all = true
	} else {
		m.things[thing] = true
	}
	j.stir()
}

// lead says whether marks are followed; whoever begins to looks at all things.
func (m *marks) lead(leading bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leading, m.all, m.things = leading, leading, map[string]bool{}
}

// take gives a batch of what is marked, and whether all are.
func (m *marks) take() (things []string, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all, m.all = m.all, false; all {
		clear(m.things) // all are looked at
		return nil, true
	}
	for t := range m.things {
		if len(things) == batch {
			break
		}
		things = append(things, t)
		delete(m.things, t)
	}
	return things, false
}

// sweep is a look at all things that have something to do, which is taken in steps. It makes up for news that got lost.
type sweep struct {
	running bool
	table   int    // of sweptTables
	after   string // thing
	last    time.Time
}

// sweptTables list the things that have an execution which has not ended, and those that are to get one.
var sweptTables = [2]string{
	`SELECT DISTINCT thing FROM job_execution WHERE status IN ('QUEUED', 'IN_PROGRESS') AND thing > $1 ORDER BY thing LIMIT $2`,
	`SELECT DISTINCT thing FROM job_waiting WHERE thing > $1 ORDER BY thing LIMIT $2`,
}

// follow takes a step of following memberships: of the things that are marked, or of a sweep.
func (j *Jobs) follow(ctx context.Context, s *sweep) (more bool, err error) {
	things, all := j.marks.take()
	if all || j.cfg.Now().Sub(s.last) >= j.cfg.Sweep {
		*s = sweep{running: true, last: j.cfg.Now()}
		if err := j.expandAgain(ctx); err != nil {
			return false, err
		}
	}
	if len(things) > 0 {
		return true, j.settle(ctx, things)
	}
	if !s.running {
		return false, nil
	}
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		things, err = scanTexts(tx.Query(sweptTables[s.table], s.after, batch))
		return err
	})
	if err != nil {
		return false, err
	}
	if len(things) > 0 {
		s.after = things[len(things)-1]
	}
	if len(things) < batch {
		s.table, s.after = s.table+1, ""
		s.running = s.table < len(sweptTables)
	}
	return s.running, j.settle(ctx, things)
}

// expandAgain has the groups of continuous jobs looked through again for things that have come.
func (j *Jobs) expandAgain(ctx context.Context) error {
	const stale = ` FROM job_target WHERE expanded AND job_id IN (SELECT job_id FROM job WHERE target_selection = 'CONTINUOUS' AND status IN ('SCHEDULED', 'IN_PROGRESS'))`
	var any bool
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT EXISTS (SELECT 1` + stale + `)`).Scan(&any)
	})
	if err != nil || !any {
		return err
	}
	return j.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE job_target SET expanded = $1, again = $2, position = '' WHERE (job_id, target) IN (SELECT job_id, target`+stale+`)`, false, true)
		return err
	})
}

// place is where a thing stands: its ARN and those of its groups and of the groups above these. A thing that does not
// exist has none.
type place struct {
	thing string
	arns  []string
}

// placeOf finds out where a thing stands. above remembers the groups above a group.
func (j *Jobs) placeOf(ctx context.Context, thing string, deep bool, above map[string][]string) (place, error) {
	p := place{thing: thing}
	_, err := j.Things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: thing})
	if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); gone {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.arns = []string{j.thingARN(thing)}
	if !deep {
		return p, nil
	}
	in := &iot.ListThingGroupsForThingRequest{ThingName: thing, MaxResults: new(int32(batch))}
	for {
		out, err := j.Things.ListThingGroupsForThing(ctx, in)
		if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); gone {
			return place{thing: thing}, nil
		}
		if err != nil {
			return p, err
		}
		for _, g := range out.ThingGroups {
			name := *g.GroupName
			if above[name] == nil {
				if above[name], err = j.lineOf(ctx, name); err != nil {
					return p, err
				}
			}
			p.arns = append(p.arns, above[name]...)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return p, nil
		}
	}
}

// lineOf are the ARNs of a group and of those above it.
func (j *Jobs) lineOf(ctx context.Context, group string) ([]string, error) {
	arn := j.Account.ARN("iot", "thinggroup/")
	line := []string{arn + group}
	out, err := j.Things.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: group})
	if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); gone {
		return line, nil
	}
	if err != nil {
		return nil, err
	}
	if out.ThingGroupMetadata != nil {
		for _, g := range out.ThingGroupMetadata.RootToParentThingGroups {
			line = append(line, arn+*g.GroupName)
		}
	}
	return line, nil
}

// settle brings what things have of jobs in line with where they stand: a thing that has come into the target of a
// continuous job waits for its execution, one that has left it, or was deleted, has its executions REMOVED.
func (j *Jobs) settle(ctx context.Context, things []string) error {
	if len(things) == 0 {
		return nil
	}
	var continuous bool
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM job WHERE status IN ('SCHEDULED', 'IN_PROGRESS') AND target_selection = 'CONTINUOUS')`).Scan(&continuous)
	})
	if err != nil {
		return err
	}
	above := map[string][]string{}
	var places []place
	for _, t := range things {
		p, err := j.placeOf(ctx, t, continuous, above)
		if err != nil {
			return err
		}
		if !continuous && len(p.arns) > 0 {
			continue // a snapshot's thing stays one until it is deleted
		}
		places = append(places, p)
	}
	var changed []place
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		changed = nil
		for _, p := range places {
			d, err := j.difference(tx, p)
			if err != nil {
				return err
			}
			if !d.none() {
				changed = append(changed, p)
			}
		}
		return nil
	})
	if err != nil || len(changed) == 0 {
		return err
	}
	var tell []told
	err = j.retrying(ctx, func(ctx context.Context, tx store.Tx) error {
		tell = nil
		for _, p := range changed {
			t, err := j.apply(ctx, tx, p)
			if err != nil {
				return err
			}
			tell = append(tell, t...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range tell {
		j.tell(ctx, t)
	}
	return nil
}

// difference is what a thing has too much and too little of.
type difference struct {
	come  []string     // jobs that it is to wait for
	left  []*execution // that it is no target for any more
	jobs  []*job       // of left
	waits []string     // jobs that it waits for in vain
}

func (d difference) none() bool { return len(d.come)+len(d.left)+len(d.waits) == 0 }

func (j *Jobs) difference(tx store.Tx, p place) (d difference, err error) {
	aimed := map[string]bool{} // continuous jobs that the thing is a target of
	for _, arn := range p.arns {
		ids, err := scanTexts(tx.Query(`SELECT t.job_id FROM job_target t JOIN job b ON b.job_id = t.job_id WHERE t.target = $1
			AND b.target_selection = 'CONTINUOUS' AND b.status IN ('SCHEDULED', 'IN_PROGRESS')`, arn))
		if err != nil {
			return d, err
		}
		for _, id := range ids {
			if aimed[id] {
				continue
			}
			aimed[id] = true
			missing, err := missing(tx, id, p.thing)
			if err != nil {
				return d, err
			}
			if missing {
				d.come = append(d.come, id)
			}
		}
	}
	exists := len(p.arns) > 0
	stays := func(id, selection string) bool {
		return exists && (selection != iot.TargetSelectionContinuous || aimed[id])
	}
	list, err := unfinished(tx, p.thing, j.cfg.MaxExecutions)
	if err != nil {
		return d, err
	}
	for _, e := range list {
		b, err := getJob(tx, e.jobID)
		if err != nil {
			return d, err
		}
		if !stays(e.jobID, b.selection) {
			d.left, d.jobs = append(d.left, e), append(d.jobs, b)
		}
	}
	waits, err := scanTexts(tx.Query(`SELECT job_id FROM job_waiting WHERE thing = $1`, p.thing))
	if err != nil {
		return d, err
	}
	for _, id := range waits {
		var selection string
		if err := tx.QueryRow(`SELECT target_selection FROM job WHERE job_id = $1`, id).Scan(&selection); err != nil {
			return d, err
		}
		if !stays(id, selection) {
			d.waits = append(d.waits, id)
		}
	}
	return d, nil
}

// missing tells whether a thing has no execution of a job, but for one that was removed, and does not wait for one.
func missing(tx store.Tx, jobID, thing string) (bool, error) {
	var has bool
	err := tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM job_execution WHERE thing = $1 AND job_id = $2 AND latest AND status <> 'REMOVED')
		OR EXISTS (SELECT 1 FROM job_waiting WHERE thing = $1 AND job_id = $2)`, thing, jobID).Scan(&has)
	return !has, err
}

// apply does what a thing's difference asks for.
func (j *Jobs) apply(ctx context.Context, tx store.Tx, p place) (tell []told, err error) {
	d, err := j.difference(tx, p)
	if err != nil {
		return nil, err
	}
	for _, id := range d.come {
		if _, err := tx.Exec(`INSERT INTO job_waiting (job_id, thing) VALUES ($1, $2) ON CONFLICT (job_id, thing) DO NOTHING`, id, p.thing); err != nil {
			return nil, err
		}
	}
	for _, id := range d.waits {
		if _, err := tx.Exec(`DELETE FROM job_waiting WHERE job_id = $1 AND thing = $2`, id, p.thing); err != nil {
			return nil, err
		}
	}
	spaces := map[string]bool{}
	for _, b := range d.jobs {
		if spaces[b.space()] {
			continue
		}
		spaces[b.space()] = true
		t, err := beforeChange(tx, b, p.thing)
		if err != nil {
			return nil, err
		}
		tell = append(tell, t)
	}
	for _, e := range d.left {
		was := e.status
		e.status, e.modified = removed, j.nowMS()
		if err := j.save(ctx, tx, e, was); err != nil {
			return nil, err
		}
	}
	return tell, nil
}

func scanTexts(rows store.Rows, err error) (out []string, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, fmt.Errorf("jobs: %w", err)
		}
		out = append(out, t)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}
