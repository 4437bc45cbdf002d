package iam

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
)

// A sealed secret is salt (16 bytes), nonce (12 bytes), AES-256-GCM ciphertext; the key is PBKDF2-HMAC-SHA-256 of
// the passphrase. The id of the access key is bound to it as additional data.
const (
	sealIterations = 600_000
	saltBytes      = 16
)

// sealer seals and unseals with one passphrase. It keeps the key of the last salt, which costs a tenth of a second
// to derive; what it seals has that salt.
type sealer struct {
	passphrase string
	mu         sync.Mutex
	salt       [saltBytes]byte
	aead       cipher.AEAD // nil until a salt is known
}

func (s *sealer) use(salt [saltBytes]byte) (cipher.AEAD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aead != nil && s.salt == salt {
		return s.aead, nil
	}
	key, err := pbkdf2.Key(sha256.New, s.passphrase, salt[:], sealIterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	s.salt, s.aead = salt, aead
	return aead, nil
}

func (s *sealer) currentSalt() [saltBytes]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aead != nil {
		return s.salt
	}
	var salt [saltBytes]byte
	rand.Read(salt[:]) // never fails
	return salt
}

func (s *sealer) seal(id, secret string) ([]byte, error) {
	salt := s.currentSalt()
	aead, err := s.use(salt)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails
	return append(salt[:], aead.Seal(nonce, nonce, []byte(secret), []byte(id))...), nil
}

// unseal reverses seal; a wrong passphrase is an error.
func (s *sealer) unseal(id string, sealed []byte) (string, error) {
	if len(sealed) < saltBytes {
		return "", errors.New("too short")
	}
	aead, err := s.use([saltBytes]byte(sealed))
	if err != nil {
		return "", err
	}
	sealed = sealed[saltBytes:]
	if len(sealed) < aead.NonceSize() {
		return "", errors.New("too short")
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(id))
	return string(plain), err
}
