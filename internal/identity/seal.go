package identity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
)

// A sealed key is salt (16 bytes), nonce (12 bytes), AES-256-GCM ciphertext; the key is PBKDF2-HMAC-SHA-256 of the
// passphrase. The authority's name is bound to it as additional data.
const (
	sealIterations = 600_000
	saltBytes      = 16
)

func sealer(passphrase string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, passphrase, salt, sealIterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal encrypts plain under passphrase.
func seal(passphrase, name string, plain []byte) ([]byte, error) {
	return NewSealer(passphrase).Seal(name, plain)
}

// unseal reverses seal; a wrong passphrase is an error.
func unseal(passphrase, name string, sealed []byte) ([]byte, error) {
	return NewSealer(passphrase).Open(name, sealed)
}

// Sealer seals other parts' secrets in the store, under the passphrase of the authority's key and in the same way. What
// it seals has one salt as far as possible, for a key takes some tenths of a second to derive. It is safe for
// concurrent use.
type Sealer struct {
	passphrase string

	mu   sync.Mutex
	salt []byte // of aead
	aead cipher.AEAD
}

// NewSealer returns a Sealer. A passphrase must be given.
func NewSealer(passphrase string) *Sealer { return &Sealer{passphrase: passphrase} }

// Seal encrypts plain; name is bound to it.
func (s *Sealer) Seal(name string, plain []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	salt := s.salt
	if salt == nil {
		salt = make([]byte, saltBytes)
		rand.Read(salt)
	}
	aead, err := s.of(salt)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return append(append([]byte(nil), salt...), aead.Seal(nonce, nonce, plain, []byte(name))...), nil
}

// Open reverses Seal; another passphrase or name is an error.
func (s *Sealer) Open(name string, sealed []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(sealed) < saltBytes {
		return nil, errors.New("too short")
	}
	aead, err := s.of(sealed[:saltBytes])
	if err != nil {
		return nil, err
	}
	if sealed = sealed[saltBytes:]; len(sealed) < aead.NonceSize() {
		return nil, errors.New("too short")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(name))
}

func (s *Sealer) of(salt []byte) (cipher.AEAD, error) {
	if s.aead != nil && bytes.Equal(s.salt, salt) {
		return s.aead, nil
	}
	aead, err := sealer(s.passphrase, salt)
	if err != nil {
		return nil, err
	}
	s.salt, s.aead = bytes.Clone(salt), aead
	return aead, nil
}
