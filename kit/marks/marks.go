// Package marks says in four bytes each which announcements a node has, so that who answers its question leaves them out: in a network where
// everybody asks everybody, most of every answer was known.
package marks

import (
	"crypto/sha256"
	"encoding/binary"
)

// Most is how many a question carries, and how many of one are looked at.
const Most = 256

// Of is the mark of one version of what a peer says of itself. It is another one in each question, so that two peers whose marks are the same by
// chance, once in four thousand million times, are not hidden from each other for good.
func Of(question, peer string, version uint64) uint32 {
	b := make([]byte, 0, 128)
	b = append(b, question...)
	b = append(b, 0)
	b = append(b, peer...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, version)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint32(sum[:])
}

// Set is the marks of one question.
type Set struct {
	question string
	has      map[uint32]struct{}
}

// NewSet takes the marks that came with a question, Most at most.
func NewSet(question string, marks []uint32) Set {
	s := Set{question: question, has: make(map[uint32]struct{}, min(len(marks), Most))}
	for _, m := range marks[:min(len(marks), Most)] {
		s.has[m] = struct{}{}
	}
	return s
}

// Has tells whether the asker has this version of what a peer says of itself.
func (s Set) Has(peer string, version uint64) bool {
	if len(s.has) == 0 {
		return false
	}
	_, ok := s.has[Of(s.question, peer, version)]
	return ok
}
