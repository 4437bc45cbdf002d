package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
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
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails
	aead, err := sealer(passphrase, salt)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return append(salt, aead.Seal(nonce, nonce, plain, []byte(name))...), nil
}

// unseal reverses seal; a wrong passphrase is an error.
func unseal(passphrase, name string, sealed []byte) ([]byte, error) {
	if len(sealed) < saltBytes {
		return nil, errors.New("too short")
	}
	aead, err := sealer(passphrase, sealed[:saltBytes])
	if err != nil {
		return nil, err
	}
	sealed = sealed[saltBytes:]
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("too short")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(name))
}
