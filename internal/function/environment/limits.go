package environment

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	killedMemory  = "it uses more memory than MemorySize"
	killedTimeout = "timeout"
)

// limit bounds what a process may take, beside what checkMemory looks at: how much it may map for data at once, files,
// and no core dumps. The numbers of files are Lambda's.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
func limit(pid, memoryMiB int) {
	for resource, most := range map[int]uint64{
		unix.RLIMIT_DATA:   uint64(memoryMiB)<<21 + 1<<30, // runtimes map more than they use
		unix.RLIMIT_NOFILE: 1024,
		unix.RLIMIT_FSIZE:  512 << 20,
		unix.RLIMIT_CORE:   0,
	} {
		var now unix.Rlimit
		if unix.Prlimit(pid, resource, nil, &now) != nil {
			continue
		}
		now.Cur, now.Max = min(most, now.Max), min(most, now.Max)
		_ = unix.Prlimit(pid, resource, &now, nil) // lowering is always allowed
	}
}

// checkMemory kills the process when it, with what it has started, is larger than MemorySize.
func (p *process) checkMemory() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return
	}
	used := resident(p.pid, 64)
	p.rss = max(p.rss, used)
	if used > int64(p.pool.f.MemoryMiB)<<20 {
		if p.killed == "" {
			p.killed = killedMemory
		}
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// resident is how much memory a process and its descendants have, in bytes. It looks at most at budget processes.
func resident(pid, budget int) int64 {
	dir := "/proc/" + strconv.Itoa(pid)
	text, err := os.ReadFile(dir + "/statm")
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 3 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	shared, _ := strconv.ParseInt(string(fields[2]), 10, 64)
	sum := max(pages-shared, 0) * int64(os.Getpagesize())
	children, _ := os.ReadFile(dir + "/task/" + strconv.Itoa(pid) + "/children")
	for _, field := range bytes.Fields(children) {
		if budget--; budget <= 0 {
			break
		}
		if child, err := strconv.Atoi(string(field)); err == nil {
			sum += resident(child, budget)
		}
	}
	return sum
}
