package function

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/google/uuid"

	"flotilla/internal/aws/lambda"
	"flotilla/internal/store"
)

// enabled refuses the management of functions where there are none.
func (f *Functions) enabled() error {
	if f.local == nil {
		return invalid("Local functions are turned off: --function.local=on allows them. By default they are on only if the API listens on loopback.")
	}
	return nil
}

// CreateFunction creates a function from a zip. It is ready at once.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
func (f *Functions) CreateFunction(ctx context.Context, in *lambda.CreateFunctionRequest) (*lambda.FunctionConfiguration, error) {
	if err := f.enabled(); err != nil {
		return nil, err
	}
	err := refused(map[string]bool{
		"PackageType Image": value(in.PackageType) == lambda.PackageTypeImage, "VpcConfig": refuseVPC(in.VpcConfig), "Layers": len(in.Layers) > 0,
		"DeadLetterConfig": refuseDeadLetter(in.DeadLetterConfig), "KMSKeyArn": value(in.KMSKeyArn) != "", "TracingConfig": refuseTracing(in.TracingConfig),
		"FileSystemConfigs": len(in.FileSystemConfigs) > 0, "ImageConfig": in.ImageConfig != nil, "CodeSigningConfigArn": value(in.CodeSigningConfigArn) != "",
		"EphemeralStorage other than 512 MB": refuseStorage(in.EphemeralStorage), "SnapStart": refuseSnapStart(in.SnapStart),
		"CapacityProviderConfig": in.CapacityProviderConfig != nil, "PublishTo": in.PublishTo != nil, "DurableConfig": in.DurableConfig != nil, "TenancyConfig": in.TenancyConfig != nil,
	})
	if err != nil {
		return nil, err
	}
	name, qualifier, ok := f.split(in.FunctionName)
	if !ok || qualifier != "" || len(name) > 64 {
		return nil, invalid("FunctionName %q is not a name of at most 64 characters, or an ARN of this account without a qualifier.", in.FunctionName)
	}
	v := &version{number: latest, configuration: configuration{Timeout: 3, MemorySize: 128}}
	err = v.apply(&wanted{
		Runtime: in.Runtime, Role: &in.Role, Handler: in.Handler, Description: in.Description, Timeout: in.Timeout, MemorySize: in.MemorySize,
		Environment: in.Environment, Logging: in.LoggingConfig,
	}, f.local)
	if err == nil {
		err = v.setArchitecture(in.Architectures)
	}
	if err == nil {
		err = checkTags(in.Tags)
	}
	if err != nil {
		return nil, err
	}
	r := &record{name: name, settings: settings{Tags: in.Tags}, versions: map[int64]*version{}}
	err = f.withCode(ctx, v, in.Code, func(ctx context.Context, tx store.Tx) error {
		r.created = f.now().UnixMilli()
		r.last = 0
		if _, err := selectFunction(tx, name); !errors.Is(err, store.ErrNotFound) {
			if err == nil {
				err = &lambda.ResourceConflictException{Type: "User", Message: "Function already exist: " + name}
			}
			return err
		}
		if n, _, err := usage(tx); err != nil || n >= f.cfg.MaxFunctions {
			if err == nil {
				err = invalid("There are %d functions already, no more are allowed.", n)
			}
			return err
		}
		if err := insertFunction(tx, r); err != nil {
			return err
		}
		return f.store(ctx, tx, r, v, value(in.Publish))
	})
	if err != nil {
		return nil, err
	}
	if p := r.versions[r.last]; p != nil && r.last > 0 {
		v = p
	}
	return f.describe(r, v, false), nil
}

// store writes the new $LATEST of a function, and publishes it if asked to.
func (f *Functions) store(ctx context.Context, tx store.Tx, r *record, v *version, publish bool) error {
	v.revision, v.modified = uuid.NewString(), f.now().UnixMilli()
	if err := putVersion(tx, r.name, v); err != nil {
		return err
	}
	if publish {
		if _, err := f.publish(tx, r, v, nil); err != nil {
			return err
		}
	}
	f.db.AfterCommit(ctx, func() { f.bus.Changed(kindFunction, r.name) })
	return nil
}

