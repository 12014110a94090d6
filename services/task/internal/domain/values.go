package domain

import (
	"encoding/hex"
	"strconv"
	"time"
)

// Limits bound one execution. Zero means: as the provider's policy says.
type Limits struct {
	Time   time.Duration `json:"time,omitempty"`
	Memory int64         `json:"memory,omitempty"` // bytes
	Output int64         `json:"output,omitempty"` // bytes of stdout, stderr and output files together
}

// MaxType bounds the name of a task type, in bytes.
const MaxType = 64

// ValidType tells whether a name may be that of a task type.
func ValidType(t string) bool {
	ok := len(t) > 0 && len(t) <= MaxType
	for i := 0; ok && i < len(t); i++ {
		c := t[i]
		ok = c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_')
	}
	return ok
}

// Progress is how far a running program is, as its executor says.
type Progress struct {
	Fraction float64 // 0 to 1
	Text     string  // one line
	At       time.Time
}

// String is how people read it.
func (p *Progress) String() string {
	return strconv.FormatFloat(100*p.Fraction, 'f', 0, 64) + "% " + p.Text
}

// MaxProgressText bounds the line, in bytes.
const MaxProgressText = 200

// Usage is the work done.
type Usage struct {
	Wall       time.Duration `json:"wall,omitempty"`
	CPU        time.Duration `json:"cpu,omitempty"`
	PeakMemory int64         `json:"peak_memory,omitempty"` // bytes
	Output     int64         `json:"output,omitempty"`      // bytes
}

// Hash is a SHA-256.
type Hash [32]byte

// IsZero tells whether there is none.
func (h Hash) IsZero() bool { return h == Hash{} }

// String is its hexadecimal form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is the hexadecimal form, empty for none.
func (h Hash) MarshalText() ([]byte, error) {
	if h.IsZero() {
		return nil, nil
	}
	return hex.AppendEncode(nil, h[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(b []byte) error {
	*h = Hash{}
	if len(b) == 0 {
		return nil
	}
	if len(b) != 64 {
		return hex.ErrLength
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// HashOf reads a hash from the wire: 32 bytes.
func HashOf(b []byte) (Hash, bool) {
	if len(b) != 32 {
		return Hash{}, false
	}
	return Hash(b), true
}

// ValidID tells whether s is a task id or event id: 32 lowercase hex digits.
func ValidID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Part describes one body of bytes of a payload or a result.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 Hash   `json:"sha256"`
	// Ref says where a payload's part is that does not follow its header; nil for one that does. It is never stored.
	Ref *Reference `json:"-"`
}

// Reference is content of its own, encrypted under its own key. Who can show it may have the content.
type Reference struct {
	CID  string // of the ciphertext
	Key  []byte
	Size int64 // of the ciphertext, in bytes
	// Padding is how many zeros follow the part in its plaintext. It is never stored: it follows from the part's size, and from the mode, which a node does not change.
	Padding int64
}

// Failure says why something ended badly.
type Failure struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Queue is what a provider has to do.
type Queue struct {
	Pending, Running, Slots, Capacity int
}

// ValidPeer tells whether s may be a peer id: short, printable, without anything that a path or a log could trip on.
func ValidPeer(s string) bool {
	if len(s) < 8 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
