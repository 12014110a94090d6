package failclosed

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/anonymous"
)

// lost is a node whose disk is gone, and returned what a backup makes of it elsewhere.
const lost, returned = "lost", "returned"

// A provider that comes back from a backup, in another home, is who it was and where it was: others reach it without being told anything.
func (s *session) restored(t *testing.T) {
	stop := s.Up(t, lost, "provider-2", "--role", "provider")
	was := s.Status(t, lost)
	if len(was.GetAddresses()) == 0 || !strings.HasPrefix(was.GetAddresses()[0], "/onion3/") {
		t.Fatalf("the node has the addresses %v", was.GetAddresses())
	}
	services, err := os.ReadFile(filepath.Join(s.Home(lost), "state", "onion", "services.json"))
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if r := s.Shallot(t, lost, "", "backup", backup); r.Code != 0 {
		t.Fatalf("backup: exit code %d, %s", r.Code, r.Stderr)
	}
	stop()
	if err := os.RemoveAll(s.Home(lost)); err != nil {
		t.Fatal(err)
	}
	if r := s.Shallot(t, returned, "", "restore", backup); r.Code != 0 {
		t.Fatalf("restore: exit code %d, %s", r.Code, r.Stderr)
	}
	if got, err := os.ReadFile(filepath.Join(s.Home(returned), "state", "onion", "services.json")); err != nil || string(got) != string(services) {
		t.Errorf("its onion services, that for content among them, are not those that it had: %v", err)
	}
	begin := time.Now()
	stop = s.Up(t, returned, "provider-2", "--role", "provider")
	t.Logf("it was ready again after %v", time.Since(begin).Round(100*time.Millisecond))
	is := s.Status(t, returned)
	if is.GetPeerId() != was.GetPeerId() || !slices.Equal(is.GetAddresses(), was.GetAddresses()) {
		t.Errorf("it was %s at %v, and is %s at %v", was.GetPeerId(), was.GetAddresses(), is.GetPeerId(), is.GetAddresses())
	}
	anonymous.Eventually(t, 2*time.Minute, "the consumer knows the provider that is back", func() bool { return s.Knows(t, consumer, was.GetPeerId()) })
	s.Want(t, consumer, "6\n", "run", "sum", "1", "2", "3", "--provider", was.GetPeerId())
	stop()
}
