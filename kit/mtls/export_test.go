package mtls

import "net"

// Watched is how many connections wait for changes.
func (c *Credentials) Watched() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watchers)
}

// Refuses tells whether the certificate of a connection does not count now.
func (c *Credentials) Refuses(conn net.Conn) bool { return conn.(*guarded).check() != nil }
