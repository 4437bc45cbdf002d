package ota

import (
	"encoding/json"
	"errors"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// file is a file of a stream, as its object was when the stream was made or updated.
type file struct {
	ID     int32  `json:"id"`
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Size   int64  `json:"size"` // bytes
	ETag   string `json:"etag"` // the object store's version
}

type stream struct {
	id                string
	version           int64
	description       *string
	role              string
	files             []file
	created, modified int64 // ms
}

// file is nil when there is none.
func (s *stream) file(id int64) *file {
	for i := range s.files {
		if int64(s.files[i].ID) == id {
			return &s.files[i]
		}
	}
	return nil
}

const streamColumns = `stream_id, version, description, role_arn, files, created, modified`

func scanStream(row interface{ Scan(...any) error }) (*stream, error) {
	s, text := &stream{}, ""
	if err := row.Scan(&s.id, &s.version, &s.description, &s.role, &text, &s.created, &s.modified); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &s.files); err != nil {
		return nil, fmt.Errorf("ota: stream %s: %w", s.id, err)
	}
	return s, nil
}

func getStream(tx store.Tx, id string) (*stream, error) {
	s, err := scanStream(tx.QueryRow(`SELECT `+streamColumns+` FROM stream WHERE stream_id = $1`, id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noStream(id)
	}
	return s, err
}

func insertStream(tx store.Tx, s *stream) error {
	files, err := json.Marshal(s.files)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO stream (`+streamColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		s.id, s.version, s.description, s.role, string(files), s.created, s.modified)
	if errors.Is(err, store.ErrConflict) {
		return &iot.ResourceAlreadyExistsException{Message: fmt.Sprintf("Stream %s already exists.", s.id), ResourceId: s.id}
	}
	return err
}

func saveStream(tx store.Tx, s *stream) error {
	files, err := json.Marshal(s.files)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE stream SET version = $2, description = $3, role_arn = $4, files = $5, modified = $6 WHERE stream_id = $1`,
		s.id, s.version, s.description, s.role, string(files), s.modified)
	return err
}

func selectStreams(tx store.Tx, p page, ascending bool) (list []*stream, err error) {
	query, args := p.query(`SELECT `+streamColumns+` FROM stream`, "stream_id", ascending)
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		s, err := scanStream(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, errors.Join(rows.Err(), rows.Close())
}

// update is an OTA update.
type update struct {
	def        iot.CreateOTAUpdateRequest
	job        string
	stream     string // "": none
	ownsStream bool
	created    int64 // ms
}

const updateColumns = `ota_update_id, definition, job_id, stream_id, owns_stream, created`

func scanUpdate(row interface{ Scan(...any) error }) (*update, error) {
	u, id, text := &update{}, "", ""
	if err := row.Scan(&id, &text, &u.job, &u.stream, &u.ownsStream, &u.created); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &u.def); err != nil {
		return nil, fmt.Errorf("ota: update %s: %w", id, err)
	}
	return u, nil
}

func getUpdate(tx store.Tx, id string) (*update, error) {
	u, err := scanUpdate(tx.QueryRow(`SELECT `+updateColumns+` FROM ota_update WHERE ota_update_id = $1`, id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noUpdate(id)
	}
	return u, err
}

func insertUpdate(tx store.Tx, u *update) error {
	text, err := json.Marshal(u.def)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO ota_update (`+updateColumns+`) VALUES ($1, $2, $3, $4, $5, $6)`,
		u.def.OtaUpdateId, string(text), u.job, u.stream, u.ownsStream, u.created)
	if errors.Is(err, store.ErrConflict) {
		return &iot.ResourceAlreadyExistsException{Message: fmt.Sprintf("OTA update %s already exists.", u.def.OtaUpdateId), ResourceId: u.def.OtaUpdateId}
	}
	return err
}

func selectUpdates(tx store.Tx, p page) (list []*update, err error) {
	query, args := p.query(`SELECT `+updateColumns+` FROM ota_update`, "ota_update_id", false)
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		u, err := scanUpdate(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, errors.Join(rows.Err(), rows.Close())
}
