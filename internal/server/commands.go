package server

import (
	"flotilla/internal/api"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/commands"
)

// routeCommands lists the operations of commands.
func routeCommands(s *api.Server, c *commands.Commands) {
	api.Handle(s, iot.CreateCommand, c.CreateCommand)
	api.Handle(s, iot.DeleteCommand, c.DeleteCommand)
	api.Handle(s, iot.DeleteCommandExecution, c.DeleteCommandExecution)
	api.Handle(s, iot.GetCommand, c.GetCommand)
	api.Handle(s, iot.GetCommandExecution, c.GetCommandExecution)
	api.Handle(s, iot.ListCommandExecutions, c.ListCommandExecutions)
	api.Handle(s, iot.ListCommands, c.ListCommands)
	api.Handle(s, iot.UpdateCommand, c.UpdateCommand)
	api.Handle(s, iotjobsdata.StartCommandExecution, c.StartCommandExecution)
}