// change runs fn on a function in a write, and tells of the change.
func (f *Functions) change(ctx context.Context, name string, fn func(context.Context, store.Tx, *record) error) error {
	if err := f.enabled(); err != nil {
		return err
	}
	return f.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectFunction(tx, name)
		if errors.Is(err, store.ErrNotFound) {
			return f.notFound(name)
		}
		if err != nil {
			return err
		}
		f.db.AfterCommit(ctx, func() { f.bus.Changed(kindFunction, name) })
		return fn(ctx, tx, r)
	})
}

// withCode stores a zip, notes it in v and runs fn in a write that is sure of it.
func (f *Functions) withCode(ctx context.Context, v *version, code *lambda.FunctionCode, fn store.Func) error {
	switch {
	case value(code.ImageUri) != "":
		return invalid("Code.ImageUri is not implemented.")
	case value(code.S3Bucket) != "" || value(code.S3Key) != "":
		return invalid("Code.S3Bucket and Code.S3Key are not implemented: give the zip as Code.ZipFile.")
	case value(code.SourceKMSKeyArn) != "":
		return invalid("Code.SourceKMSKeyArn is not implemented.")
	case len(code.ZipFile) == 0:
		return invalid("Please provide a source for function code.")
	case len(code.ZipFile) > maxZipped:
		return &lambda.RequestTooLargeException{Type: "User", Message: "The zip must be smaller than 52428800 bytes"}
	}
	sum := sha256.Sum256(code.ZipFile)
	v.sha256, v.sizeBytes = hex.EncodeToString(sum[:]), int64(len(code.ZipFile))
	if err := f.local.admit(v.sha256, code.ZipFile); err != nil {
		return err
	}
	for range 3 {
		if err := writeCode(ctx, f.db, v.sha256, code.ZipFile); err != nil {
			return err
		}
		lost := false
		err := f.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			whole, err := hasCode(tx, v.sha256, v.sizeBytes)
			if lost = err == nil && !whole; err != nil || lost {
				return err
			}
			if err := fn(ctx, tx); err != nil {
				return err
			}
			if _, used, err := usage(tx); err != nil || used > f.cfg.MaxCodeBytes {
				if err == nil {
					err = &lambda.CodeStorageExceededException{Type: "User", Message: "Code storage limit exceeded."}
				}
				return err
			}
			return nil
		})
		if err != nil {
			_ = f.db.Write(ctx, func(_ context.Context, tx store.Tx) error { return forgetCode(tx, v.sha256) }) // else the next start does
			return err
		}
		if !lost {
			return nil
		}
	}
	return errors.New("function: the code was deleted while it was written")
}

// UpdateFunctionCode replaces the code of $LATEST. Processes that run the old code finish what they are at.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionCode.html
func (f *Functions) UpdateFunctionCode(ctx context.Context, in *lambda.UpdateFunctionCodeRequest) (*lambda.FunctionConfiguration, error) {
	if err := f.enabled(); err != nil {
		return nil, err
	}
	if err := refused(map[string]bool{"PublishTo": in.PublishTo != nil}); err != nil {
		return nil, err
	}
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	v := new(*c.version)
	if err := v.setArchitecture(in.Architectures); err != nil {
		return nil, err
	}
	code := &lambda.FunctionCode{ZipFile: in.ZipFile, S3Bucket: in.S3Bucket, S3Key: in.S3Key, ImageUri: in.ImageUri, SourceKMSKeyArn: in.SourceKMSKeyArn}
	var out *lambda.FunctionConfiguration
	err = f.withCode(ctx, v, code, func(ctx context.Context, tx store.Tx) error {
		r, err := selectFunction(tx, c.name)
		if errors.Is(err, store.ErrNotFound) {
			return f.notFound(c.name)
		}
		if err != nil {
			return err
		}
		old := r.versions[latest]
		if err := precondition(old, in.RevisionId); err != nil {
			return err
		}
		v.configuration = old.configuration
		if err := v.setArchitecture(in.Architectures); err != nil {
			return err
		}
		if value(in.DryRun) {
			out = f.describe(r, v, false)
			return nil
		}
		if err := f.store(ctx, tx, r, v, value(in.Publish)); err != nil {
			return err
		}
		shown := v
		if value(in.Publish) {
			shown = r.versions[r.last]
		}
		out = f.describe(r, shown, false)
		return nil
	})
	return out, err
}

