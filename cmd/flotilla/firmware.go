package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/ota/firmware"
)

type firmwareCmd struct {
	Sign   firmwareSignCmd   `cmd:"" help:"Sign a firmware image and write its manifest."`
	Verify firmwareVerifyCmd `cmd:"" help:"Hold a firmware image to its signed manifest."`
}

// firmwareKey is who signs.
type firmwareKey struct {
	Data        string `name:"data" default:"./flotilla-data" placeholder:"DIR" help:"Data directory; firmware/key.pem and firmware/certificate.pem in it are the installation's."`
	Certificate string `name:"certificate" placeholder:"FILE" help:"Certificate of the key, PEM; the installation's without it."`
}

func (k *firmwareKey) certificateFile() string {
	if k.Certificate != "" {
		return k.Certificate
	}
	return filepath.Join(k.Data, "firmware", "certificate.pem")
}

type firmwareSignCmd struct {
	firmwareKey
	Image       string `arg:"" name:"image" help:"File of the image."`
	Key         string `name:"key" placeholder:"FILE" help:"Private key, PEM, ECDSA on P-256; the installation's without it, which is made when it is missing."`
	ImageVer    string `name:"image-version" placeholder:"TEXT" help:"Version of the image; it is in the manifest."`
	Out         string `name:"out" placeholder:"FILE" help:"Where the manifest goes; IMAGE.manifest.json without it."`
	CodeSigning bool   `name:"code-signing" help:"Print the codeSigning member of a file of create-ota-update."`
	DevicePath  string `name:"device-path" default:"Code Verify Key" help:"Where devices have the certificate; it is certfile in the job document."`
	JSON        bool   `name:"json" help:"Print the manifest as JSON."`
}

func (c *firmwareSignCmd) Help() string {
	return "Example:\n\n  flotilla firmware sign pump.bin --image-version 1.2 --code-signing\n\n" +
		"The signature is ECDSA on P-256 over SHA-256, which FreeRTOS's OTA agent verifies. Put the certificate, firmware/certificate.pem of the\n" +
		"data directory, on your devices; keep firmware/key.pem where you build, not where devices connect.\n"
}

func (c *firmwareSignCmd) Run(s *streams) error {
	if (c.Key == "") != (c.Certificate == "") {
		return usageError{errors.New("--key and --certificate go together")}
	}
	if c.CodeSigning && c.JSON {
		return usageError{errors.New("either --json or --code-signing")}
	}
	image, err := os.Open(c.Image)
	if err != nil {
		return err
	}
	defer image.Close()
	keyFile := c.Key
	if keyFile == "" {
		keyFile = filepath.Join(c.Data, "firmware", "key.pem")
		if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(s.err, "there was no key: %s is a new one, and devices must trust %s\n", keyFile, c.certificateFile())
		}
		if err := makeFirmwareKey(keyFile, c.certificateFile()); err != nil {
			return err
		}
	}
	key, err := readFirmwareKey(keyFile)
	if err != nil {
		return err
	}
	certificate, err := readBounded(c.certificateFile())
	if err != nil {
		return err
	}
	signed, err := firmware.Sign(key, certificate, filepath.Base(c.Image), c.ImageVer, image)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Image, err)
	}
	text, err := json.MarshalIndent(signed, "", "  ")
	if err != nil {
		return err
	}
	out := c.Out
	if out == "" {
		out = c.Image + ".manifest.json"
	}
	if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
		return err
	}
	var m firmware.Manifest
	if err := json.Unmarshal(signed.Manifest, &m); err != nil {
		return err
	}
	switch {
	case c.CodeSigning:
		return printJSON(s, iot.CodeSigning{CustomCodeSigning: &iot.CustomCodeSigning{
			Signature:        &iot.CodeSigningSignature{InlineDocument: m.Signature},
			CertificateChain: &iot.CodeSigningCertificateChain{CertificateName: &c.DevicePath, InlineDocument: &signed.Certificate},
			HashAlgorithm:    new("SHA256"), SignatureAlgorithm: new("ECDSA"),
		}})
	case c.JSON:
		return printJSON(s, m)
	}
	fmt.Fprintf(s.out, "%s: %d bytes, SHA-256 %s, signed; the manifest is %s\n", c.Image, m.SizeBytes, m.SHA256, out)
	return nil
}

// makeFirmwareKey makes the installation's key and certificate, each where it is missing.
func makeFirmwareKey(keyFile, certificateFile string) error {
	if err := os.MkdirAll(filepath.Dir(keyFile), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := writeNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(certificateFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := readFirmwareKey(keyFile)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Flotilla firmware"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return writeNew(certificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// writeNew writes a file whole, on stable storage, or none; one that is there already is an error and stays.
func writeNew(file string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}

func readFirmwareKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM key", file)
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if ec, ok := key.(*ecdsa.PrivateKey); ok && err == nil {
		return ec, nil
	}
	return nil, fmt.Errorf("%s: no ECDSA key", file)
}

type firmwareVerifyCmd struct {
	firmwareKey
	Image    string `arg:"" name:"image" help:"File of the image."`
	Manifest string `name:"manifest" placeholder:"FILE" help:"Signed manifest; IMAGE.manifest.json without it."`
	JSON     bool   `name:"json" help:"Print the manifest as JSON."`
}

func (c *firmwareVerifyCmd) Help() string {
	return "Example:\n\n  flotilla firmware verify pump.bin --certificate certificate.pem\n\n" +
		"The certificate that the manifest carries is not trusted: it is the one that --certificate names, or the installation's.\n"
}

func (c *firmwareVerifyCmd) Run(s *streams) error {
	trusted, err := readBounded(c.certificateFile())
	if err != nil {
		return err
	}
	file := c.Manifest
	if file == "" {
		file = c.Image + ".manifest.json"
	}
	text, err := readBounded(file)
	if err != nil {
		return err
	}
	var signed firmware.Signed
	if err := json.Unmarshal(text, &signed); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	image, err := os.Open(c.Image)
	if err != nil {
		return err
	}
	defer image.Close()
	m, err := firmware.Verify(&signed, trusted, image)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Image, err)
	}
	if c.JSON {
		return printJSON(s, m)
	}
	fmt.Fprintf(s.out, "%s: %d bytes, SHA-256 %s, version %q: the signature is good\n", c.Image, m.SizeBytes, m.SHA256, m.Version)
	return nil
}
