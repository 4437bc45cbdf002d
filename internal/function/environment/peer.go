package environment

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peers is a listener on loopback that takes connections of this process's own user alone: other users of the machine
// must not take events from functions, or answer for them.
type peers struct {
	net.Listener
	log *slog.Logger
}

// Accept drops strangers.
func (p *peers) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && uid == uint32(os.Getuid()) {
			return c, nil
		}
		p.log.Warn("a stranger called the Runtime API of a function", "uid", uid, "err", err)
		_ = c.Close()
	}
}

// peerUID asks the kernel whose the other end of a loopback connection of IPv4 is.
//
// See sock_diag(7).
func peerUID(c net.Conn) (uint32, error) {
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 || local.IP.To4() == nil || remote.IP.To4() == nil {
		return 0, fmt.Errorf("environment: %s is no TCP over IPv4", c.RemoteAddr())
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return 0, err
	}
	if err := unix.Sendto(fd, diagRequest(remote, local), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return 0, err
	}
	return diagUID(b[:n])
}

const (
	sockDiagByFamily = 20
	lenHeader        = 16 // struct nlmsghdr
	lenRequest       = 56 // struct inet_diag_req_v2
	offsetUID        = 64 // in struct inet_diag_msg
)

// diagRequest asks for the one socket that is bound to from and connected to to.
func diagRequest(from, to *net.TCPAddr) []byte {
	b := make([]byte, lenHeader+lenRequest)
	order := binary.NativeEndian
	order.PutUint32(b[0:], uint32(len(b)))
	order.PutUint16(b[4:], sockDiagByFamily)
	order.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[lenHeader:]
	r[0], r[1] = unix.AF_INET, unix.IPPROTO_TCP
	order.PutUint32(r[4:], ^uint32(0)) // in any state
	binary.BigEndian.PutUint16(r[8:], uint16(from.Port))
	binary.BigEndian.PutUint16(r[10:], uint16(to.Port))
	copy(r[12:], from.IP.To4())
	copy(r[28:], to.IP.To4())
	order.PutUint32(r[48:], ^uint32(0)) // no cookie
	order.PutUint32(r[52:], ^uint32(0))
	return b
}

func diagUID(b []byte) (uint32, error) {
	order := binary.NativeEndian
	switch {
	case len(b) < lenHeader:
	case order.Uint16(b[4:]) == unix.NLMSG_ERROR && len(b) >= lenHeader+4:
		return 0, fmt.Errorf("environment: sock_diag: %w", unix.Errno(-int32(order.Uint32(b[lenHeader:]))))
	case order.Uint16(b[4:]) == sockDiagByFamily && len(b) >= lenHeader+offsetUID+4:
		return order.Uint32(b[lenHeader+offsetUID:]), nil
	}
	return 0, fmt.Errorf("environment: sock_diag: an answer of %d bytes", len(b))
}
