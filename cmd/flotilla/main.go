// Command flotilla is AWS IoT Core that you run yourself: the server, and the
// tools to operate and to try it, in one binary.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// cli is the whole command line. Each flag has a twin in the environment
// (FLOTILLA_MQTT_ADDR) and in the TOML file that --config names.
type cli struct {
	Config string `name:"config" short:"c" env:"FLOTILLA_CONFIG" placeholder:"FILE" help:"TOML file with settings, named as the flags are."`

	Serve      serveCmd      `cmd:"" help:"Run the server."`
	Quickstart quickstartCmd `cmd:"" help:"Run the whole story once: a server, a fleet of simulated devices, a summary."`
	Sim        simCmd        `cmd:"" help:"Run a fleet of simulated devices against a server, and check that all adds up."`
	Certs      certsCmd      `cmd:"" help:"Certificates of devices: list, revoke, rotate."`
	Explain    explainCmd    `cmd:"" help:"Say why something was refused."`
	Functions  functionsCmd  `cmd:"" help:"Look at local functions."`
	Firmware   firmwareCmd   `cmd:"" help:"Sign firmware images and verify them."`
	Policy     policyCmd     `cmd:"" help:"Try IoT policies, and find what is wrong with them."`
	Provision  provisionCmd  `cmd:"" help:"Find what is wrong with provisioning templates."`
	Rules      rulesCmd      `cmd:"" help:"Try topic rules on messages, and find those that decide too much."`
	Pushes     configCmd     `cmd:"" name:"config" help:"Configure a slice of the fleet through its shadows."`
	ConfigDoc  configDocCmd  `cmd:"" name:"config-doc" hidden:"" help:"Print docs/config.md."`
	Keys       keysCmd       `cmd:"" help:"Make, list, rotate and withdraw the access keys of the API."`
	Identities identitiesCmd `cmd:"" help:"Say who may call the API, and what each may do."`
	Audit      auditCmd      `cmd:"" help:"Show and verify the log of changes."`
	Archive    archiveCmd    `cmd:"" help:"Look at the archive of messages, query it, and keep it in order."`
	Shadow     shadowCmd     `cmd:"" help:"Show what became of a shadow, and restore it."`
	Alarms     alarmsCmd     `cmd:"" help:"Alarms that rules set: list, delete."`
	Logs       logsCmd       `cmd:"" help:"Log groups that rules write: list, tail."`
	Telemetry  telemetryCmd  `cmd:"" help:"Ask for live telemetry: history, last values, tables."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// usageError is a bad command line: exit 2.
type usageError struct{ error }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes one command line and returns the exit code: 0 done, 1 failed, 2
// bad usage.
func run(args []string, stdout, stderr io.Writer) int {
	var c cli
	exit := -1
	parser, err := newParser(&c, stdout, stderr, func(code int) { exit = code; panic(exited{}) })
	if err != nil {
		fmt.Fprintln(stderr, "flotilla:", err)
		return 2
	}
	code, err := func() (code int, err error) {
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(exited); !ok {
					panic(p)
				}
				code = exit // --help printed what there was to print
			}
		}()
		ctx, err := parser.Parse(args)
		if err != nil {
			return 2, usageError{err}
		}
		err = ctx.Run(&streams{stdout, stderr})
		return 0, err
	}()
	if err == nil {
		return code
	}
	fmt.Fprintln(stderr, "flotilla:", err)
	var ue usageError
	if errors.As(err, &ue) {
		return 2
	}
	return 1
}

type exited struct{}

// streams are where a command writes.
type streams struct{ out, err io.Writer }

func newParser(c *cli, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("flotilla"),
		kong.Description("AWS IoT Core that you run yourself."),
		kong.DefaultEnvars("FLOTILLA"),
		kong.Resolvers(&fileResolver{}),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
	)
}
