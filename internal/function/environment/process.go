package environment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one execution environment. It has at most one invocation at a time.
type process struct {
	pool *Pool
	work chan *run // to the runtime's GET next

	mu      sync.Mutex
	current *run      // nil: nothing is under way
	idle    time.Time // since when it is in the pool; zero: it is not
	ready   bool      // it has asked for an invocation
	pid     int       // 0: not started, or reaped
	killed  string    // why it was killed; "" it was not
	initErr *Result   // what it said when it could not begin
	begun   time.Time
	inited  time.Time
	rss     int64 // largest seen, in bytes
	dead    chan struct{}
	out     *output
}

// run is one invocation on its way through a process.
type run struct {
	*Invocation
	done   chan outcome // takes one
	timer  *time.Timer
	taken  time.Time // when the runtime took it; zero: not yet
	before bool      // the process was ready when the invocation came
	ends   time.Time
}

type outcome struct {
	result *Result
	again  bool // the function has not seen the event
}

func newProcess(p *Pool) *process {
	return &process{pool: p, work: make(chan *run, 1), dead: make(chan struct{}), begun: time.Now()}
}

func (p *process) idleSince() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle, !p.idle.IsZero()
}

func (p *process) setIdle(at time.Time) {
	p.mu.Lock()
	p.idle = at
	p.mu.Unlock()
}

// begin hands an invocation over.
func (p *process) begin(r *run) {
	p.mu.Lock()
	p.idle = time.Time{}
	select {
	case <-p.dead:
		p.mu.Unlock()
		r.done <- outcome{again: true}
		return
	default:
	}
	r.before = p.ready
	p.current = r
	r.timer = time.AfterFunc(initTimeout, func() { p.expire(r) })
	p.mu.Unlock()
	p.work <- r // has room for one: there is none but this
}

// take marks that the runtime has an invocation; its time runs from now on.
func (p *process) take(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != r {
		return false
	}
	r.timer.Stop()
	r.taken = time.Now()
	r.ends = r.taken.Add(p.pool.f.Timeout)
	r.timer = time.AfterFunc(p.pool.f.Timeout, func() { p.expire(r) })
	p.out.begin()
	p.pool.log.add(fmt.Sprintf("START RequestId: %s Version: %s", r.RequestID, p.pool.f.Version))
	return true
}

