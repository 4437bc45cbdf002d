// Package netpoll waits for many sockets with one goroutine. A [Loop] owns an epoll
// instance; what it serves needs neither a goroutine nor a buffer while nothing
// happens, which is what makes an idle connection cheap. Linux only.
//
// Interest is edge triggered and registered once: after an event the owner reads until
// it has had less than it asked for, and writes until the socket takes no more; the
// next edge comes by itself. No system call is spent on changing interest.
package netpoll
