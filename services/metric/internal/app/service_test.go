package app_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

func TestMetricsAreAsSeldomAsTheNetworkIsLarge(t *testing.T) {
	for _, size := range []int{3, 60} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nodes := network(t, size)
				pass(5 * time.Minute)
				from := time.Now()
				pass(20 * time.Minute)
				mean := app.DefaultPace.Interval(size)
				for _, n := range nodes[:3] {
					said := n.sayings(from)
					want := int(20 * time.Minute / mean)
					if len(said) < want*7/10 || len(said) > want*13/10 {
						t.Errorf("%s published %d times, want about %d", n.id, len(said), want)
					}
					for i, s := range said {
						if s.m.Interval != pace.Stated(mean) {
							t.Errorf("the interval stated is %v, want %v", s.m.Interval, pace.Stated(mean))
						}
						if i > 0 && s.m.Version <= said[i-1].m.Version {
							t.Errorf("version %d came after %d", s.m.Version, said[i-1].m.Version)
						}
						if i > 0 && (s.at.Sub(said[i-1].at) > pace.Stated(mean)+100*time.Millisecond || s.at.Sub(said[i-1].at) < mean/2) { // a report is made in no time, and said a moment later
							t.Errorf("%v between two", s.at.Sub(said[i-1].at))
						}
					}
				}
			})
		})
	}
}

func TestMarkedChangesAreToldSoonAndRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 3)
		n := nodes[0]
		pass(time.Minute)
		if err := n.svc.ReportQueue(t.Context(), domain.Queue{Running: 1, Slots: 4}); err != nil {
			t.Fatal(err)
		}
		pass(1100 * time.Millisecond)
		got, err := nodes[1].svc.Get(n.id)
		if err != nil || got.Metric.Queue.Running != 1 {
			t.Errorf("a second later a peer knows %+v, %v", got.Metric.Queue, err)
		}
		// A queue that changes a hundred times a second makes one report a second.
		from := time.Now()
		for i := range 1000 {
			if err := n.svc.ReportQueue(t.Context(), domain.Queue{Running: uint32(i % 7), Pending: uint32(i)}); err != nil {
				t.Fatal(err)
			}
			<-time.After(10 * time.Millisecond)
		}
		if said := len(n.sayings(from)); said < 5 || said > 14 {
			t.Errorf("%d reports in 10 s of constant change", said)
		}
		pass(time.Minute)
		n.setLoad(0.5)
		pass(4 * time.Second) // the next measurement, and the rate
		if got, _ := nodes[1].svc.Get(n.id); got.Metric.CPU.Load != 0.5 {
			t.Errorf("four seconds later a peer knows a load of %v", got.Metric.CPU.Load)
		}
		n.setLoad(0.6) // no marked change: it waits for its time
		from = time.Now()
		pass(2400 * time.Millisecond)
		if said := n.sayings(from); len(said) > 1 {
			t.Errorf("a small change was told %d times", len(said))
		}
	})
}

func TestANewcomerKnowsTheOthersSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 4)
		pass(10 * time.Minute)
		late := s.add().start()
		pass(1500 * time.Millisecond)
		if got := len(late.svc.List()); got != 5 {
			t.Errorf("a second and a half later it knows %d metrics, want 5", got)
		}
		if _, err := nodes[0].svc.Get(late.id); err != nil {
			t.Error(err)
		}
	})
}

func TestANewcomerIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 100)
		pass(20 * time.Minute)
		from := time.Now()
		s.add().start()
		pass(2 * time.Second)
		total := 0
		for _, n := range nodes {
			total += len(n.sayings(from))
		}
		if total > 30 { // eight greetings on average, and four reports that were due
			t.Errorf("one newcomer made 100 nodes publish %d times in 2 s", total)
		}
	})
}

func TestMetricsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 3)
		pass(time.Minute)
		_, w := nodes[0].svc.Watch()
		defer w.Stop()
		nodes[2].stop()
		pass(2*pace.Stated(app.DefaultPace.Interval(3)) + 3*time.Second)
		if _, err := nodes[0].svc.Get(nodes[2].id); fault.From(err).Reason != "METRIC_UNKNOWN" {
			t.Errorf("Get = %v", err)
		}
		told := false
		for len(w.C) > 0 {
			c := <-w.C
			told = told || c.Expired == nodes[2].id
		}
		if !told {
			t.Error("a watcher was not told")
		}
		if list := nodes[0].svc.List(); len(list) != 2 || !list[0].Own || list[1].Metric.PeerID != nodes[1].id {
			t.Errorf("%d metrics", len(list))
		}
	})
}

