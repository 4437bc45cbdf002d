package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"flotilla/internal/observe"
	"flotilla/internal/server"
)

type serveCmd struct {
	server.Config `embed:""`
}

func (c *serveCmd) Help() string {
	return "Example:\n\n  flotilla serve --data ./flotilla-data --api-addr 127.0.0.1:8080\n\n" +
		"Then, in another terminal:\n\n" +
		"  export AWS_ENDPOINT_URL=http://127.0.0.1:8080 AWS_REGION=us-east-1\n" +
		"  export AWS_SHARED_CREDENTIALS_FILE=./flotilla-data/credentials\n" +
		"  aws iot create-thing --thing-name pump-1\n"
}

func (c *serveCmd) Run(s *streams) error {
	log, err := observe.Logger(c.Config.Observe, s.err)
	if err != nil {
		return usageError{err}
	}
	if os.Getenv("GOGC") == "" {
		// Idle connections are most of the memory of a gateway: collecting at half the
		// default's growth takes 1.5 KiB off each, at no CPU that could be measured.
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	srv, err := server.Start(ctx, c.Config, log)
	if err != nil {
		return err
	}
	e := srv.Endpoints()
	fmt.Fprintf(s.out, "flotilla is ready\n  api    %s\n  mqtt   %s\n  https  %s\n  data   %s\n", e.API, e.MQTT, e.HTTPS, c.Config.Data)
	select {
	case <-ctx.Done():
	case err = <-srv.Failed():
	}
	stop() // a second signal ends the process at once
	if cerr := srv.Close(); err == nil {
		err = cerr
	}
	return err
}
