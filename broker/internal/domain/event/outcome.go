package event

// Status is how a directed event ended at its receiver. The numbers are on the wire.
type Status uint8

// Statuses. A number that is not known yet means that the outcome is unknown.
const (
	Acknowledged Status = 0 // the service has it
	Rejected     Status = 1 // the service refused it; Detail says why
	NoSubscriber Status = 2 // no service wanted it in time
	TimedOut     Status = 3 // the service did not answer in time
	Busy         Status = 4 // the receiver has too much to do
	Invalid      Status = 5 // the envelope breaks a rule; Detail says which
)

// Outcome is a status with its machine-readable detail, which is UPPER_SNAKE and says nothing about the node.
type Outcome struct {
	Status Status
	Detail string
	// Misconduct: the event was rejected, and no well-behaved node sends such a one. It is not told to the sender.
	Misconduct bool
}

// Final tells an outcome that a repeat of the event would get again.
func (o Outcome) Final() bool {
	return o.Status == Acknowledged || o.Status == Rejected || o.Status == Invalid
}

// Worse returns the outcome that the sender must hear of when several services had the event: one that asks for a
// repeat over a refusal, and a refusal over an acknowledgement.
func (o Outcome) Worse(p Outcome) Outcome {
	if p.rank() > o.rank() {
		return p
	}
	return o
}

func (o Outcome) rank() int {
	switch o.Status {
	case Acknowledged:
		return 0
	case Rejected, Invalid:
		return 1
	}
	return 2
}

// MaxDetail bounds a detail, in bytes.
const MaxDetail = 64

// Detail returns s if it may be told to other nodes, else "UNSPECIFIED".
func Detail(s string) string {
	if s == "" || ValidDetail(s) {
		return s
	}
	return "UNSPECIFIED"
}

// ValidDetail tells UPPER_SNAKE of at most MaxDetail bytes.
func ValidDetail(s string) bool {
	if len(s) > MaxDetail {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
