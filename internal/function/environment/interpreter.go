package environment

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed runtime/bootstrap.py
var bootstrapPython []byte

//go:embed runtime/bootstrap.mjs
var bootstrapNode []byte

// interpreter runs functions of managed runtimes.
type interpreter struct {
	program string   // on PATH
	where   []string // arguments that have it print its own path
	file    string
	text    []byte
	args    []string

	once sync.Once
	path string
	err  error
}

// interpreters knows how functions are started.
type interpreters struct {
	dir         string
	node, plain *interpreter
}

func openInterpreters(dir string) (*interpreters, error) {
	in := &interpreters{
		dir:   dir,
		node:  &interpreter{program: "node", where: []string{"-p", "process.execPath"}, file: "bootstrap.mjs", text: bootstrapNode},
		plain: &interpreter{program: "python3", where: []string{"-c", "import sys; print(sys.executable)"}, file: "bootstrap.py", text: bootstrapPython, args: []string{"-B", "-u"}},
	}
	for _, i := range []*interpreter{in.node, in.plain} {
		if err := os.WriteFile(filepath.Join(dir, i.file), i.text, 0o400); err != nil {
			return nil, err
		}
	}
	return in, nil
}

var (
	nodeRuntime   = regexp.MustCompile(`^nodejs[0-9]+\.x$`)
	pythonRuntime = regexp.MustCompile(`^python3\.[0-9]+$`)
)

// of gives the interpreter of a runtime; nil for custom runtimes.
func (in *interpreters) of(runtime string) (i *interpreter, ok bool) {
	switch {
	case runtime == "provided.al2023", runtime == "provided.al2", runtime == "provided":
		return nil, true
	case nodeRuntime.MatchString(runtime):
		return in.node, true
	case pythonRuntime.MatchString(runtime):
		return in.plain, true
	}
	return nil, false
}

// find looks for the interpreter on PATH, once. What a version manager puts there is asked for the program behind it.
func (i *interpreter) find() (string, error) {
	i.once.Do(func() {
		path, err := exec.LookPath(i.program)
		if err != nil {
			i.err = fmt.Errorf("%s is not installed: it is not on the PATH of the server", i.program)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, i.where...).Output()
		i.path = strings.TrimSpace(string(out))
		if err != nil || !filepath.IsAbs(i.path) {
			i.err = fmt.Errorf("%s does not run: %w", path, err)
		}
	})
	return i.path, i.err
}

// Supported says why functions of a runtime can not run here; nil if they can.
func (e *Environments) Supported(runtime string) error {
	i, ok := e.runtime.of(runtime)
	if !ok {
		return fmt.Errorf("the runtime %s is not supported: provided.al2023, provided.al2, nodejs*.x and python3.* are", runtime)
	}
	if i == nil {
		return nil
	}
	if _, err := i.find(); err != nil {
		return fmt.Errorf("the runtime %s can not run: %w", runtime, err)
	}
	return nil
}

// command is what starts a function.
func (in *interpreters) command(f *Function) (*exec.Cmd, error) {
	i, _ := in.of(f.Runtime)
	if i == nil {
		path := filepath.Join(f.Code, "bootstrap")
		if _, err := os.Stat(path); err != nil {
			return nil, &exec.Error{Name: "bootstrap", Err: fmt.Errorf("couldn't find valid bootstrap(s): [%s]", path)}
		}
		return exec.Command(path), nil
	}
	path, err := i.find()
	if err != nil {
		return nil, &exec.Error{Name: i.program, Err: err}
	}
	return exec.Command(path, append(slices.Clone(i.args), filepath.Join(in.dir, i.file))...), nil
}

// environ are the variables of a process: Lambda's, and the function's own where Lambda lets it choose. Nothing comes
// from the server's environment.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
func environ(f *Function, api, tmp string) []string {
	env := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "en_US.UTF-8", "TZ": ":UTC", "HOME": tmp, "TMPDIR": tmp,
		"LD_LIBRARY_PATH": f.Code + ":" + f.Code + "/lib", "PYTHONDONTWRITEBYTECODE": "1",
	}
	maps.Copy(env, f.Variables)
	log := "/aws/lambda/" + f.Name
	maps.Copy(env, map[string]string{
		"_HANDLER": f.Handler, "AWS_LAMBDA_RUNTIME_API": api, "LAMBDA_TASK_ROOT": f.Code, "LAMBDA_RUNTIME_DIR": f.Code,
		"AWS_REGION": f.Region, "AWS_DEFAULT_REGION": f.Region, "AWS_EXECUTION_ENV": "AWS_Lambda_" + f.Runtime,
		"AWS_LAMBDA_FUNCTION_NAME": f.Name, "AWS_LAMBDA_FUNCTION_VERSION": f.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(f.MemoryMiB), "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME": log, "AWS_LAMBDA_LOG_STREAM_NAME": f.Version,
	})
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// Reserved tells whether a function may not choose the value of a variable.
func Reserved(name string) bool {
	switch name {
	case "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR":
		return true
	}
	return strings.HasPrefix(name, "AWS_LAMBDA_")
}
