package firmware_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"flotilla/internal/ota/firmware"
)

func signer(t *testing.T, curve elliptic.Curve) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestSignAndVerify(t *testing.T) {
	image := "an image"
	key, certificate := signer(t, elliptic.P256())
	_, stranger := signer(t, elliptic.P256())
	s, err := firmware.Sign(key, certificate, "fw.bin", "1.2", strings.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := json.MarshalIndent(s, "", "  ") // white space is not signed
	if err != nil {
		t.Fatal(err)
	}
	var read firmware.Signed
	if err := json.Unmarshal(stored, &read); err != nil {
		t.Fatal(err)
	}
	m, err := firmware.Verify(&read, certificate, strings.NewReader(image))
	if err != nil || m.Name != "fw.bin" || m.Version != "1.2" || m.SizeBytes != 8 {
		t.Fatalf("%+v %v", m, err)
	}
	for _, other := range []string{"", "an imag", "another", "an imagE", "an image "} {
		if _, err := firmware.Verify(s, certificate, strings.NewReader(other)); err == nil {
			t.Errorf("%q was taken", other)
		}
	}
	if _, err := firmware.Verify(s, stranger, strings.NewReader(image)); err == nil {
		t.Error("by another key")
	}
	forged := *s
	forged.Manifest = bytes.Replace(s.Manifest, []byte("1.2"), []byte("9.9"), 1)
	if _, err := firmware.Verify(&forged, certificate, strings.NewReader(image)); err == nil {
		t.Error("a changed version")
	}
	forged = *s
	forged.Certificate = string(stranger) // what it carries is not asked
	if _, err := firmware.Verify(&forged, certificate, strings.NewReader(image)); err != nil {
		t.Error(err)
	}
	if _, err := firmware.Sign(key, stranger, "", "", strings.NewReader(image)); err == nil {
		t.Error("with another key's certificate")
	}
	if _, err := firmware.Sign(key, certificate, "", "", strings.NewReader("")); err == nil {
		t.Error("nothing was signed")
	}
	if key, certificate := signer(t, elliptic.P384()); true {
		if _, err := firmware.Sign(key, certificate, "", "", strings.NewReader(image)); err == nil {
			t.Error("on another curve")
		}
	}
}
