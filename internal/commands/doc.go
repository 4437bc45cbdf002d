// Package commands sends commands to single devices and keeps what they answer.
//
//	CreateCommand ...           a command: a payload, or a template of one with parameters      command.go payload.go
//	StartCommandExecution       $aws/commands/things/T/executions/E/request, QoS 1              execution.go
//	a device's answer           $aws/commands/things/T/executions/E/response/json               answer.go
//	time is up                  TIMED_OUT; a device that answers later is still heard           run.go
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-remote-command.html
package commands