// precondition holds the revision that a caller knows against the one that is.
func precondition(v *version, revision *string) error {
	if revision == nil || *revision == v.revision {
		return nil
	}
	return &lambda.PreconditionFailedException{Type: "User", Message: "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"}
}

// UpdateFunctionConfiguration changes $LATEST.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionConfiguration.html
func (f *Functions) UpdateFunctionConfiguration(ctx context.Context, in *lambda.UpdateFunctionConfigurationRequest) (*lambda.FunctionConfiguration, error) {
	err := refused(map[string]bool{
		"VpcConfig": refuseVPC(in.VpcConfig), "Layers": len(in.Layers) > 0, "DeadLetterConfig": refuseDeadLetter(in.DeadLetterConfig),
		"KMSKeyArn": value(in.KMSKeyArn) != "", "TracingConfig": refuseTracing(in.TracingConfig), "FileSystemConfigs": len(in.FileSystemConfigs) > 0,
		"ImageConfig": in.ImageConfig != nil, "EphemeralStorage other than 512 MB": refuseStorage(in.EphemeralStorage), "SnapStart": refuseSnapStart(in.SnapStart),
		"CapacityProviderConfig": in.CapacityProviderConfig != nil, "DurableConfig": in.DurableConfig != nil,
	})
	if err != nil {
		return nil, err
	}
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	var out *lambda.FunctionConfiguration
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		v := r.versions[latest]
		if err := precondition(v, in.RevisionId); err != nil {
			return err
		}
		err := v.apply(&wanted{
			Runtime: in.Runtime, Role: in.Role, Handler: in.Handler, Description: in.Description, Timeout: in.Timeout, MemorySize: in.MemorySize,
			Environment: in.Environment, Logging: in.LoggingConfig,
		}, f.local)
		if err != nil {
			return err
		}
		if err := v.setArchitecture(nil); err != nil {
			return err
		}
		v.revision, v.modified = uuid.NewString(), f.now().UnixMilli()
		out = f.describe(r, v, false)
		return putVersion(tx, r.name, v)
	})
	return out, err
}

// DeleteFunction deletes a function with all its versions and what it is owed, or the version that is named.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunction.html
func (f *Functions) DeleteFunction(ctx context.Context, in *lambda.DeleteFunctionRequest) (*lambda.DeleteFunctionResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		switch v := r.versions[c.number]; {
		case c.qualifier == "":
			return deleteFunction(tx, r)
		case c.number == latest:
			return invalid("$LATEST version cannot be deleted without deleting the function.")
		case v == nil:
			return f.notFound(in.FunctionName)
		default:
			return deleteVersion(tx, r.name, v)
		}
	})
	return &lambda.DeleteFunctionResponse{}, err
}

// PublishVersion makes a version of $LATEST that does not change any more. When $LATEST is as the version that was
// published last, that one is returned.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html
func (f *Functions) PublishVersion(ctx context.Context, in *lambda.PublishVersionRequest) (*lambda.FunctionConfiguration, error) {
	if err := refused(map[string]bool{"PublishTo": in.PublishTo != nil}); err != nil {
		return nil, err
	}
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	var out *lambda.FunctionConfiguration
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		v := r.versions[latest]
		if err := precondition(v, in.RevisionId); err != nil {
			return err
		}
		if sum := value(in.CodeSha256); sum != "" && sum != *f.describe(r, v, false).CodeSha256 {
			return invalid("CodeSHA256 (%.100s) is different from current CodeSHA256 in $LATEST. Please try again with the CodeSHA256 in $LATEST.", sum)
		}
		published, err := f.publish(tx, r, v, in.Description)
		if err == nil {
			out = f.describe(r, published, false)
		}
		return err
	})
	return out, err
}

func (f *Functions) publish(tx store.Tx, r *record, v *version, description *string) (*version, error) {
	if last := r.versions[r.last]; r.last > 0 && last != nil && last.sha256 == v.sha256 && last.equals(&v.configuration, description) {
		return last, nil
	}
	r.last++
	p := new(*v)
	p.number, p.revision, p.modified = r.last, uuid.NewString(), f.now().UnixMilli()
	if description != nil {
		p.Description = *description
	}
	r.versions[p.number] = p
	if err := putVersion(tx, r.name, p); err != nil {
		return nil, err
	}
	return p, updateFunction(tx, r)
}
