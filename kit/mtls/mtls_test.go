package mtls_test

import (
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
)

func TestIdentities(t *testing.T) {
	for text, want := range map[string]mtls.Identity{
		"shallot://node/task":       {Service: "task"},
		"shallot://node/cli/laptop": {Service: "cli", Client: "laptop"},
		"shallot://node/cli":        {}, "shallot://node/task/x": {}, "shallot://node/cli/a/b": {}, "shallot://node/": {}, "shallot://node/Task": {},
		"shallot://other/task": {}, "https://node/task": {}, "shallot://node/task?x=1": {}, "shallot://u@node/task": {}, "shallot://node:1/task": {}, "shallot://node/ta%73k": {},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := mtls.IdentityOf(&x509.Certificate{URIs: []*url.URL{u}})
		if got != want || (err == nil) != (want != mtls.Identity{}) {
			t.Errorf("%s is %v, %v", text, got, err)
		}
		if err == nil && got.URI().String() != text {
			t.Errorf("%s is written %s", text, got.URI())
		}
	}
	u := mtls.Identity{Service: "task"}.URI()
	for _, urls := range [][]*url.URL{nil, {u, u}} {
		if _, err := mtls.IdentityOf(&x509.Certificate{URIs: urls}); err == nil {
			t.Errorf("%d URIs are taken", len(urls))
		}
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What cannot be used is refused with the file's name, and with nothing of what is in it.
func TestOpenSaysWhatIsWrong(t *testing.T) {
	ca, other := mtlstest.NewCA(t), mtlstest.NewCA(t)
	for name, c := range map[string]struct {
		spoil func(dir string)
		want  string
	}{
		"no key": {func(d string) { _ = os.Remove(filepath.Join(d, mtls.FileKey)) }, "there is no tls.key"},
		"no CA":  {func(d string) { _ = os.Remove(filepath.Join(d, mtls.FileCA)) }, "there is no ca.crt"},
		"a directory": {func(d string) {
			_ = os.Remove(filepath.Join(d, mtls.FileCA))
			_ = os.Mkdir(filepath.Join(d, mtls.FileCA), 0o700)
		}, "cannot read ca.crt"},
		"a key for all": {func(d string) {
			write(t, filepath.Join(d, mtls.FileKey), read(t, filepath.Join(d, mtls.FileKey)), 0o644)
		}, "chmod 600"},
		"another's key": {func(d string) {
			write(t, filepath.Join(d, mtls.FileKey), read(t, filepath.Join(ca.Dir("task"), mtls.FileKey)), 0o600)
		}, "no pair"},
		"half a cert": {func(d string) {
			write(t, filepath.Join(d, mtls.FileCert), read(t, filepath.Join(d, mtls.FileCert))[:200], 0o600)
		}, "no pair"},
		"another's CA": {func(d string) { write(t, filepath.Join(d, mtls.FileCA), string(other.Cert()), 0o600) }, "not of the CA"},
		"a cert for a CA": {func(d string) {
			write(t, filepath.Join(d, mtls.FileCA), read(t, filepath.Join(d, mtls.FileCert)), 0o600)
		}, "something else than certificates of CAs"},
		"an empty list":     {func(d string) { write(t, filepath.Join(d, mtls.FileCRL), "x", 0o600) }, "no revocation list"},
		"another's list":    {func(d string) { other.Publish(d) }, "not signed by the CA"},
		"expired":           {func(d string) { ca.Write(d, "task", -time.Minute) }, "expired at"},
		"larger than it is": {func(d string) { write(t, filepath.Join(d, mtls.FileCA), strings.Repeat("x", 1<<20+1), 0o600) }, "larger than"},
	} {
		dir := ca.Dir("task")
		c.spoil(dir)
		_, err := mtls.Open(dir, mtls.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: %v", name, err)
		}
		if f := fault.From(err); f == nil || !strings.HasPrefix(f.Reason, "TLS_FILES_") {
			t.Errorf("%s: %v", name, f)
		}
	}
	if c, err := mtls.Open("", mtls.Options{}); c != nil || err != nil {
		t.Errorf("no directory: %v, %v", c, err)
	}
	both := ca.Dir("task") // while one CA replaces another
	write(t, filepath.Join(both, mtls.FileCA), string(other.Cert())+string(ca.Cert()), 0o600)
	if _, err := mtls.Open(both, mtls.Options{}); err != nil {
		t.Errorf("two CAs: %v", err)
	}
}

// measured is a counter or gauge without labels.
func measured(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("%s is not measured", name)
	return 0
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(what)
		}
	}
}

// What is written in between never replaces what is in use: neither half of a new pair, nor another service's.
func TestReload(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir, next, another := ca.Dir("task"), ca.DirFor("task", 2*time.Hour), ca.Dir("node")
	reg := prometheus.NewRegistry()
	c := ca.Open(dir, mtls.Options{Poll: time.Millisecond, Registry: reg})
	go func() { _ = c.Run(t.Context()) }()
	value := func(name string) float64 { return measured(t, reg, name) }
	wait := func(what string, f func() bool) { t.Helper(); eventually(t, what, f) }
	failures := func() float64 { return value(mtls.MetricReloadFailures) }
	first := value(mtls.MetricCertificateExpiry)
	move := func(from, name string) { write(t, filepath.Join(dir, name), read(t, filepath.Join(from, name)), 0o600) }
	move(next, mtls.FileCert)
	wait("half a pair is not noticed", func() bool { return failures() == 1 })
	if value(mtls.MetricCertificateExpiry) != first {
		t.Error("half a pair is in use")
	}
	move(next, mtls.FileKey)
	wait("the new pair is not noticed", func() bool { return value(mtls.MetricCertificateExpiry) > first })
	move(another, mtls.FileCert)
	wait("half of another's pair is not noticed", func() bool { return failures() == 2 })
	move(another, mtls.FileKey)
	wait("another's pair is not noticed", func() bool { return failures() == 3 })
	if c.Identity().String() != "task" {
		t.Errorf("it is %s now", c.Identity())
	}
}

// A list that was there and is not any more does not let those in who were on it.
func TestALostListIsNotNone(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"gone":  os.Remove,
		"empty": func(path string) error { return os.Truncate(path, 0) },
	} {
		ca := mtlstest.NewCA(t)
		dir := ca.Dir("node")
		reg := prometheus.NewRegistry()
		c := ca.Open(dir, mtls.Options{Poll: time.Millisecond, Registry: reg})
		go func() { _ = c.Run(t.Context()) }()
		expiry := measured(t, reg, mtls.MetricListExpiry)
		if err := lose(filepath.Join(dir, mtls.FileCRL)); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+": not noticed", func() bool { return measured(t, reg, mtls.MetricReloadFailures) == 1 })
		if got := measured(t, reg, mtls.MetricListExpiry); got != expiry || got == 0 {
			t.Errorf("%s: the list in use ends at %v, and before at %v", name, got, expiry)
		}
	}
}
