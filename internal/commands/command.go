package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// command is a row of command.
type command struct {
	id                string
	def               *iot.CreateCommandRequest // without tags
	deprecated        bool
	deleting          int64
	created, modified int64
}

const commandColumns = `id, definition, deprecated, deleting, created, modified`

func scanCommand(scan func(...any) error) (*command, error) {
	var m command
	var text string
	if err := scan(&m.id, &text, &m.deprecated, &m.deleting, &m.created, &m.modified); err != nil {
		return nil, err
	}
	m.def = new(iot.CreateCommandRequest)
	return &m, json.Unmarshal([]byte(text), m.def)
}

func selectCommand(tx store.Tx, id string) (*command, error) {
	return scanCommand(tx.QueryRow(`SELECT `+commandColumns+` FROM command WHERE id = $1`, id).Scan)
}

func noCommand(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: "Command " + id + " does not exist"}
	}
	return err
}

// CreateCommand makes a command: with a payload as it is, or with a JSON template of one whose parameters each execution
// gives. Of the namespaces there is AWS-IoT.
//
// Errors: iot.ValidationException, ConflictException (the id is taken), ServiceQuotaExceededException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCommand.html
func (c *Commands) CreateCommand(ctx context.Context, in *iot.CreateCommandRequest) (*iot.CreateCommandResponse, error) {
	if err := checkDefinition(in); err != nil {
		return nil, err
	}
	def := *in
	def.Tags = nil
	text, err := json.Marshal(&def)
	if err != nil {
		return nil, err
	}
	now := c.nowMS()
	err = c.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT COUNT(*) FROM command`).Scan(&n); err != nil {
			return err
		}
		if n >= c.cfg.MaxCommands {
			return &iot.ServiceQuotaExceededException{Message: fmt.Sprintf("There are %d commands, as many as there may be", n)}
		}
		made, err := tx.Exec(`INSERT INTO command (id, definition, deprecated, deleting, created, modified) VALUES ($1, $2, FALSE, 0, $3, $3)
			ON CONFLICT (id) DO NOTHING`, in.CommandId, string(text), now)
		if err != nil {
			return err
		}
		if made == 0 {
			return &iot.ConflictException{Message: "Command " + in.CommandId + " already exists", ResourceId: in.CommandId}
		}
		if len(in.Tags) == 0 {
			return nil
		}
		_, err = c.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: c.arn(in.CommandId), Tags: in.Tags})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateCommandResponse{CommandId: &in.CommandId, CommandArn: new(c.arn(in.CommandId))}, nil
}

func (c *Commands) read(ctx context.Context, id string) (m *command, err error) {
	err = c.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		m, err = selectCommand(tx, id)
		return err
	})
	return m, noCommand(err, id)
}

// Exists gives a ResourceNotFoundException for a command that does not exist.
func (c *Commands) Exists(ctx context.Context, id string) error {
	_, err := c.read(ctx, id)
	return err
}

// GetCommand gives a command.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetCommand.html
func (c *Commands) GetCommand(ctx context.Context, in *iot.GetCommandRequest) (*iot.GetCommandResponse, error) {
	m, err := c.read(ctx, in.CommandId)
	if err != nil {
		return nil, err
	}
	return &iot.GetCommandResponse{
		CommandId: &m.id, CommandArn: new(c.arn(m.id)), Namespace: new(iot.CommandNamespaceAwsIoT), DisplayName: m.def.DisplayName, Description: m.def.Description,
		MandatoryParameters: m.def.MandatoryParameters, Payload: m.def.Payload, PayloadTemplate: m.def.PayloadTemplate, Preprocessor: m.def.Preprocessor,
		RoleArn: m.def.RoleArn, CreatedAt: date(m.created), LastUpdatedAt: date(m.modified), Deprecated: &m.deprecated, PendingDeletion: new(m.deleting > 0),
	}, nil
}

// UpdateCommand changes names and whether the command is deprecated: executions of one that is can't be started.
//
// Errors: iot.ResourceNotFoundException, ConflictException (it is being deleted), ValidationException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateCommand.html
func (c *Commands) UpdateCommand(ctx context.Context, in *iot.UpdateCommandRequest) (*iot.UpdateCommandResponse, error) {
	var m *command
	err := c.DB.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if m, err = selectCommand(tx, in.CommandId); err != nil {
			return noCommand(err, in.CommandId)
		}
		if m.deleting > 0 {
			return &iot.ConflictException{Message: "Command " + m.id + " is pending deletion", ResourceId: m.id}
		}
		if in.DisplayName != nil {
			m.def.DisplayName = in.DisplayName
		}
		if in.Description != nil {
			m.def.Description = in.Description
		}
		if in.Deprecated != nil {
			m.deprecated = *in.Deprecated
		}
		m.modified = c.nowMS()
		text, err := json.Marshal(m.def)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE command SET definition = $2, deprecated = $3, modified = $4 WHERE id = $1`, m.id, string(text), m.deprecated, m.modified)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateCommandResponse{
		CommandId: &m.id, DisplayName: m.def.DisplayName, Description: m.def.Description, Deprecated: &m.deprecated, LastUpdatedAt: date(m.modified),
	}, nil
}

