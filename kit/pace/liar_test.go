package pace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/pace"
)

// Whatever others say of the network's size, a node believes a few times what it has heard, and for a while only.
func TestManyLiarsMoveAHintOnlyAFewTimes(t *testing.T) {
	s := pace.Size{PerPeer: cfg.PerPeer}
	for i := range 20 {
		s.Hint(begin, fmt.Sprint("liar", i), 1<<31)
	}
	if got := s.Estimate(begin, 10); got < 10 || got > 300 {
		t.Errorf("10 are known, and with 20 liars the estimate is %d", got)
	}
	now := crowd{10, 10 * time.Second}.speak(&s, begin, 11*time.Minute)
	for i := range 20 {
		s.Hint(now, fmt.Sprint("liar", i), 1<<31)
	}
	if got := s.Estimate(now, 10); got != 10 {
		t.Errorf("who has heard all 10 for ten minutes still believes that there are %d", got)
	}
}

func TestOneLiarIsOneHowOftenItIsAsked(t *testing.T) {
	var s pace.Size
	s.Hint(begin, "a", 40)
	s.Hint(begin, "b", 50)
	for range 20 {
		s.Hint(begin, "liar", 1<<31)
	}
	if got := s.Estimate(begin, 3); got != 50 {
		t.Errorf("estimate = %d, want the median hint 50", got)
	}
}

// Who states that it will be silent for a day counts no longer than others do: names that were made up have to speak as often as real ones.
func TestMadeUpSpeakersFadeAsOthersDo(t *testing.T) {
	s := pace.Size{PerPeer: cfg.PerPeer}
	honest := crowd{200, 200 * time.Second}
	now := honest.speak(&s, begin, 20*time.Minute)
	for i := range 100 {
		s.Heard(now, fmt.Sprint("made up", i), 24*time.Hour)
	}
	now = honest.speak(&s, now, 30*time.Minute)
	if got := s.Estimate(now, 0); got < 140 || got > 260 { // of half of them, since there were more than are remembered: it may be a third off
		t.Errorf("half an hour after 100 names were made up for a day, 200 speakers are estimated as %d", got)
	}
}

// A newcomer to a large network learns from the intervals that others state how many they are, long before it has heard them all; and when the
// network has shrunk, what is stated says nothing any more.
func TestANewcomerLearnsFromWhatOthersState(t *testing.T) {
	s := pace.Size{PerPeer: cfg.PerPeer}
	large := crowd{10_000, 10_000 * time.Second}
	now := large.speak(&s, begin, 30*time.Second)
	if got := s.Estimate(now, 0); got < 300 {
		t.Errorf("after 30 s in a network of 10000 the estimate is %d", got)
	}
	now = large.speak(&s, now, 15*time.Minute)
	near(t, "10000 speakers of whom 900 were heard", s.Estimate(now, 0), 10_000)
	now = crowd{100, 10_000 * time.Second}.speak(&s, now, 12*time.Hour)
	if got := s.Estimate(now, 0); got > 150 {
		t.Errorf("100 speakers who state what 10000 would are estimated as %d", got)
	}
}
