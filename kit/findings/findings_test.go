package findings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFindings(t *testing.T) {
	for what, c := range map[string]struct {
		got          Finding
		status, says string
	}{
		"a full disk":          {disk("/h", 1<<20, nil), Wrong, "only 1.0 MiB"},
		"a scarce disk":        {disk("/h", 1<<29, nil), Warning, "only 512 MiB"},
		"a disk":               {disk("/h", 1<<40, nil), OK, "1.0 TiB free"},
		"a disk nobody sees":   {disk("/h", 0, errors.New("gone")), Warning, "gone"},
		"this disk":            {Disk(t.TempDir()), "", ""},
		"no network":           {Network(Reach{Provider: true, Known: 4}), Wrong, "cannot be reached"},
		"no tor":               {Network(Reach{Tor: "starting, 5 %", TorLog: "/log"}), Wrong, "tor is starting, 5 %"},
		"nobody to run a task": {Network(Reach{Online: true, Peers: 1}), Wrong, "no task can run"},
		"the first provider":   {Network(Reach{Online: true, Provider: true}), Warning, "no other provider"},
		"a network":            {Network(Reach{Online: true, Known: 3, Peers: 2}), OK, "3 providers known, 2 peers"},
		"no fence":             {Fence(), Warning, "runs without one"},
	} {
		f := c.got
		if c.status != "" && f.Status != c.status || !strings.Contains(f.Detail, c.says) || (f.Mend == "") != (f.Status == OK) {
			t.Errorf("%s: %+v", what, f)
		}
	}
	if f := Network(Reach{Tor: "x", TorLog: "/log"}); !strings.Contains(f.Mend, "read /log;") {
		t.Errorf("%+v", f)
	}
}

func TestClock(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "logs", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := Clock(home, time.Now().Add(-time.Hour)); f.Status != Wrong || !strings.Contains(f.Detail, "set back") {
		t.Errorf("%+v", f)
	}
	if f := Clock(home, time.Now()); f.Status == Wrong {
		t.Errorf("%+v", f)
	}
}
