package function

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws/lambda"
	"flotilla/internal/function/environment"
)

// configuration is what the store keeps of a version, as JSON.
type configuration struct {
	Runtime, Role, Handler, Description string
	Timeout, MemorySize                 int32
	Variables                           map[string]string
	Architecture                        string
	Logging                             *lambda.LoggingConfig
}

// maxVariables bounds names and values of a function's variables together, in bytes.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxVariables = 4096

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// wanted are the parameters that CreateFunction and UpdateFunctionConfiguration have in common; nil leaves as it is.
type wanted struct {
	Runtime, Role, Handler, Description *string
	Timeout, MemorySize                 *int32
	Environment                         *lambda.Environment
	Logging                             *lambda.LoggingConfig
}

// apply changes a configuration, and checks what the model does not.
func (c *configuration) apply(w *wanted, local *local) error {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&c.Runtime, w.Runtime)
	set(&c.Role, w.Role)
	set(&c.Handler, w.Handler)
	set(&c.Description, w.Description)
	if w.Timeout != nil {
		c.Timeout = *w.Timeout
	}
	if w.MemorySize != nil {
		c.MemorySize = *w.MemorySize
	}
	if w.Environment != nil {
		c.Variables = maps.Clone(w.Environment.Variables)
	}
	if w.Logging != nil {
		c.Logging = w.Logging
	}
	switch {
	case c.Runtime == "" || c.Handler == "":
		return invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
	case c.Timeout < 1 || c.Timeout > 900:
		return invalid("Timeout %d is not from 1 to 900 seconds.", c.Timeout)
	case c.MemorySize < 128 || c.MemorySize > 10240:
		return invalid("MemorySize %d is not from 128 to 10240 MB.", c.MemorySize)
	case c.Logging != nil && value(c.Logging.LogFormat) == lambda.LogFormatJson:
		return invalid("LoggingConfig: LogFormat JSON is not implemented.")
	}
	if err := local.env.Supported(c.Runtime); err != nil {
		return invalid("Runtime: %v.", err)
	}
	return checkVariables(c.Variables)
}

func checkVariables(variables map[string]string) error {
	size := 0
	var reserved []string
	for name, value := range variables {
		size += len(name) + len(value)
		if environment.Reserved(name) {
			reserved = append(reserved, name)
		}
		if strings.ContainsRune(name+value, 0) {
			return invalid("The environment variable %.100q contains a NUL.", name)
		}
	}
	if size > maxVariables {
		return invalid("Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit.")
	}
	if reserved != nil {
		slices.Sort(reserved)
		return invalid("Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: %s", strings.Join(reserved, ", "))
	}
	return nil
}

// architecture is this machine's, as Lambda calls it.
func architecture() string {
	if runtime.GOARCH == "arm64" {
		return lambda.ArchitectureArm64
	}
	return lambda.ArchitectureX8664
}

// setArchitecture takes the one architecture of a function. Programs must be for this machine.
func (c *configuration) setArchitecture(list []string) error {
	switch {
	case len(list) > 1:
		return invalid("Architectures has more than one value.")
	case len(list) == 1:
		c.Architecture = list[0]
	case c.Architecture == "":
		c.Architecture = architecture()
	}
	if c.Architecture != architecture() && strings.HasPrefix(c.Runtime, "provided") {
		return invalid("Architectures: %s programs can not run here, this machine is %s.", c.Architecture, architecture())
	}
	return nil
}

// refused names the first parameter that is not implemented; values that ask for nothing pass.
func refused(parameters map[string]bool) error {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if parameters[name] {
			return invalid("%s is not implemented.", name)
		}
	}
	return nil
}

func refuseVPC(v *lambda.VpcConfig) bool {
	return v != nil && (len(v.SubnetIds) > 0 || len(v.SecurityGroupIds) > 0)
}

func refuseTracing(v *lambda.TracingConfig) bool {
	return v != nil && v.Mode != nil && *v.Mode != lambda.TracingModePassThrough
}

func refuseSnapStart(v *lambda.SnapStart) bool {
	return v != nil && v.ApplyOn != nil && *v.ApplyOn != lambda.SnapStartApplyOnNone
}

func refuseStorage(v *lambda.EphemeralStorage) bool { return v != nil && v.Size != 512 }

func refuseDeadLetter(v *lambda.DeadLetterConfig) bool { return v != nil && value(v.TargetArn) != "" }

// describe gives a version as the API shows it. arn is with the qualifier, if there was one.
func (f *Functions) describe(r *record, v *version, qualified bool) *lambda.FunctionConfiguration {
	arn := f.arn(r.name)
	if qualified || v.number != latest {
		arn += ":" + v.tag()
	}
	sum, _ := hex.DecodeString(v.sha256) // we made it
	out := &lambda.FunctionConfiguration{
		FunctionName: &r.name, FunctionArn: &arn, Runtime: &v.Runtime, Role: &v.Role, Handler: &v.Handler, CodeSize: &v.sizeBytes,
		Description: &v.Description, Timeout: &v.Timeout, MemorySize: &v.MemorySize, LastModified: new(stamp(v.modified)),
		CodeSha256: new(base64.StdEncoding.EncodeToString(sum)), Version: new(v.tag()), RevisionId: &v.revision,
		State: new(lambda.StateActive), LastUpdateStatus: new(lambda.LastUpdateStatusSuccessful), PackageType: new(lambda.PackageTypeZip),
		Architectures: []string{v.Architecture}, EphemeralStorage: &lambda.EphemeralStorage{Size: 512},
		LoggingConfig: &lambda.LoggingConfig{LogFormat: new(lambda.LogFormatText), LogGroup: new("/aws/lambda/" + r.name)},
	}
	if v.Logging != nil && v.Logging.LogGroup != nil {
		out.LoggingConfig.LogGroup = v.Logging.LogGroup
	}
	if len(v.Variables) > 0 {
		out.Environment = &lambda.EnvironmentResponse{Variables: v.Variables}
	}
	return out
}

// stamp writes a time as Lambda does.
func stamp(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000-0700")
}
