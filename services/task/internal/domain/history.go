package domain

import (
	"strings"
	"time"
)

// HistoryEntry is one thing that happened to a task.
type HistoryEntry struct {
	At      time.Time `json:"at"`
	Attempt uint32    `json:"attempt,omitempty"`
	State   State     `json:"state"` // after it
	What    string    `json:"what"`
	Peer    string    `json:"peer,omitempty"`
	Detail  string    `json:"detail,omitempty"`
}

// Bounds of a history. When it is full, what is in the middle goes: how it began and how it ended tell the most.
const (
	maxHistory = 200
	maxDetail  = 1024 // bytes
)

func clip(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (t *Task) note(now time.Time, what, peer, detail string) {
	if len(t.History) >= maxHistory {
		kept := make([]HistoryEntry, 0, maxHistory)
		kept = append(kept, t.History[:maxHistory/4]...)
		t.History = append(kept, t.History[maxHistory/2:]...)
	}
	t.History = append(t.History, HistoryEntry{At: now, Attempt: uint32(len(t.Attempts)), State: t.State, What: what, Peer: peer, Detail: clip(detail)})
}
