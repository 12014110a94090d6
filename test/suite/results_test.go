package suite

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a job has brought comes as one archive over REST, with those shards that failed named in it.
func TestResultsOfAJobInOneArchive(t *testing.T) {
	n := sharedNetwork(t)
	in := t.TempDir()
	for i := range 12 {
		if err := os.WriteFile(filepath.Join(in, fmt.Sprintf("%02d.txt", i)), []byte(strings.Repeat(fmt.Sprintf("archived %d\n", i), i*2000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := shallot(t, n, consumer, "", "map", "wasm", program("probe.wasm"), "--inputs", filepath.Join(in, "*.txt"), "--output", filepath.Join(t.TempDir(), "out"), "--json", "--", "cat")
	var last struct{ Job struct{ ID string } }
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || r.code != 0 || last.Job.ID == "" {
		t.Fatalf("exit code %d, %v in %s%s", r.code, err, r.stdout, r.stderr)
	}
	id := last.Job.ID
	token := shallot(t, n, consumer, "", "token", "add", "archives", "--output", "json")
	var made struct{ Token, Gateway string }
	if err := json.Unmarshal([]byte(token.stdout), &made); err != nil {
		t.Fatalf("%v in %s%s", err, token.stdout, token.stderr)
	}
	get := func() (int, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, made.Gateway+"/v1/jobs/"+id+"/results", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+made.Token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	status, b := get()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d, %d bytes, %v", status, len(b), err)
	}
	for i := range 12 {
		f, err := z.Open(fmt.Sprintf("shards/%02d.txt/stdout", i))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if want := strings.Repeat(fmt.Sprintf("archived %d\n", i), i*2000); err != nil || string(got) != want {
			t.Errorf("result %d has %d bytes, want %d: %v", i, len(got), len(want), err)
		}
	}
	f, err := z.Open("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Job    struct{ State string }
		Shards []struct{ Missing []any }
	}
	if err := json.NewDecoder(f).Decode(&manifest); err != nil || manifest.Job.State != "COMPLETED" || len(manifest.Shards) != 12 {
		t.Errorf("%+v, %v", manifest, err)
	}
	if r := shallot(t, n, consumer, "", "token", "revoke", "archives"); r.code != 0 {
		t.Fatal(r.stderr)
	}
	if status, _ := get(); status != http.StatusUnauthorized {
		t.Errorf("a revoked token: %d", status)
	}
}
