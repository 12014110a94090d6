// Package pgtest starts throw-away PostgreSQL servers for tests, on Unix sockets.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// User is the owner of every server, who needs Password.
const (
	User     = "shallot"
	Password = "correct horse"
)

// startTimeout is how long a server may take to answer, on a busy machine.
const startTimeout = time.Minute

// Server is one PostgreSQL server.
type Server struct {
	// Dir has its socket, and PasswordFile the password of User.
	Dir          string
	PasswordFile string
	programs     string
	as           *syscall.Credential

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	out  bytes.Buffer
}

var shared struct {
	sync.Mutex
	server *Server
}

// Shared is the server that all tests of a package use, each with a database of its own. The package's TestMain must be Main.
func Shared(t testing.TB) *Server {
	t.Helper()
	programs := find(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := start(programs)
		if err != nil {
			t.Fatal(err)
		}
		shared.server = s
	}
	return shared.server
}

// Main runs a package's tests and ends the shared server.
func Main(m *testing.M) {
	code := m.Run()
	shared.Lock()
	if shared.server != nil {
		shared.server.remove()
	}
	os.Exit(code)
}

// Start starts a server of the test's own, which it may stop.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := start(find(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

// find gives the directory of the server's programs. Where there are none the test is left out; in CI that is a failure.
func find(t testing.TB) string {
	t.Helper()
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if executable(filepath.Join(dirs[i], "initdb")) && executable(filepath.Join(dirs[i], "postgres")) {
			return dirs[i]
		}
	}
	const missing = "the programs initdb and postgres are not here; to get them: apt-get install postgresql"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip("left out: " + missing)
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// unprivileged is who runs the server where the tests run as root, which it refuses.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
		}
	}
	return nil, errors.New("there is neither a user postgres nor nobody to run the server as")
}

func start(programs string) (*Server, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/tmp", "pg-") // a test's own directory is too long for a socket, and closed to others
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, PasswordFile: filepath.Join(dir, "password"), programs: programs, as: as}
	if err := s.init(); err != nil {
		s.remove()
		return nil, err
	}
	if err := s.start(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) init() error {
	if err := os.WriteFile(s.PasswordFile, []byte(Password+"\n"), 0o600); err != nil {
		return err
	}
	if s.as != nil {
		for _, p := range []string{s.Dir, s.PasswordFile} {
			if err := os.Chown(p, int(s.as.Uid), int(s.as.Gid)); err != nil {
				return err
			}
		}
	}
	c := s.command("initdb", "-D", s.data(), "-U", User, "--auth=scram-sha-256", "--pwfile="+s.PasswordFile, "-N", "-E", "UTF8", "--locale=C")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.programs, name), args...)
	c.Dir = s.Dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return c
}

// start starts the process and waits until it answers.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.command("postgres", "-D", s.data(), "-k", s.Dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=200", "-c", "logging_collector=off")
	s.out.Reset()
	c.Stdout, c.Stderr = &s.out, &s.out
	dieWithTests(c.SysProcAttr)
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the server ends with the thread that has started it
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait()
		}
		close(done)
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.done = c, done
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for again := time.NewTicker(20 * time.Millisecond); ; {
		conn, err := s.connect(ctx, "postgres")
		if err == nil {
			again.Stop()
			return conn.Close(ctx)
		}
		select {
		case <-again.C:
		case <-done:
			return fmt.Errorf("postgres has ended: %s", s.out.String())
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		}
	}
}

// Restart starts the server again after Stop.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the server at once, as a crash of its host would: no connection is told, and it has to recover when it starts again.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	c := s.cmd
	s.cmd = nil
	if err := c.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.done:
	case <-time.After(startTimeout):
		_ = c.Process.Kill()
		<-s.done
		return errors.New("postgres did not end")
	}
	return nil
}

func (s *Server) remove() {
	_ = s.stop()
	_ = os.RemoveAll(s.Dir)
}

// URL names a database of the server.
func (s *Server) URL(database string) string {
	return "postgres://" + User + "@/" + database + "?host=" + s.Dir
}

// Connect opens a connection to a database, as the owner of the server; it ends with the test.
func (s *Server) Connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c, err := s.connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		_ = c.Close(ctx) // it may be closed already
	})
	return c
}

func (s *Server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(s.URL(database))
	if err != nil {
		return nil, err
	}
	c.Password = Password
	return pgx.ConnectConfig(ctx, c)
}

// Exec runs statements as the owner of the server.
func (s *Server) Exec(t testing.TB, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, q := range statements {
		if _, err := conn.Exec(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// Database makes an empty database.
func (s *Server) Database(t testing.TB) (name string) {
	t.Helper()
	name = "t" + strings.ToLower(rand.Text()[:12])
	s.Exec(t, `CREATE DATABASE `+name)
	return name
}
