package historyfile

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/node/internal/domain"
)

func point(at time.Time, n int) domain.Point {
	return domain.Point{Time: at, Waiting: 1, Running: 2, Finished: uint32(n), Failed: 4, P50: 5, P99: 6, CPU: .7, Memory: 8, Used: 9, Free: 10}
}

// A day's points come back, in their order, and no more; what was damaged is left out.
func TestPointsOutliveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	now := time.Unix(1_800_000_000, 0)
	f, none, err := Open(dir, now)
	if err != nil || len(none) != 0 {
		t.Fatal(none, err)
	}
	first := now.Add(-3 * domain.HistorySpan / 2)
	for i := range 3 * domain.HistoryPoints / 2 {
		if err := f.Append(point(first.Add(time.Duration(i)*domain.HistoryStep), i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "history")
	info, err := os.Stat(path)
	if err != nil || info.Size() != int64(domain.HistoryPoints*record) {
		t.Fatalf("the file has %d bytes, %v", info.Size(), err)
	}
	read := func() []domain.Point {
		t.Helper()
		f, got, err := Open(dir, now)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return got
	}
	got := read()
	if len(got) != domain.HistoryPoints-1 { // the one of a day ago is a day old
		t.Fatalf("%d points", len(got))
	}
	for i, p := range got {
		n := domain.HistoryPoints/2 + 1 + i
		if want := point(first.Add(time.Duration(n)*domain.HistoryStep), n); !p.Time.Equal(want.Time) || p.Finished != want.Finished || p.CPU != want.CPU || p.Free != want.Free || p.P99 != want.P99 {
			t.Fatalf("point %d is %+v, want %+v", i, p, want)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[100*record+20]++
	if err := os.WriteFile(path, b[:len(b)-record/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if left := read(); len(left) != len(got)-2 {
		t.Errorf("%d points of a damaged file", len(left))
	}
	if _, old, err := Open(dir, now.Add(48*time.Hour)); err != nil || len(old) != 0 {
		t.Errorf("after two days: %d, %v", len(old), err)
	}
}
