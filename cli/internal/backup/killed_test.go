package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/backup"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/pgtest"
)

// Environment of this program when it is to back up or restore and be killed on the way.
const (
	envDo     = "SHALLOT_BACKUP_DO" // backup or restore
	envHome   = "SHALLOT_BACKUP_HOME"
	envDir    = "SHALLOT_BACKUP_DIR"    // of the archive
	envStore  = "SHALLOT_BACKUP_STORE"  // URL, a space, the password's file
	envKillAt = "SHALLOT_BACKUP_KILLAT" // the call of progress in which it dies
)

func TestMain(m *testing.M) {
	if os.Getenv(envDo) == "" {
		pgtest.Main(m)
	}
	at, _ := strconv.Atoi(os.Getenv(envKillAt))
	calls := 0
	tell := func(string, uint64, uint64) {
		if calls++; calls == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	var store backup.Store
	store.URL, store.PasswordFile, _ = strings.Cut(os.Getenv(envStore), " ")
	if err := doIt(store, os.Getenv(envDo), os.Getenv(envHome), os.Getenv(envDir), tell); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func doIt(store backup.Store, what, dir, archive string, tell backup.Progress) error {
	if what == "restore" {
		_, _, err := backup.Restore(context.Background(), backup.Target{Dir: dir, Store: store, Progress: tell}, archive)
		return err
	}
	h, err := home.Find(dir)
	if err == nil {
		_, err = backup.Create(context.Background(), backup.Source{Home: h, Store: store, Progress: tell, Now: time.Now}, archive)
	}
	return err
}

// killed runs it in a process that dies in the given call of progress; false once that process comes to its end.
func killed(t *testing.T, store backup.Store, what, dir, archive string, at int) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), envDo+"="+what, envHome+"="+dir, envDir+"="+archive, envKillAt+"="+strconv.Itoa(at), envStore+"="+store.URL+" "+store.PasswordFile)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	t.Fatalf("%s: %v\n%s", what, err, out)
	return false
}

// Killed at any moment, a backup is whole or none, and says which.
func TestBackupIsKilled(t *testing.T) {
	t.Parallel()
	h := node(t)
	for at := 1; ; at++ {
		dir := filepath.Join(t.TempDir(), "b")
		if !killed(t, backup.Store{}, "backup", h.Dir, dir, at) {
			if at < 10 {
				t.Fatalf("it was over after %d steps", at)
			}
			break
		}
		if _, err := backup.Read(dir); reasonOf(err) != "BACKUP_UNFINISHED" {
			t.Fatalf("killed at %d it is taken for a backup: %v", at, err)
		}
		if _, err := backup.Create(t.Context(), backup.Source{Home: h, Now: time.Now}, dir); reasonOf(err) != "BACKUP_NOT_EMPTY" || !strings.Contains(err.Error(), "broken off") {
			t.Fatalf("killed at %d: %v", at, err)
		}
	}
}

// Killed at any moment, a restore leaves a home that nothing starts on, and is given again.
func TestRestoreIsKilled(t *testing.T) {
	t.Parallel()
	h := node(t)
	dir, other := filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "b2")
	create(t, h, dir)
	create(t, h, other)
	m, err := backup.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	begun := 0
	for at := len(m.Files); ; at++ { // before that it only reads
		to := filepath.Join(t.TempDir(), "h")
		if !killed(t, backup.Store{}, "restore", to, dir, at) {
			same(t, to)
			break
		}
		if _, err := os.Lstat(home.RestoringFile(to)); err != nil {
			continue // it had not begun to write
		}
		begun++
		if _, err := home.Open(to); reasonOf(err) != "HOME_RESTORING" {
			t.Fatalf("killed at %d, the home is taken for a node's: %v", at, err)
		}
		again := dir
		if at%2 == 0 { // of another backup as well
			again = other
		}
		if err := restore(t, to, again); err != nil {
			t.Fatalf("killed at %d: %v", at, err)
		}
		same(t, to)
	}
	if begun < 10 {
		t.Errorf("it was killed only %d times while it wrote", begun)
	}
}
