package function

import (
	"context"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/function/environment"
)

// GetFunctionLogs gives the last lines that a local function printed on this node.
func (f *Functions) GetFunctionLogs(ctx context.Context, in *flotilla.GetFunctionLogsRequest) (*flotilla.GetFunctionLogsResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	f.local.mu.Lock()
	log := f.local.logs[c.name]
	f.local.mu.Unlock()
	out := &flotilla.GetFunctionLogsResponse{FunctionName: &c.name}
	var lines []environment.Line
	if log != nil {
		lines = log.Lines()
	}
	for _, l := range lines {
		out.Lines = append(out.Lines, &flotilla.FunctionLogLine{Time: &aws.Time{Time: l.Time}, Text: &l.Text})
	}
	return out, nil
}
