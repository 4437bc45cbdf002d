package identity_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// Certificates are due a year after they were issued, or before they end, whichever comes first.
func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, identity.Config{RotationAge: 365 * day})
		ctx := t.Context()
		issue := func(active bool) string {
			t.Helper()
			return *must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{SetAsActive: &active})).CertificateId
		}
		due := func(within time.Duration) (ids []string, why map[string]string) {
			t.Helper()
			why = map[string]string{}
			in := &flotilla.ListCertificateDetailsRequest{DueWithinSeconds: new(int64(within.Seconds()))}
			for {
				page := must[*flotilla.ListCertificateDetailsResponse](t)(w.ListCertificateDetails(ctx, in))
				for _, d := range page.Certificates {
					ids = append(ids, *d.CertificateId)
					why[*d.CertificateId] = fmt.Sprintf("%s %.0f", *d.DueReason, d.Due.Sub(w.clock.Now()).Hours()/24)
				}
				if page.NextMarker == nil {
					return ids, why
				}
				in.Marker = page.NextMarker
			}
		}
		old := issue(true)
		issue(false) // INACTIVE: nobody uses it
		_, text := selfSigned(t, &x509.Certificate{NotBefore: w.clock.Now(), NotAfter: w.clock.Now().Add(40 * day)})
		short := *must[*iot.RegisterCertificateWithoutCAResponse](t)(w.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCARequest{
			CertificatePem: text, Status: new("ACTIVE"),
		})).CertificateId
		if ids, _ := due(30 * day); len(ids) != 0 {
			t.Errorf("on the first day: %v", ids)
		}
		w.clock.advance(20 * day)
		if ids, why := due(30 * day); !slices.Equal(ids, []string{short}) || why[short] != "EXPIRY 20" {
			t.Errorf("after 20 days: %v", why)
		}
		w.clock.advance(320 * day)
		young := issue(true)
		if ids, why := due(30 * day); !slices.Equal(ids, []string{old}) || why[old] != "AGE 25" {
			t.Errorf("after 340 days: %v", why)
		}
		w.clock.advance(60 * day)
		if ids, why := due(0); !slices.Equal(ids, []string{old}) || why[old] != "AGE -35" {
			t.Errorf("after 400 days: %v", why)
		}
		all := must[*flotilla.ListCertificateDetailsResponse](t)(w.ListCertificateDetails(ctx, &flotilla.ListCertificateDetailsRequest{}))
		if len(all.Certificates) != 3 {
			t.Errorf("%d are listed", len(all.Certificates))
		}
		w.clock.advance(400 * day)
		for range 300 { // more than a page
			issue(true)
		}
		w.clock.advance(366 * day)
		ids, _ := due(0)
		if slices.Sort(ids); len(slices.Compact(ids)) != 302 || !slices.Contains(ids, young) {
			t.Errorf("%d are due", len(ids))
		}
	})
}

// With age switched off only the end counts.
func TestDueByEndAlone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, identity.Config{})
		must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
		w.clock.advance(10 * 365 * 24 * time.Hour)
		out := must[*flotilla.ListCertificateDetailsResponse](t)(w.ListCertificateDetails(t.Context(), &flotilla.ListCertificateDetailsRequest{DueWithinSeconds: new(int64(0))}))
		if len(out.Certificates) != 0 {
			t.Errorf("%+v", out.Certificates)
		}
	})
}
