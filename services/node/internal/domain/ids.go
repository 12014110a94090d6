package domain

import "strings"

// TaskIDLength is how many lowercase hex digits a task id has.
const TaskIDLength = 32

// Peer ids are opaque here; these bounds only keep garbage out of tables and messages.
const (
	minPeerID = 32
	maxPeerID = 96
)

const base58Digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// ValidTaskID tells whether s has the form of a task id.
func ValidTaskID(s string) bool {
	if len(s) != TaskIDLength {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// ValidPeerID tells whether s has the form of a peer id.
func ValidPeerID(s string) bool {
	if len(s) < minPeerID || len(s) > maxPeerID {
		return false
	}
	for i := range len(s) {
		if strings.IndexByte(base58Digits, s[i]) < 0 {
			return false
		}
	}
	return true
}

// ShortPeer is a peer id as people compare it: its end, because the beginnings of all are alike.
func ShortPeer(id string) string {
	const shown = 8
	if len(id) <= shown {
		return id
	}
	return "…" + id[len(id)-shown:]
}

// AddressPeer is the peer id that a multiaddr ends in; "" when it ends in none.
func AddressPeer(address string) string {
	i := strings.LastIndex(address, "/p2p/")
	if i <= 0 {
		return ""
	}
	id := address[i+len("/p2p/"):]
	if !ValidPeerID(id) {
		return ""
	}
	return id
}