func TestRefreshAsksDirectly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 4)
		n := nodes[0]
		pass(time.Minute)
		if err := nodes[1].svc.ReportQueue(t.Context(), domain.Queue{Pending: 7}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		nodes[2].sim.mu.Lock()
		nodes[2].deaf = true
		nodes[2].sim.mu.Unlock()
		nodes[3].stop()
		began := time.Now()
		got, err := n.svc.Refresh(t.Context(), []string{nodes[1].id, nodes[2].id, nodes[3].id, "stranger", n.id, nodes[1].id}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0].PeerID != nodes[1].id || got[0].Queue.Pending != 7 || got[1].PeerID != n.id {
			t.Errorf("refreshed %+v", got)
		}
		if d := time.Since(began); d != app.DefaultRefresh {
			t.Errorf("it took %v, want the %v that one was waited for", d, app.DefaultRefresh)
		}
		began = time.Now()
		if _, err := n.svc.Refresh(t.Context(), []string{nodes[1].id}, time.Second); err != nil || time.Since(began) > 4*hop {
			t.Errorf("one that answers took %v, %v", time.Since(began), err)
		}
		if _, err := n.svc.Refresh(t.Context(), make([]string, 17), 0); fault.From(err).Reason != "PEERS_TOO_MANY" {
			t.Errorf("17 peers: %v", err)
		}
		if _, err := n.svc.Refresh(t.Context(), []string{"a/b"}, 0); fault.From(err).Reason != "PEER_ID_INVALID" {
			t.Errorf("no id: %v", err)
		}
	})
}

func TestOnlyThePeerThatWasAskedAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 3)
		pass(time.Minute)
		s.mu.Lock()
		nodes[1].deaf = true
		s.mu.Unlock()
		done := make(chan []domain.Known)
		go func() {
			got, _ := nodes[0].svc.Refresh(t.Context(), []string{nodes[1].id}, time.Second)
			done <- got
		}()
		synctest.Wait()
		// The other cannot know the question's id; even with it, its own metric is no answer.
		nodes[0].svc.HandleMetric(nodes[2].id, "guessed", domain.Metric{PeerID: nodes[2].id, Version: 1 << 40, Interval: time.Minute})
		if got := <-done; len(got) != 0 {
			t.Errorf("answered by another: %+v", got)
		}
	})
}

func TestVersionsCountUpAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 2)
		last := uint64(0)
		for range 5 {
			pass(time.Minute)
			for _, s := range nodes[1].sayings(time.Time{}) {
				last = max(last, s.m.Version)
			}
			nodes[1].stop()
			from := time.Now()
			nodes[1].start()
			pass(time.Minute)
			said := nodes[1].sayings(from)
			if len(said) == 0 || said[0].m.Version <= last {
				t.Fatalf("after a restart it began with %v, before it was at %d", said, last)
			}
			if got, err := nodes[0].svc.Get(nodes[1].id); err != nil || got.Metric.Version <= last {
				t.Errorf("after a restart nobody listened: %v", err)
			}
		}
	})
}

func TestAVersionIsNotUsedBeforeItsReservationIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add()
		n.versions.Break(true) // for longer than one try: whoever wants to publish may come more than once
		n.start()
		synctest.Wait()
		if said := n.sayings(time.Time{}); len(said) != 0 {
			t.Errorf("published version %d, which no disk remembers", said[0].m.Version)
		}
		n.versions.Break(false)
		pass(time.Minute)
		if said := n.sayings(time.Time{}); len(said) == 0 {
			t.Error("not published after the disk was back")
		}
	})
}

func TestALostCounterGoesOnFromWhatIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 2)
		n := nodes[0]
		pass(time.Second)
		n.svc.HandleMetric("relay", "", domain.Metric{PeerID: n.id, Version: 1 << 40, Interval: time.Minute})
		pass(time.Minute)
		said := n.sayings(time.Time{})
		if v := said[len(said)-1].m.Version; v <= 1<<40 {
			t.Errorf("it is at version %d", v)
		}
	})
}

func TestTheOwnMetricIsThereWithoutABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add()
		n.nobody = true
		n.setLoad(0.25)
		n.start()
		pass(time.Minute)
		got, err := n.svc.Get("")
		if err != nil || !got.Own || got.Metric.CPU.Load != 0.25 || got.Metric.Memory.Total != 100 {
			t.Errorf("Get = %+v, %v", got, err)
		}
		if v := n.svc.HandleQuery("peer", "question"); v != app.Retry {
			t.Errorf("a query before this node knows its name: verdict %v", v)
		}
	})
}

func TestWatchersAreToldWhatMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		pass(time.Minute)
		now, w := n.svc.Watch()
		defer w.Stop()
		if len(now) != 1 || !now[0].Own {
			t.Errorf("%d metrics at first", len(now))
		}
		pass(time.Minute) // nothing changes: one a measurement would be 30
		quiet := len(w.C)
		if quiet < 9 || quiet > 12 {
			t.Errorf("an idle minute told %d times", quiet)
		}
		for len(w.C) > 0 {
			<-w.C
		}
		if err := n.svc.ReportQueue(t.Context(), domain.Queue{Running: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(w.C) != 1 || (<-w.C).Metric.Queue.Running != 1 {
			t.Error("a change of the queue was not told at once")
		}
		if err := n.svc.ReportQueue(t.Context(), domain.Queue{Pending: 1 << 30}); fault.From(err).Reason != "QUEUE_INVALID" {
			t.Errorf("ReportQueue = %v", err)
		}
	})
}

func TestASlowWatcherIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		_, w := n.svc.Watch()
		for v := range 1100 {
			n.svc.HandleMetric("relay", "", domain.Metric{PeerID: fmt.Sprintf("busy%d", v%200), Version: uint64(v + 1), Interval: time.Minute})
		}
		got := 0
		for range w.C {
			got++
		}
		if !errors.Is(w.Err(), app.ErrSlowWatcher) || got != 1024 {
			t.Errorf("the slow watcher got %d changes and then %v", got, w.Err())
		}
	})
}
