package function

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"flotilla/internal/aws/lambda"
	"flotilla/internal/store"
)

// pageSize is how many functions or versions a page has at most.
const pageSize = 50

// equals compares what a version would be with what it is, but for another description.
func (c *configuration) equals(other *configuration, description *string) bool {
	x, y := *c, *other
	if description != nil {
		y.Description = *description
	}
	return reflect.DeepEqual(&x, &y)
}

// GetFunction describes a function. Where its code can be loaded from is not told: there is no such place.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
func (f *Functions) GetFunction(ctx context.Context, in *lambda.GetFunctionRequest) (*lambda.GetFunctionResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	out := &lambda.GetFunctionResponse{
		Configuration: f.describe(c.record, c.version, c.qualifier != ""), Code: &lambda.FunctionCodeLocation{RepositoryType: new("S3")}, Tags: c.settings.Tags,
	}
	if n := c.settings.Concurrency; n != nil {
		out.Concurrency = &lambda.Concurrency{ReservedConcurrentExecutions: n}
	}
	return out, nil
}

// GetFunctionConfiguration describes a version of a function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html
func (f *Functions) GetFunctionConfiguration(ctx context.Context, in *lambda.GetFunctionConfigurationRequest) (*lambda.FunctionConfiguration, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	return f.describe(c.record, c.version, c.qualifier != ""), nil
}

// ListFunctions lists the functions by name, with FunctionVersion ALL each of their versions.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html
func (f *Functions) ListFunctions(ctx context.Context, in *lambda.ListFunctionsRequest) (*lambda.ListFunctionsResponse, error) {
	if region := value(in.MasterRegion); region != "" && region != "ALL" && region != f.account.Region {
		return nil, invalid("MasterRegion is not implemented.")
	}
	out := &lambda.ListFunctionsResponse{}
	if f.local == nil {
		return out, nil
	}
	most := pageSize
	if n := value(in.MaxItems); n > 0 {
		most = min(most, int(n))
	}
	var list []*record
	err := f.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		names, err := selectNames(tx, value(in.Marker), most+1)
		if err != nil {
			return err
		}
		list = list[:0]
		for _, name := range names[:min(len(names), most)] {
			r, err := selectFunction(tx, name)
			if err != nil {
				return err
			}
			list = append(list, r)
		}
		if len(names) > most {
			out.NextMarker = &names[most-1]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		for _, number := range slices.Sorted(maps.Keys(r.versions)) {
			if number == latest || value(in.FunctionVersion) == lambda.FunctionVersionAll {
				out.Functions = append(out.Functions, f.describe(r, r.versions[number], value(in.FunctionVersion) != ""))
			}
		}
	}
	return out, nil
}

// ListVersionsByFunction lists the versions of a function, $LATEST first.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListVersionsByFunction.html
func (f *Functions) ListVersionsByFunction(ctx context.Context, in *lambda.ListVersionsByFunctionRequest) (*lambda.ListVersionsByFunctionResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	after := int64(-1)
	if text := value(in.Marker); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, invalid("Marker %.100q is not one that was given out.", text)
		}
	}
	most := pageSize
	if n := value(in.MaxItems); n > 0 {
		most = min(most, int(n))
	}
	out := &lambda.ListVersionsByFunctionResponse{}
	for _, number := range slices.Sorted(maps.Keys(c.versions)) {
		if number <= after {
			continue
		}
		if len(out.Versions) == most {
			out.NextMarker = new(strconv.FormatInt(after, 10))
			break
		}
		out.Versions = append(out.Versions, f.describe(c.record, c.versions[number], true))
		after = number
	}
	return out, nil
}

// ListAliases answers that a function has none: aliases are not implemented.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListAliases.html
func (f *Functions) ListAliases(ctx context.Context, in *lambda.ListAliasesRequest) (*lambda.ListAliasesResponse, error) {
	_, err := f.choose(ctx, in.FunctionName, "")
	return &lambda.ListAliasesResponse{}, err
}

// GetFunctionCodeSigningConfig answers that a function has none.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionCodeSigningConfig.html
func (f *Functions) GetFunctionCodeSigningConfig(ctx context.Context, in *lambda.GetFunctionCodeSigningConfigRequest) (*lambda.GetFunctionCodeSigningConfigResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	return &lambda.GetFunctionCodeSigningConfigResponse{FunctionName: c.name}, nil
}

// GetRuntimeManagementConfig answers what there is: the interpreter that is installed.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetRuntimeManagementConfig.html
func (f *Functions) GetRuntimeManagementConfig(ctx context.Context, in *lambda.GetRuntimeManagementConfigRequest) (*lambda.GetRuntimeManagementConfigResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	return &lambda.GetRuntimeManagementConfigResponse{FunctionArn: new(f.arn(c.name)), UpdateRuntimeOn: new(lambda.UpdateRuntimeOnAuto)}, nil
}

// GetFunctionRecursionConfig answers that nothing ends a function that calls itself in a loop.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionRecursionConfig.html
func (f *Functions) GetFunctionRecursionConfig(ctx context.Context, in *lambda.GetFunctionRecursionConfigRequest) (*lambda.GetFunctionRecursionConfigResponse, error) {
	if _, err := f.choose(ctx, in.FunctionName, ""); err != nil {
		return nil, err
	}
	return &lambda.GetFunctionRecursionConfigResponse{RecursiveLoop: new(lambda.RecursiveLoopAllow)}, nil
}

// GetAccountSettings gives the bounds of all functions together.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetAccountSettings.html
func (f *Functions) GetAccountSettings(ctx context.Context, _ *lambda.GetAccountSettingsRequest) (*lambda.GetAccountSettingsResponse, error) {
	var functions, bytes int64
	err := f.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		functions, bytes, err = usage(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &lambda.GetAccountSettingsResponse{
		AccountLimit: &lambda.AccountLimit{
			TotalCodeSize: &f.cfg.MaxCodeBytes, CodeSizeUnzipped: new(int64(maxUnzipped)), CodeSizeZipped: new(int64(maxZipped)),
			ConcurrentExecutions: new(int32(f.cfg.Processes)), UnreservedConcurrentExecutions: new(int32(f.cfg.Processes)),
		},
		AccountUsage: &lambda.AccountUsage{TotalCodeSize: &bytes, FunctionCount: &functions},
	}, nil
}
