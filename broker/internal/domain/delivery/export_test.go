package delivery

// Lanes is how many senders and topics are remembered.
func (h *Hub) Lanes() int {
	n := 0
	for _, g := range h.groups {
		n += len(g.lanes)
	}
	return n
}

// Holds tells whether a delivery is the member's.
func (h *Hub) Holds(m *Member, id uint64) bool {
	_, ok := m.inFlight[id]
	return ok
}