// expire ends a process that did not answer in time.
func (p *process) expire(r *run) {
	p.mu.Lock()
	if p.current != r {
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	p.kill(killedTimeout)
	p.finish(r, p.timedOut(r), false)
}

// timedOut is the answer of a process that was killed since it did not answer in time.
func (p *process) timedOut(r *run) *Result {
	waited := p.pool.f.Timeout
	if r.taken.IsZero() {
		waited = initTimeout
	}
	return failed("Sandbox.Timedout", fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", r.RequestID, waited.Seconds()))
}

// finish ends the invocation r, if it is still under way; a process that lives goes back to the pool.
func (p *process) finish(r *run, res *Result, alive bool) bool {
	p.mu.Lock()
	if p.current != r {
		p.mu.Unlock()
		return false
	}
	p.current = nil
	r.timer.Stop()
	p.mu.Unlock()
	if !r.taken.IsZero() {
		res.Log = p.report(r)
	}
	r.done <- outcome{result: res}
	if alive {
		p.pool.release(p)
	}
	return true
}

// report writes the lines that close the log of an invocation, and gives its tail.
func (p *process) report(r *run) []byte {
	p.out.settle()
	p.checkMemory()
	took := time.Since(r.taken)
	p.mu.Lock()
	line := fmt.Sprintf("REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB",
		r.RequestID, float64(took.Microseconds())/1000, took.Milliseconds()+1, p.pool.f.MemoryMiB, p.rss>>20)
	if !r.before {
		line += fmt.Sprintf("\tInit Duration: %.2f ms", float64(p.inited.Sub(p.begun).Microseconds())/1000)
	}
	p.mu.Unlock()
	p.pool.log.add("END RequestId: "+r.RequestID, line)
	return p.out.tail("START RequestId: "+r.RequestID+" Version: "+p.pool.f.Version+"\n", "END RequestId: "+r.RequestID+"\n"+line+"\n")
}

// failed is the answer for a function that gave none.
func failed(kind, message string) *Result {
	body, _ := json.Marshal(struct { // strings alone: it can't fail
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}{kind, message})
	return &Result{Payload: body, Error: "Unhandled"}
}

// supervise runs the process to its end.
func (p *process) supervise() {
	defer p.pool.e.remove(p)
	defer p.pool.gone()
	api, err := p.listen()
	if err != nil {
		p.end(fmt.Errorf("listen: %w", err))
		return
	}
	defer api.Close()
	dir, err := os.MkdirTemp(p.pool.e.cfg.Dir+"/tmp", "*")
	if err != nil {
		p.end(err)
		return
	}
	defer os.RemoveAll(dir)
	p.end(p.execute(api.addr, dir))
}

// execute starts the program and waits for it. The thread is kept: when it ends, and it ends with the server, however that
// ends, the kernel kills the program.
func (p *process) execute(api net.Addr, dir string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := p.pool.e.runtime.command(p.pool.f)
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	out := newOutput(read, p.pool)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.pool.f.Code, write, write
	cmd.Env = environ(p.pool.f, api.String(), dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.mu.Lock()
	p.out = out
	err = errors.New(p.killed)
	if p.killed == "" {
		if err = cmd.Start(); err == nil {
			p.pid = cmd.Process.Pid
			limit(p.pid, p.pool.f.MemoryMiB)
		}
	}
	p.mu.Unlock()
	_ = write.Close()
	defer out.close()
	if err != nil {
		return err
	}
	for { // not reaped yet: until then the number of the process group is its own
		var state unix.Siginfo
		if err := unix.Waitid(unix.P_PID, p.pid, &state, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	_ = syscall.Kill(-p.pid, syscall.SIGKILL) // whom it left behind
	p.pid = 0
	p.mu.Unlock()
	err = cmd.Wait()
	out.settle()
	return err
}

// end answers for a process that is no more; err is why, nil for exit code 0.
func (p *process) end(err error) {
	p.mu.Lock()
	close(p.dead)
	r, killed, initErr := p.current, p.killed, p.initErr
	p.mu.Unlock()
	p.pool.forget(p)
	switch killed {
	case "", killedMemory:
		p.pool.e.log.Warn("a function's process ended", "function", p.pool.f.Name, "reason", killed, "err", err)
	default:
		p.pool.e.log.Debug("a function's process ended", "function", p.pool.f.Name, "reason", killed)
	}
	if r == nil {
		return
	}
	if r.taken.IsZero() && r.before {
		p.mu.Lock()
		mine := p.current == r
		p.current = nil
		r.timer.Stop()
		p.mu.Unlock()
		if mine {
			r.done <- outcome{again: true}
		}
		return
	}
	if killed == killedTimeout { // expire may come later than this
		p.finish(r, p.timedOut(r), false)
		return
	}
	p.finish(r, p.postMortem(r, err, initErr), false)
}

// postMortem is the answer of a process that ended in an invocation.
func (p *process) postMortem(r *run, err error, initErr *Result) *Result {
	var start *exec.Error
	var path *fs.PathError
	switch {
	case initErr != nil:
		return initErr
	case errors.As(err, &start), errors.As(err, &path):
		return failed("Runtime.InvalidEntrypoint", "RequestId: "+r.RequestID+" Error: "+strings.ReplaceAll(err.Error(), p.pool.f.Code, "/var/task"))
	case err == nil:
		return failed("Runtime.ExitError", "RequestId: "+r.RequestID+" Error: Runtime exited without providing a reason")
	}
	return failed("Runtime.ExitError", "RequestId: "+r.RequestID+" Error: Runtime exited with error: "+err.Error())
}

// kill ends the process and whatever it has started. Only the first reason is kept.
func (p *process) kill(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed == "" {
		p.killed = why
	}
	if p.pid > 0 {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // ESRCH: it has gone by itself
	}
}

// answered takes what the runtime said of an invocation; false when there is none of that id.
func (p *process) answered(id string, res *Result) bool {
	p.mu.Lock()
	r := p.current
	ours := r != nil && r.RequestID == id && !r.taken.IsZero()
	p.mu.Unlock()
	return ours && p.finish(r, res, true)
}

// next waits for an invocation, on behalf of the runtime.
func (p *process) next(ctx context.Context) (*run, error) {
	p.mu.Lock()
	busy := p.current != nil && !p.current.taken.IsZero()
	if !busy && !p.ready {
		p.ready, p.inited = true, time.Now()
	}
	p.mu.Unlock()
	if busy {
		return nil, errState
	}
	for {
		select {
		case r := <-p.work:
			if p.take(r) {
				return r, nil
			}
		case <-p.dead:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
