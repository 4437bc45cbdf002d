package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// maxImage bounds what is fetched, whatever the document says.
const maxImage = 64 << 20

// document is a job document. Of AWS's OTA updates it has afr_ota; FreeRTOS's OTA agent reads the same.
type document struct {
	OTA *update `json:"afr_ota"`
}

type update struct {
	Files []struct {
		Path      string `json:"filepath"`
		Size      int64  `json:"filesize"`
		Signature string `json:"sig-sha256-ecdsa"` // base64 of ASN.1
		URL       string `json:"update_data_url"`  // presigned: it needs no credentials, and is good for a while
	} `json:"files"`
}

// installer fetches images, verifies and installs them.
type installer struct {
	web *http.Client
	key *ecdsa.PublicKey // nil: nothing can be verified, so nothing is installed
	dir string
}

func newInstaller(roots *x509.CertPool, certificate, dir string) (*installer, error) {
	i := &installer{dir: dir, web: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		Timeout:   10 * time.Minute,
	}}
	if certificate == "" {
		return i, nil
	}
	text, err := os.ReadFile(certificate)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", certificate)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: the key is not one of ECDSA", certificate)
	}
	i.key = key
	return i, nil
}

// install leaves the image under its name in the directory, where a boot loader would find it; there is never half of one.
func (i *installer) install(ctx context.Context, u *update) error {
	if len(u.Files) != 1 || u.Files[0].URL == "" {
		return errors.New("the update has not one file with a URL")
	}
	file := u.Files[0]
	// The name comes from elsewhere: its last part alone counts.
	target := filepath.Join(i.dir, filepath.Base(filepath.Clean("/"+file.Path)))
	if installed, err := os.ReadFile(target); err == nil && i.verify(installed, file.Signature) == nil {
		return nil // before a restart
	}
	if file.Size < 1 || file.Size > maxImage {
		return fmt.Errorf("an image of %d bytes", file.Size)
	}
	image, err := i.fetch(ctx, file.URL, file.Size)
	if err != nil {
		return err
	}
	if err := i.verify(image, file.Signature); err != nil {
		return err
	}
	if err := os.WriteFile(target+".new", image, 0o600); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

func (i *installer) fetch(ctx context.Context, url string, size int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("the URL is none")
	}
	response, err := i.web.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch the image: %w", errors.Unwrap(err)) // without the URL, which is a secret
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the image: %s", response.Status)
	}
	image, err := io.ReadAll(io.LimitReader(response.Body, size+1))
	if err != nil {
		return nil, fmt.Errorf("fetch the image: %w", err)
	}
	if int64(len(image)) != size {
		return nil, fmt.Errorf("the image has %d bytes, the document says %d", len(image), size)
	}
	return image, nil
}

// verify holds an image to the signature that came with the job; the key came with the device.
func (i *installer) verify(image []byte, signature string) error {
	if i.key == nil {
		return errors.New("no certificate to verify images with")
	}
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return errors.New("the signature is not base64")
	}
	digest := sha256.Sum256(image)
	if !ecdsa.VerifyASN1(i.key, digest[:], raw) {
		return errors.New("the image is not the one that was signed")
	}
	return nil
}
