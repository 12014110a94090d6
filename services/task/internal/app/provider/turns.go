package provider

// turns say whose task runs next, so that a consumer with a thousand tasks in the queue does not keep another waiting for all of them: of those who
// wait, the one that has the fewest running, and of these the one whose last start is longest ago. It is guarded by Service.mu.
type turns struct {
	clock   uint64
	running map[string]int    // by consumer
	last    map[string]uint64 // when a task of the consumer's was last started; of those that have unfinished tasks
}

func newTurns() turns { return turns{running: make(map[string]int), last: make(map[string]uint64)} }

// before tells whether a's turn comes before b's.
func (t *turns) before(a, b string) bool {
	if x, y := t.running[a], t.running[b]; x != y {
		return x < y
	}
	return t.last[a] < t.last[b]
}

func (t *turns) began(consumer string) {
	t.clock++
	t.running[consumer]++
	t.last[consumer] = t.clock
}

func (t *turns) ended(consumer string) {
	if t.running[consumer]--; t.running[consumer] <= 0 {
		delete(t.running, consumer)
	}
}

// gone forgets a consumer that has no unfinished task.
func (t *turns) gone(consumer string) { delete(t.last, consumer) }
