package alias_test

import (
	"crypto/ed25519"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

func openHome(t *testing.T) string {
	t.Helper()
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h.Dir
}

func TestProcessesShareAKeyThatIsMadeOnce(t *testing.T) {
	dir := openHome(t)
	if _, err := alias.Find(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before: %v", err)
	}
	var wg sync.WaitGroup
	names := make([]string, 16)
	for i := range names {
		wg.Go(func() {
			k, err := alias.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			names[i] = k.Of("alice")
		})
	}
	wg.Wait()
	for _, n := range names {
		if n != names[0] || n == "" {
			t.Fatalf("%v", names)
		}
	}
	if info, err := os.Stat(alias.Path(dir)); err != nil || info.Mode().Perm() != 0o600 || info.Size() != alias.KeySize {
		t.Errorf("the file is %v, %v", info, err)
	}
	other, err := alias.Open(openHome(t))
	if err != nil || other.Of("alice") == names[0] {
		t.Errorf("two homes call a peer alike: %v", err)
	}
	left, err := os.ReadDir(dir + "/state")
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestABadKeyIsNotUsed(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		perm fs.FileMode
		want string
	}{
		"short":     {"short", 0o600, "32 bytes"},
		"long":      {strings.Repeat("x", 33), 0o600, "32 bytes"},
		"empty":     {"", 0o600, "32 bytes"},
		"for all":   {strings.Repeat("x", 32), 0o644, "chmod 600"},
		"for group": {strings.Repeat("x", 32), 0o640, "chmod 600"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := openHome(t)
			if err := os.WriteFile(alias.Path(dir), []byte(c.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(alias.Path(dir), c.perm); err != nil {
				t.Fatal(err)
			}
			_, err := alias.Open(dir)
			if f := fault.From(err); f == nil || f.Reason != "ALIAS_KEY_UNUSABLE" || !strings.Contains(f.Message, c.want) || !strings.Contains(f.Message, alias.Path(dir)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnAliasIsShortAndCanBeTyped(t *testing.T) {
	k := alias.New([alias.KeySize]byte{1})
	seen := map[string]bool{}
	for i := range 4096 {
		a := k.Of(fmt.Sprint("peer ", i))
		if got, ok := alias.Parse(strings.ToUpper(a)); !ok || got != a || len(a) != 10 {
			t.Fatalf("%q is read as %q, %v", a, got, ok)
		}
		seen[a] = true
	}
	if len(seen) != 4096 {
		t.Errorf("%d aliases of 4,096 peers", len(seen))
	}
	if k.Of("") != "" {
		t.Error("nobody has an alias")
	}
	for _, s := range []string{"", "p-", "p-1234567", "p-123456789", "p-1234567l", "q-12345678", "p 12345678", "12D3KooW"} {
		if _, ok := alias.Parse(s); ok {
			t.Errorf("%q is taken for an alias", s)
		}
		if alias.Meant(s) != strings.HasPrefix(s, "p-") {
			t.Errorf("an alias is meant by %q", s)
		}
	}
	if string(k.Derive("a")) == string(k.Derive("b")) || len(k.Derive("a")) != alias.KeySize {
		t.Error("derived keys are alike")
	}
}

func identity(t *testing.T) (id, service string) {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return brokerclient.PeerID(pub), strings.ToLower(base32.StdEncoding.EncodeToString(append(pub, 1, 2, 3)))
}

func TestTextsNameNobody(t *testing.T) {
	k := alias.New([alias.KeySize]byte{1})
	id, service := identity(t)
	want := k.Of(id)
	for _, s := range []string{
		id, "/p2p/" + id, "/onion3/" + service + ":4001/p2p/" + id, "/onion3/" + service + ":4001", service, service + ".onion", service + ".onion:4001",
		"/ip4/203.0.113.9/tcp/4001/p2p/" + id, "/dns4/a.example/tcp/1/p2p/" + id,
	} {
		for _, around := range []string{"%s", "cannot dial %s: refused", `"%s"`, "(%s)", "chose %s, not x", "%s\nnext", "…%s"} {
			got := k.Text(fmt.Sprintf(around, s))
			if got != fmt.Sprintf(around, want) {
				t.Errorf("%q became %q", fmt.Sprintf(around, s), got)
			}
		}
	}
	for _, s := range []string{id[:30], id[:8], "/onion3/" + service[:20], "/ip4/203.0.113.9/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns4/node.example/tcp/1", "expyuzz4wqqyqhjn.onion:80"} {
		if got := k.Text("to " + s + " now"); strings.Contains(got, s) || !strings.HasPrefix(got, "to (a") || !strings.HasSuffix(got, ") now") {
			t.Errorf("%q became %q", s, got)
		}
	}
	for _, s := range []string{
		"", "no provider is known yet", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "unix:/tmp/x/run/task.sock", "0123456789abcdef0123456789abcdef",
		"/home/me/in.csv", want, strings.Repeat("word ", 30), "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
	} {
		if got := k.Text(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

func FuzzText(f *testing.F) {
	k := alias.New([alias.KeySize]byte{1})
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	f.Add("see /onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1 ", ".")
	f.Fuzz(func(t *testing.T, before, after string) {
		if got := k.Text(before + id + after); strings.Contains(got, id) {
			t.Errorf("%q", got)
		}
	})
}

func TestAHomeNamesPeersOnceItHasAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := openHome(t)
		name := alias.OfHome(dir)
		if got := name("alice"); got != "" {
			t.Errorf("without a key she is %q", got)
		}
		k, err := alias.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if got := name("alice"); got != k.Of("alice") {
			t.Errorf("she is %q", got)
		}
	})
}
