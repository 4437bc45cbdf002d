package server

import (
	"context"
	"log/slog"
	"net"
	"time"

	"flotilla/internal/account"
	"flotilla/internal/api"
	"flotilla/internal/object"
)

// objects are the objects of the deployment, in files or at a service.
type objects interface {
	Put(ctx context.Context, bucket, key string, payload []byte) error
	ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error)
}

// presigner gives URLs of objects.
type presigner interface {
	Presign(ctx context.Context, bucket, key string, expires time.Duration, role string) (url string, err error)
}

// objectDoor is what api serves of objects.
type objectDoor struct {
	*object.Door
	*object.Presigner
}

// openObjects opens where objects are; door is nil when that is another service.
func (s *Server) openObjects(ctx context.Context, cfg Config, dir *dataDir, a *account.Account, late *publisher, log *slog.Logger) (objects, presigner, api.Objects, error) {
	if cfg.S3.URL != "" {
		service, err := cfg.S3.Open(cfg.Region)
		return service, service, nil, err
	}
	d, err := object.OpenDirectory(dir.file("objects"))
	if err != nil {
		return nil, nil, nil, err
	}
	s.onClose(d.Close)
	var sealer account.Sealer
	if t := ticketSealer(cfg.Identity.CAPassphrase); t != nil {
		sealer = t
	}
	secret, err := a.Secret(ctx, "objects", sealer)
	if err != nil {
		return nil, nil, nil, err
	}
	p := object.NewPresigner(secret, cfg.Region, func() string { return s.objectsURL(late.Addrs().HTTPS.String()) }, nil)
	return d, p, objectDoor{object.NewDoor(d, cfg.Objects, cfg.Region, log), p}, nil
}

// objectsURL is how devices reach objects: by the public host when the node listens on all addresses.
func (s *Server) objectsURL(addr string) string {
	if s.cfg.Objects.PublicURL != "" {
		return s.cfg.Objects.PublicURL
	}
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (ip == nil || ip.IsUnspecified() || ip.IsLoopback()) {
		host = s.cfg.PublicHost
	}
	return "https://" + net.JoinHostPort(host, port)
}
