package aws_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"flotilla/internal/aws"
)

func TestWarnings(t *testing.T) {
	aws.Warn(t.Context(), "nobody listens")
	var w aws.Warnings
	ctx := aws.WithWarnings(context.Background(), &w)
	aws.Warn(ctx, "a\r\nX-Injected: ü")
	aws.Warn(ctx, strings.Repeat("x", 5000))
	for i := range 50 {
		aws.Warn(ctx, fmt.Sprint(i))
	}
	list := w.List()
	if len(list) != 16 || list[0] != "a??X-Injected: ?" || len(list[1]) != 512 || list[2] != "0" {
		t.Errorf("%d warnings, %.40q", len(list), list)
	}
}