// DeleteCommand deletes a command, at once (204) when none of its executions may still run, else (202) when that is so.
// Its executions are kept. Deleting one that does not exist succeeds.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteCommand.html
func (c *Commands) DeleteCommand(ctx context.Context, in *iot.DeleteCommandRequest) (*iot.DeleteCommandResponse, error) {
	status := int32(204)
	err := c.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		m, err := selectCommand(tx, in.CommandId)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		running, err := runs(tx, m.id)
		if err != nil {
			return err
		}
		if !running {
			return c.erase(ctx, tx, m.id)
		}
		status = 202
		_, err = tx.Exec(`UPDATE command SET deleting = $2, modified = $2 WHERE id = $1 AND deleting = 0`, m.id, c.nowMS())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteCommandResponse{StatusCode: &status}, nil
}

// runs tells whether executions of a command may still time out.
func runs(tx store.Tx, id string) (bool, error) {
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM (SELECT 1 AS one FROM command_execution WHERE command = $1 AND due > 0 LIMIT 1) AS due`, id).Scan(&n)
	return n > 0, err
}

func (c *Commands) erase(ctx context.Context, tx store.Tx, id string) error {
	if _, err := tx.Exec(`DELETE FROM command WHERE id = $1`, id); err != nil {
		return err
	}
	return c.Tags.DeleteTags(ctx, c.arn(id))
}

// ListCommands lists commands by id; of a parameter's name those that have it.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListCommands.html
func (c *Commands) ListCommands(ctx context.Context, in *iot.ListCommandsRequest) (*iot.ListCommandsResponse, error) {
	if in.Namespace != nil && *in.Namespace != iot.CommandNamespaceAwsIoT {
		return &iot.ListCommandsResponse{}, nil
	}
	after, err := readToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	size := pageOf(in.MaxResults)
	query := `SELECT ` + commandColumns + ` FROM command WHERE id > $1 ORDER BY id LIMIT $2`
	if value(in.SortOrder) == iot.SortOrderDescending {
		query = `SELECT ` + commandColumns + ` FROM command WHERE id < $1 OR $1 = '' ORDER BY id DESC LIMIT $2`
	}
	out := &iot.ListCommandsResponse{}
	err = c.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		out.Commands, out.NextToken = nil, nil
		for {
			list, err := commandsOf(tx, query, after, size+1)
			if err != nil {
				return err
			}
			for i, m := range list {
				if i == size {
					break
				}
				after = m.id
				if p := value(in.CommandParameterName); p != "" && !hasParameter(m.def, p) {
					continue
				}
				out.Commands = append(out.Commands, &iot.CommandSummary{
					CommandArn: new(c.arn(m.id)), CommandId: &m.id, DisplayName: m.def.DisplayName, Deprecated: &m.deprecated,
					CreatedAt: date(m.created), LastUpdatedAt: date(m.modified), PendingDeletion: new(m.deleting > 0),
				})
				if len(out.Commands) == size {
					break
				}
			}
			switch {
			case len(out.Commands) == size && (len(list) > size || after != list[len(list)-1].id):
				out.NextToken = tokenOf(after)
				return nil
			case len(list) <= size:
				return nil
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func hasParameter(def *iot.CreateCommandRequest, name string) bool {
	for _, p := range def.MandatoryParameters {
		if p.Name == name {
			return true
		}
	}
	return false
}

func commandsOf(tx store.Tx, query string, args ...any) (list []*command, err error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m, err := scanCommand(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, rows.Err()
}
