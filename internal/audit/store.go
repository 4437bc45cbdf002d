package audit

import (
	"errors"

	"flotilla/internal/audit/chain"
	"flotilla/internal/store"
)

// insertAfter adds a record, if the one before it is the last that the store has; 0 when it is not.
func insertAfter(tx store.Tx, r *chain.Record, previous link) (int64, error) {
	if previous.seq == 0 {
		return tx.Exec(`INSERT INTO audit_record (node, seq, time, body, hash)
			SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM audit_record WHERE node = $1)`, r.Node, r.Seq, r.Time, r.Body, r.Hash)
	}
	return tx.Exec(`INSERT INTO audit_record (node, seq, time, body, hash)
		SELECT node, $2, $3, $4, $5 FROM audit_record WHERE node = $1 AND seq = $6 AND hash = $7
		ON CONFLICT (node, seq) DO NOTHING`, r.Node, r.Seq, r.Time, r.Body, r.Hash, previous.seq, previous.hash)
}

func selectTail(tx store.Tx, node string) (link, error) {
	var l link
	err := tx.QueryRow(`SELECT seq, hash FROM audit_record WHERE node = $1 ORDER BY seq DESC LIMIT 1`, node).Scan(&l.seq, &l.hash)
	if errors.Is(err, store.ErrNotFound) {
		return link{}, nil
	}
	return l, err
}

// selectFirst is the oldest record; 0 = there is none.
func selectFirst(tx store.Tx, node string) (seq int64, err error) {
	err = tx.QueryRow(`SELECT COALESCE(MIN(seq), 0) FROM audit_record WHERE node = $1`, node).Scan(&seq)
	return seq, err
}

// selectOlder is the last of the records at the beginning that were written before a time, at most trimBatch of them.
func selectOlder(tx store.Tx, node string, time int64) (seq int64, err error) {
	err = tx.QueryRow(`SELECT COALESCE(MAX(seq), 0) FROM (SELECT seq, time FROM audit_record WHERE node = $1 ORDER BY seq LIMIT $2) AS oldest WHERE time < $3`, node, trimBatch, time).Scan(&seq)
	return seq, err
}

func selectHash(tx store.Tx, node string, seq int64) (hash []byte, err error) {
	err = tx.QueryRow(`SELECT hash FROM audit_record WHERE node = $1 AND seq = $2`, node, seq).Scan(&hash)
	return hash, err
}

// deleteUpTo deletes the records that a head says are trimmed, and the heads before it.
func deleteUpTo(tx store.Tx, h *chain.Head) error {
	if _, err := tx.Exec(`DELETE FROM audit_record WHERE node = $1 AND seq <= $2`, h.Node, h.Seq); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM audit_head WHERE node = $1 AND seq <= $2`, h.Node, h.Seq); err != nil {
		return err
	}
	return insertHead(tx, h)
}

func insertHead(tx store.Tx, h *chain.Head) error {
	_, err := tx.Exec(`INSERT INTO audit_head (node, seq, trimmed, time, hash, key, signature) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (node, seq, trimmed) DO NOTHING`, h.Node, h.Seq, h.Trimmed, h.Time, h.Hash, h.Key, h.Signature)
	return err
}

const headColumns = `node, seq, trimmed, time, hash, key, signature`

func scanHead(row store.Row) (*chain.Head, error) {
	h := new(chain.Head)
	return h, row.Scan(&h.Node, &h.Seq, &h.Trimmed, &h.Time, &h.Hash, &h.Key, &h.Signature)
}

func selectLastHead(tx store.Tx, node string) (*chain.Head, error) {
	h, err := scanHead(tx.QueryRow(`SELECT `+headColumns+` FROM audit_head WHERE node = $1 ORDER BY seq DESC LIMIT 1`, node))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return h, err
}

func selectHeads(tx store.Tx, node string, after int64, most int) ([]*chain.Head, error) {
	rows, err := tx.Query(`SELECT `+headColumns+` FROM audit_head WHERE node = $1 AND seq > $2 ORDER BY seq LIMIT $3`, node, after, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*chain.Head
	for rows.Next() {
		h, err := scanHead(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, rows.Err()
}

// selectRecords gives records between two numbers, neither included, the last first when descending.
func selectRecords(tx store.Tx, node string, after, before int64, descending bool, most int) ([]*chain.Record, error) {
	order := `ASC`
	if descending {
		order = `DESC`
	}
	rows, err := tx.Query(`SELECT seq, time, body, hash FROM audit_record WHERE node = $1 AND seq > $2 AND seq < $3 ORDER BY seq `+order+` LIMIT $4`, node, after, before, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*chain.Record
	for rows.Next() {
		r := &chain.Record{Node: node}
		if err := rows.Scan(&r.Seq, &r.Time, &r.Body, &r.Hash); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// selectNodes lists the nodes that have a chain, or signed heads of one, by skipping through the keys.
func selectNodes(tx store.Tx) ([]string, error) {
	var list []string
	for last := ""; ; {
		var next *string
		err := tx.QueryRow(`SELECT MIN(node) FROM (
			SELECT MIN(node) AS node FROM audit_record WHERE node > $1 UNION ALL SELECT MIN(node) FROM audit_head WHERE node > $1
		) AS nodes`, last).Scan(&next)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return list, nil
		}
		last = *next
		list = append(list, last)
	}
}
