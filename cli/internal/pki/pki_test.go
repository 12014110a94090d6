package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/mtls"
)

// clock is set by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

type bench struct {
	*testing.T
	*clock
	home  home.Home
	store *Store
	pub   *Publisher
	out   string
}

func newBench(t *testing.T, services ...string) *bench {
	t.Helper()
	b := &bench{T: t, clock: &clock{t: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)}, out: t.TempDir()}
	var err error
	if b.home, err = home.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if b.store, err = Open(b.home, b.now); err != nil {
		t.Fatal(err)
	}
	var targets []Target
	for _, s := range services {
		target, err := ParseTarget(filepath.Join(b.out, s))
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target)
	}
	b.pub = NewPublisher(b.store, targets, Lifetime, slog.New(slog.DiscardHandler))
	return b
}

func (b *bench) sync() {
	b.Helper()
	if err := b.pub.Sync(); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) file(service, name string) []byte {
	b.Helper()
	data, err := os.ReadFile(filepath.Join(b.out, service, name))
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func (b *bench) leaf(service string) *x509.Certificate {
	b.Helper()
	pair, err := tls.X509KeyPair(b.file(service, mtls.FileCert), b.file(service, mtls.FileKey))
	if err != nil {
		b.Fatal(err)
	}
	return pair.Leaf
}

func (b *bench) revoked(service string) []string {
	b.Helper()
	block, _ := pem.Decode(b.file(service, mtls.FileCRL))
	l, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		b.Fatal(err)
	}
	var out []string
	for _, e := range l.RevokedCertificateEntries {
		out = append(out, e.SerialNumber.Text(16))
	}
	return out
}

func (b *bench) add(name string) Client {
	b.Helper()
	c, err := b.store.Add(name, ClientLifetime, func(*authority.Pair) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	if f := fault.From(err); f == nil || f.Reason != reason || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want %s", err, reason)
	}
}

