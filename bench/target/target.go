// Package target starts a flotilla server in a process of its own for benchmarks
// and reads what it uses.
package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/server"
)

// Server is a running server with everything embedded.
type Server struct {
	Dir       string // data directory
	Endpoints server.Endpoints
	StartUp   time.Duration // from its start until it was ready

	cmd  *exec.Cmd
	temp string
}

// Start builds flotilla from the module in the current directory and starts it
// with free ports on loopback in a temporary directory; args are further flags of serve.
func Start(ctx context.Context, args ...string) (*Server, error) { return StartAt(ctx, "", args...) }

// StartAt is Start in a data directory that stays; "" is a temporary one.
func StartAt(ctx context.Context, dir string, args ...string) (*Server, error) {
	temp, err := os.MkdirTemp("", "flotilla-bench-")
	if err != nil {
		return nil, err
	}
	s := &Server{temp: temp, Dir: dir}
	if dir == "" {
		s.Dir = filepath.Join(temp, "data")
	}
	binary := filepath.Join(temp, "flotilla")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/flotilla")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("build: %w\n%s", err, out), os.RemoveAll(temp))
	}
	s.cmd = exec.Command(binary, append([]string{
		"serve", "--data", s.Dir, "--mqtt-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0",
		"--api-addr", "127.0.0.1:0", "--nats-addr", "127.0.0.1:0", "--log-level", "error",
	}, args...)...)
	s.cmd.Stderr = os.Stderr
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	for end := time.Now().Add(time.Minute); ; {
		b, err := os.ReadFile(filepath.Join(s.Dir, "endpoints.json"))
		if err == nil {
			err = json.Unmarshal(b, &s.Endpoints)
		}
		if err == nil {
			s.StartUp = time.Since(began)
			return s, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(errors.New("the server did not become ready"), s.Stop())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop ends the server and removes its files.
func (s *Server) Stop() error {
	err := s.cmd.Process.Signal(syscall.SIGTERM)
	if err == nil {
		err = s.cmd.Wait()
	}
	return errors.Join(err, os.RemoveAll(s.temp))
}

// IoT is a client of the control plane.
func (s *Server) IoT() (*iot.Client, error) {
	access, secret, err := server.ReadCredentials(filepath.Join(s.Dir, "credentials"))
	if err != nil {
		return nil, err
	}
	return iot.New(iot.Options{
		Region: "us-east-1", BaseEndpoint: &s.Endpoints.API, Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
	}), nil
}

// CPU is the processor time that the server has used, user and system together.
func (s *Server) CPU() (time.Duration, error) { return CPU(s.cmd.Process.Pid) }

// CPU is the processor time that a process has used, user and system together, to 10 ms.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold spaces
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, errors.New("/proc/PID/stat: too short")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// RSS is the server's resident memory in bytes.
func (s *Server) RSS() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, errors.New("/proc/PID/statm: too short")
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
