package app

import (
	"context"
	"time"
)

// mark notes that an event was sent; several are told together, because nobody waits for it. The caller holds mu.
func (c *Carrier) mark(id uint64) {
	c.marks = append(c.marks, id)
	if !c.flushing && !c.stopped {
		c.flushing = true
		time.AfterFunc(c.cfg.MarkDelay, c.flush)
	}
}

func (c *Carrier) flush() {
	c.mu.Lock()
	ids := c.marks
	if len(ids) > c.cfg.MarkBatch {
		ids = ids[:c.cfg.MarkBatch]
	}
	ids = append([]uint64(nil), ids...)
	c.marks = append(c.marks[:0], c.marks[len(ids):]...)
	c.mu.Unlock()
	wait := c.cfg.MarkDelay
	if len(ids) > 0 {
		ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
		err := c.marker.MarkSent(ctx, ids)
		cancel()
		c.mu.Lock()
		if err != nil {
			wait = 10 * c.cfg.MarkDelay
			c.marks = append(c.marks, ids...)
		} else {
			for _, id := range ids {
				delete(c.unmarked, id)
			}
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.marks) == 0 || c.stopped {
		c.flushing = false
		return
	}
	if len(c.marks) >= c.cfg.MarkBatch && wait == c.cfg.MarkDelay {
		wait = 0
	}
	time.AfterFunc(wait, c.flush)
}
