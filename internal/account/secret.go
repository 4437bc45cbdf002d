package account

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"flotilla/internal/store"
)

// Sealer encrypts secrets for the store; name is bound to them.
type Sealer interface {
	Seal(name string, plain []byte) ([]byte, error)
	// Open fails for what was not sealed by the same passphrase.
	Open(name string, sealed []byte) ([]byte, error)
}

// Secret gives the deployment's secret of a name, 32 random bytes that are the same on all nodes, making it if there is
// none. sealer may be nil: the store has it as it is.
func (a *Account) Secret(ctx context.Context, name string, sealer Sealer) ([]byte, error) {
	name = "secret-" + name
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	stored := secret
	var err error
	if sealer != nil {
		if stored, err = sealer.Seal(name, secret); err != nil {
			return nil, fmt.Errorf("account: seal %s: %w", name, err)
		}
	}
	var text string
	err = a.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO account_setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, base64.StdEncoding.EncodeToString(stored))
		if err != nil {
			return err
		}
		return tx.QueryRow(`SELECT value FROM account_setting WHERE name = $1`, name).Scan(&text)
	})
	if err == nil {
		secret, err = base64.StdEncoding.DecodeString(text)
	}
	if err == nil && sealer != nil {
		secret, err = sealer.Open(name, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("account: %s: %w", name, err)
	}
	return secret, nil
}
