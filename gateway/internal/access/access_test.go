package access

import (
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
)

// clock is a time that tests turn.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c := &clock{}
	c.turn(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	return c
}

func (c *clock) turn(to time.Time)     { c.at.Store(&to) }
func (c *clock) now() time.Time        { return *c.at.Load() }
func (c *clock) later(d time.Duration) { c.turn(c.now().Add(d)) }

func keyring(t *testing.T, file string, c *clock) *Keyring {
	t.Helper()
	k, err := OpenKeyring(file, home.Home{}, logging.New(io.Discard, "debug", "json", "gateway"), c.now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func loaded(t *testing.T) (*Keyring, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.token")
	k := keyring(t, file, newClock())
	return k, word(t, file)
}

func word(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestGuard(t *testing.T) {
	keys, word := loaded(t)
	hosts, err := NewHosts("127.0.0.1:8080", []string{"node.example.org", "localhost:9000-9009", "127.0.0.1:9100", "gateway:8080"})
	if err != nil {
		t.Fatal(err)
	}
	g := Guard{Keys: keys, Hosts: hosts}
	for _, c := range []struct {
		name, host, origin, site, auth string
		open                           bool
		want                           int
	}{
		{"the token", "127.0.0.1:8080", "", "", "Bearer " + word, false, 0},
		{"by name", "localhost:8080", "", "", "bearer " + word, false, 0},
		{"by IPv6", "[::1]:8080", "", "", "Bearer " + word, false, 0},
		{"an allowed name", "node.example.org", "", "", "Bearer " + word, false, 0},
		{"no token", "127.0.0.1:8080", "", "", "", false, 401},
		{"another token", "127.0.0.1:8080", "", "", "Bearer " + word[:len(word)-1] + "x", false, 401},
		{"the token as another scheme", "127.0.0.1:8080", "", "", "Basic " + word, false, 401},
		{"an open path", "127.0.0.1:8080", "", "", "", true, 0},
		{"a rebound name", "evil.example.com:8080", "", "", "Bearer " + word, false, 403},
		{"a rebound name on an open path", "evil.example.com:8080", "", "", "", true, 403},
		{"another port", "127.0.0.1:9090", "", "", "Bearer " + word, false, 403},
		{"a port that leads here", "localhost:9005", "", "", "Bearer " + word, false, 0},
		{"the last of them", "localhost:9009", "", "", "Bearer " + word, false, 0},
		{"the one after it", "localhost:9010", "", "", "Bearer " + word, false, 403},
		{"a port of another name", "127.0.0.1:9005", "", "", "Bearer " + word, false, 403},
		{"one port", "127.0.0.1:9100", "", "", "Bearer " + word, false, 0},
		{"a name with its port", "gateway:8080", "", "", "Bearer " + word, false, 0},
		{"that name with another", "gateway:8081", "", "", "Bearer " + word, false, 403},
		{"the origin of such a port", "localhost:9005", "http://localhost:9005", "", "Bearer " + word, false, 0},
		{"another program's origin", "localhost:9005", "http://localhost:3000", "", "Bearer " + word, false, 403},
		{"own origin", "127.0.0.1:8080", "http://127.0.0.1:8080", "", "Bearer " + word, false, 0},
		{"another origin", "127.0.0.1:8080", "http://evil.example.com", "", "Bearer " + word, false, 403},
		{"the null origin", "127.0.0.1:8080", "null", "", "Bearer " + word, false, 403},
		{"a page of another site", "127.0.0.1:8080", "", "cross-site", "Bearer " + word, false, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v1/node", nil)
			r.Host = c.host
			for k, v := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site, "Authorization": c.auth} {
				if v != "" {
					r.Header.Set(k, v)
				}
			}
			got := 0
			need := Login
			if c.open {
				need = Nothing
			}
			if _, d := g.Check(r, need); d != nil {
				got = d.Status
				if strings.Contains(d.Message, word) {
					t.Error("the denial tells the token")
				}
			}
			if got != c.want {
				t.Errorf("status %d, want %d", got, c.want)
			}
		})
	}
}

func TestHostsThatCannotBe(t *testing.T) {
	for _, bad := range []string{"localhost:", "localhost:x", "localhost:0", "localhost:9-8", "localhost:70000", ":80", "localhost:1-2-3"} {
		if _, err := NewHosts("127.0.0.1:8080", []string{bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestGatewaysThatStartTogetherShareAToken(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	var wg sync.WaitGroup
	tokens := make([]secret, 16)
	for i := range tokens {
		wg.Go(func() {
			var err error
			if tokens[i], err = readMain(file); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, got := range tokens {
		if got.hash != tokens[0].hash {
			t.Fatal("two gateways have two tokens")
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTokenFile(t *testing.T) {
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := tokenFile("", h)
	first, err := readMain(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || filepath.Dir(file) != h.Dir {
		t.Fatalf("the token file has mode %v, error %v", info.Mode(), err)
	}
	if again, err := readMain(file); err != nil || again.hash != first.hash {
		t.Errorf("the second start has another token: %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readMain(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a token that others can read: %v", err)
	}
	torn := filepath.Join(t.TempDir(), "torn")
	for _, body := range []string{"", "short\n", "two words that are long enough to count\n"} {
		if err := os.WriteFile(torn, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readMain(torn); err == nil || !strings.Contains(err.Error(), torn) {
			t.Errorf("token file %q: %v", body, err)
		}
	}
}