func TestServicesGetCertificatesOfADay(t *testing.T) {
	b := newBench(t, "task", "consumer-node", "gateway", "postgres", "cli", "consumer-cli")
	b.sync()
	for dir, want := range map[string]string{"task": "task", "consumer-node": "node", "gateway": "gateway", "postgres": "postgres", "cli": "cli/operator", "consumer-cli": "cli/operator"} {
		leaf := b.leaf(dir)
		who, err := mtls.IdentityOf(leaf)
		if err != nil || who.String() != want {
			t.Errorf("%s is for %v, %v", dir, who, err)
		}
		if got := leaf.NotAfter.Sub(b.now()); got != Lifetime {
			t.Errorf("%s lasts %v", dir, got)
		}
		service, _, _ := strings.Cut(want, "/")
		for _, name := range []string{service, dir} {
			if name == mtls.ServiceCLI { // nobody calls it
				continue
			}
			if err := leaf.VerifyHostname(name); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
		}
		if err := (Target{Dir: filepath.Join(b.out, dir), Service: service}).Check(b.now); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, path := range []string{filepath.Join(b.out, "task", mtls.FileKey), filepath.Join(b.home.State(Process), fileKey)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	wantReason(t, Target{Dir: filepath.Join(b.out, "task"), Service: "node"}.Check(b.now), "TLS_FILES_INVALID")
	wantReason(t, Target{Dir: filepath.Join(b.out, "none"), Service: "node"}.Check(b.now), "TLS_FILES_MISSING")
}

func TestCertificatesAreRenewedAtHalfTheirLife(t *testing.T) {
	b := newBench(t, "task")
	b.sync()
	first, list := b.leaf("task"), b.file("task", mtls.FileCRL)
	b.pass(Lifetime/2 - time.Second)
	b.sync()
	if got := b.leaf("task"); !got.Equal(first) || !bytes.Equal(list, b.file("task", mtls.FileCRL)) {
		t.Error("renewed too early")
	}
	b.pass(time.Second)
	b.sync()
	second := b.leaf("task")
	if second.Equal(first) || bytes.Equal(list, b.file("task", mtls.FileCRL)) {
		t.Error("not renewed")
	}
	// After a restart nothing is made anew that need not be; after a long absence all is.
	again, err := Open(b.home, b.now)
	if err != nil {
		t.Fatal(err)
	}
	b.pub = NewPublisher(again, b.pub.targets, Lifetime, slog.New(slog.DiscardHandler))
	b.sync()
	if got := b.leaf("task"); !got.Equal(second) {
		t.Error("renewed by a restart")
	}
	b.pass(72 * time.Hour)
	wantReason(t, b.pub.targets[0].Check(b.now), "TLS_FILES_INVALID")
	b.sync()
	if err := b.pub.targets[0].Check(b.now); err != nil {
		t.Error(err)
	}
}

func TestWhatIsSpoiltIsMadeAnew(t *testing.T) {
	b := newBench(t, "task")
	dir := filepath.Join(b.out, "task")
	other := newBench(t, "task")
	other.sync()
	for name, spoil := range map[string]func() error{
		"emptied":     func() error { return os.RemoveAll(dir) },
		"a file gone": func() error { return os.Remove(filepath.Join(dir, mtls.FileKey)) },
		"half a file": func() error { return os.Truncate(filepath.Join(dir, mtls.FileCert), 100) },
		"of another CA": func() error {
			return os.WriteFile(filepath.Join(dir, mtls.FileCA), other.file("task", mtls.FileCA), 0o600)
		},
		"plain files": func() error {
			data := b.file("task", mtls.FileCert)
			return errors.Join(os.Remove(filepath.Join(dir, mtls.FileCert)), os.WriteFile(filepath.Join(dir, mtls.FileCert), data[:10], 0o600))
		},
	} {
		b.sync()
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		b.sync()
		if err := b.pub.targets[0].Check(b.now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.targetsGet(t, "tas", "PKI_SERVICE_UNKNOWN")
}

func (b *bench) targetsGet(t *testing.T, arg, reason string) {
	t.Helper()
	for _, a := range []string{arg, "clip", "consumer-", "task=", "/x/consumer-me", "x=/y"} {
		_, err := ParseTarget(a)
		wantReason(t, err, reason)
	}
}

// Whoever reads while sets are switched gets files that belong together, or none that do not.
func TestSetsAreSwitchedAtOnce(t *testing.T) {
	b := newBench(t, "task")
	b.sync()
	target := b.pub.targets[0]
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	var torn, read int
	reading.Go(func() {
		for ctx.Err() == nil {
			link, err := os.Readlink(filepath.Join(target.Dir, linkData))
			if err != nil {
				t.Error(err)
				return
			}
			cert, err1 := os.ReadFile(filepath.Join(target.Dir, link, mtls.FileCert))
			key, err2 := os.ReadFile(filepath.Join(target.Dir, link, mtls.FileKey))
			if err := errors.Join(err1, err2); err != nil {
				if !errors.Is(err, fs.ErrNotExist) { // it was switched twice meanwhile
					t.Error(err)
				}
				continue
			}
			read++
			if _, err := tls.X509KeyPair(cert, key); err != nil {
				torn++
			}
		}
	})
	for range 60 {
		b.pass(Lifetime)
		b.sync()
	}
	cancel()
	reading.Wait()
	if torn > 0 || read == 0 {
		t.Errorf("%d of %d sets were torn", torn, read)
	}
	entries, err := os.ReadDir(target.Dir)
	if err != nil || len(entries) > 7 { // four links, the one that turns, two sets
		t.Errorf("%d things are left in the directory: %v, %v", len(entries), entries, err)
	}
}

func TestClients(t *testing.T) {
	b := newBench(t, "node")
	b.sync()
	laptop := b.add("laptop")
	_, err := b.store.Add("laptop", ClientLifetime, nil)
	wantReason(t, err, "CLIENT_EXISTS")
	_, err = b.store.Add("No Name", ClientLifetime, nil)
	wantReason(t, err, "CLIENT_INVALID")
	wantReason(t, b.store.Revoke("latop"), "CLIENT_NOT_FOUND")
	if got := b.revoked("node"); len(got) != 0 {
		t.Errorf("revoked: %v", got)
	}
	if err := b.store.Revoke("laptop"); err != nil {
		t.Fatal(err)
	}
	b.sync()
	if got := b.revoked("node"); !slices.Equal(got, []string{laptop.Serial}) {
		t.Errorf("revoked: %v, want %s", got, laptop.Serial)
	}
	second := b.add("laptop") // the name is free again
	full := errors.New("no space left")
	if _, err := b.store.Add("lost", ClientLifetime, func(*authority.Pair) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	b.sync()
	if got := b.revoked("node"); len(got) != 2 || slices.Contains(got, second.Serial) {
		t.Errorf("one whose files could not be written is not revoked: %v", got)
	}
	// Who has expired is on no list, and is forgotten in the end.
	b.pass(ClientLifetime + time.Hour)
	b.sync()
	if got := b.revoked("node"); len(got) != 0 {
		t.Errorf("revoked: %v", got)
	}
	b.pass(forgetAfter)
	b.sync()
	b.pass(Lifetime)
	b.sync()
	if got, err := b.store.Clients(); err != nil || len(got) != 0 {
		t.Errorf("clients: %v, %v", got, err)
	}
}

// Two processes that change the records at once lose neither change.
func TestClientsAreAddedSideBySide(t *testing.T) {
	b := newBench(t, "node")
	var adding sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s, err := Open(b.home, b.now)
		if err != nil {
			t.Fatal(err)
		}
		adding.Go(func() {
			if _, err := s.Add(name, ClientLifetime, func(*authority.Pair) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	if got, err := b.store.Clients(); err != nil || len(got) != 6 {
		t.Errorf("clients: %v, %v", got, err)
	}
}

func TestTheAuthorityIsKept(t *testing.T) {
	b := newBench(t, "node")
	dir := b.home.State(Process)
	again, err := Open(b.home, b.now)
	if err != nil || !bytes.Equal(again.Cert(), b.store.Cert()) {
		t.Fatalf("it is another: %v", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, fileKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileKey), key[:50], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(b.home, b.now)
	wantReason(t, err, "PKI_INVALID")
	if err := os.Remove(filepath.Join(dir, fileKey)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(b.home, b.now)
	wantReason(t, err, "PKI_KEY_MISSING")
	// Killed between the two files, it has signed nothing, and begins again.
	if err := os.Remove(filepath.Join(dir, mtls.FileCA)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileKey), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(b.home, b.now); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileClients), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = b.store.Clients()
	wantReason(t, err, "PKI_INVALID")
}

// A directory that cannot be written is said with its path, and keeps the others from nothing.
func TestOneDirectoryThatCannotBeWritten(t *testing.T) {
	b := newBench(t, "task", "node")
	if err := os.WriteFile(filepath.Join(b.out, "task"), []byte("no directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := b.pub.Sync()
	if err == nil || !strings.Contains(err.Error(), filepath.Join(b.out, "task")) {
		t.Errorf("got %v", err)
	}
	if err := b.pub.targets[1].Check(b.now); err != nil {
		t.Error(err)
	}
}

func TestRunPublishesWhatIsRevoked(t *testing.T) {
	b := newBench(t, "node")
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- Run(ctx, b.home, b.pub, func() { close(ready) }) }()
	<-ready
	wantReason(t, Run(ctx, b.home, b.pub, func() {}), "HOME_IN_USE")
	c := b.add("thief")
	if err := b.store.Revoke("thief"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !slices.Contains(b.revoked("node"), c.Serial); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the list never came")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The gateway shows people who may call the node. No other service hears of it.
func TestGatewaysHearOfClients(t *testing.T) {
	b := newBench(t, "gateway", "consumer-gateway", "task")
	b.sync()
	if got := string(b.file("gateway", mtls.FileClients)); got != `{"clients":[]}` {
		t.Error(got)
	}
	laptop := b.add("laptop")
	b.sync()
	for _, dir := range []string{"gateway", "consumer-gateway"} {
		got := string(b.file(dir, mtls.FileClients))
		if !strings.Contains(got, `"name":"laptop","added_at":"2026-03-04T12:00:00Z","expires_at":"2027-03-04T12:00:00Z","revoked":false`) || strings.Contains(got, laptop.Serial) {
			t.Error(got)
		}
	}
	if err := b.store.Revoke("laptop"); err != nil {
		t.Fatal(err)
	}
	b.sync()
	if got := string(b.file("gateway", mtls.FileClients)); !strings.Contains(got, `"revoked":true`) {
		t.Error(got)
	}
	if _, err := os.Stat(filepath.Join(b.out, "task", mtls.FileClients)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("task has the list, or %v", err)
	}
	// A directory that a release without this list has filled gets it.
	if err := os.Remove(filepath.Join(b.out, "gateway", mtls.FileClients)); err != nil {
		t.Fatal(err)
	}
	b.sync()
	b.file("gateway", mtls.FileClients)
	before, err := os.Readlink(filepath.Join(b.out, "gateway", linkData))
	if err != nil {
		t.Fatal(err)
	}
	b.sync()
	if after, err := os.Readlink(filepath.Join(b.out, "gateway", linkData)); err != nil || after != before {
		t.Errorf("what has not changed is written again: %v", err)
	}
}
