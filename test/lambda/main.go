// Command lambda is a function for tests: a custom runtime made with AWS's own library. What it does is in the event.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Do   string `json:"do"`
	File string `json:"file"`
	N    int    `json:"n"`
}

func main() {
	if os.Getenv("INIT") == "exit" {
		os.Exit(3)
	}
	lambda.Start(handle)
}

func handle(ctx context.Context, raw json.RawMessage) (any, error) {
	var e event
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	switch e.Do {
	case "fail":
		return nil, errors.New("it was asked to fail")
	case "panic":
		panic("it was asked to panic")
	case "exit":
		os.Exit(7)
	case "hang":
		select {}
	case "huge":
		return strings.Repeat("a", 7<<20), nil
	case "print":
		fmt.Println("printed to stdout")
		fmt.Fprintln(os.Stderr, strings.Repeat("x", e.N))
	case "environment":
		return os.Environ(), nil
	case "memory":
		b := make([]byte, e.N<<20)
		for i := range b {
			b[i] = 1
		}
		select {}
	case "wait": // until a file is there
		for _, err := os.Stat(e.File); err != nil; _, err = os.Stat(e.File) {
			time.Sleep(5 * time.Millisecond)
		}
	case "count": // one line a call, in a file
		f, err := os.OpenFile(e.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		fmt.Fprintln(f, os.Getpid())
		if e.N > 0 {
			return nil, errors.New("it was asked to fail")
		}
	case "context":
		lc, _ := lambdacontext.FromContext(ctx)
		deadline, ok := ctx.Deadline()
		dir, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		return map[string]any{
			"arn": lc.InvokedFunctionArn, "requestId": lc.AwsRequestID, "name": lambdacontext.FunctionName, "version": lambdacontext.FunctionVersion,
			"memory": lambdacontext.MemoryLimitInMB, "client": lc.ClientContext.Client.AppTitle, "deadline": ok && time.Until(deadline) > 0, "dir": dir, "pid": os.Getpid(),
		}, nil
	}
	return raw, nil
}
