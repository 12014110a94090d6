package files

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func TestInputsOwnUploads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	uploads, err := NewUploads(filepath.Join(dir, "uploads"), time.Hour, 10)
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewInputs(filepath.Join(dir, "jobs"), uploads)
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string) string {
		t.Helper()
		up, err := uploads.Create()
		if err != nil {
			t.Fatal(err)
		}
		defer up.Drop()
		if _, err := up.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		id, _, _, err := up.Keep()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	job, other := app.NewID(), app.NewID()
	for range 3 { // 24 bytes: an upload that a job owns takes no room among those that wait
		id := put("12345678")
		p, err := in.Own(job, id)
		if err != nil || p.Size != 8 || p.Path != in.Path(job, p.SHA256) {
			t.Fatalf("%+v, %v", p, err)
		}
		if b, err := os.ReadFile(p.Path); err != nil || string(b) != "12345678" {
			t.Fatalf("%q, %v", b, err)
		}
		if _, err := in.Own(job, id); !errors.Is(err, fault.NotFound("UPLOAD_NOT_FOUND", "")) {
			t.Fatalf("an upload that is owned: %v", err)
		}
	}
	uploads.Expire(time.Now().Add(48 * time.Hour))
	p, err := in.Own(other, put("x"))
	if err != nil {
		t.Fatal(err)
	}
	in.Sweep(func(id string) bool { return id == other })
	if entries, err := os.ReadDir(filepath.Join(dir, "jobs")); err != nil || len(entries) != 1 || entries[0].Name() != other {
		t.Fatalf("after the sweep: %v, %v", entries, err)
	}
	in.Remove("../uploads")
	in.Remove(other)
	if _, err := os.Stat(p.Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "uploads")); err != nil {
		t.Fatal("a job's name led out of its folder")
	}
}
