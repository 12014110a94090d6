package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/test/internal/kubo"
	"github.com/shallot-net/shallot/test/internal/measure"
)

// content is a large file: put at one node, and fetched at another that has nothing of it, both beside Kubo's add and get. Each is timed
// until it is on disk: what was stored by the program's own promise and a sync of the file system after it, what was fetched by a sync of
// the file. Both sides are driven by their commands.
func (s *session) content(ctx context.Context) (figures []Figure, err error) {
	names := []string{"put", "get"}
	size := int64(s.or(1<<30, 16<<20))
	program, err := kubo.Build(ctx)
	if errors.Is(err, kubo.ErrUnavailable) {
		for _, n := range names {
			figures = append(figures, Figure{Name: contentName(n, size), Unit: "MB/s", Note: firstLine(err)})
		}
		return figures, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.network(ctx); err != nil {
		return nil, err
	}
	pair, err := s.startPair(ctx, program)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pair.stop()) }()
	took := map[string][]time.Duration{}
	for round := range s.or(3, 1) {
		file, sum, err := s.noise(byte(round), size)
		if err != nil {
			return nil, err
		}
		for name, side := range map[string]contentSide{"ours": s.ourContent(ctx), "Kubo": pair.content(ctx)} {
			put, get, err := s.move(side, file, sum)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			took[name+" put"], took[name+" get"] = append(took[name+" put"], put), append(took[name+" get"], get)
		}
		if err := os.Remove(file); err != nil {
			return nil, err
		}
	}
	rate := func(what string) float64 { return float64(size) / 1e6 / measure.Quantile(took[what], 0.5).Seconds() }
	for i, n := range names {
		f := Figure{Name: contentName(n, size), Unit: "MB/s", Ours: rate("ours " + n)}
		f = f.beside(rate("Kubo "+n), []string{"ipfs add", "ipfs get"}[i])
		figures = append(figures, f.atLeast(f.Floor, "≥ Kubo"))
	}
	return figures, nil
}

func contentName(what string, size int64) string {
	return fmt.Sprintf("%d MiB of content, %s, on disk", size>>20, what)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// contentSide stores at one node and fetches at another.
type contentSide struct {
	put func(file string) (cid string, err error)
	get func(cid, file string) error
}

// move times both ways of one file, and checks what comes out.
func (s *session) move(side contentSide, file, sum string) (put, get time.Duration, err error) {
	begin := time.Now()
	cid, err := side.put(file)
	if err != nil {
		return 0, 0, err
	}
	if err := syncDisk(s.dir); err != nil {
		return 0, 0, err
	}
	put = time.Since(begin)
	out := filepath.Join(s.dir, "fetched")
	defer os.Remove(out)
	begin = time.Now()
	if err := side.get(cid, out); err != nil {
		return 0, 0, err
	}
	if err := syncDisk(s.dir); err != nil {
		return 0, 0, err
	}
	get = time.Since(begin)
	got, err := hashOf(out)
	if err == nil && got != sum {
		err = fmt.Errorf("%s was fetched with other bytes", cid)
	}
	return put, get, err
}

func (s *session) ourContent(ctx context.Context) contentSide {
	run := func(node string, args ...string) (string, error) {
		out, talk, code, err := s.net.CLI(ctx, node, nil, args...)
		if err == nil && code != 0 {
			err = fmt.Errorf("shallot %s exited with %d: %s", strings.Join(args, " "), code, talk)
		}
		return strings.TrimSpace(string(out)), err
	}
	return contentSide{
		put: func(file string) (string, error) { return run("provider-1", "content", "put", file) },
		get: func(cid, file string) error {
			_, err := run("consumer-1", "content", "get", cid, "--file", file)
			return err
		},
	}
}

// kuboPair is two daemons that know each other.
type kuboPair struct{ from, to *kubo.Daemon }

func (s *session) startPair(ctx context.Context, program string) (p *kuboPair, err error) {
	p = &kuboPair{}
	if p.from, err = kubo.Start(ctx, program, filepath.Join(s.dir, "kubo-from")); err != nil {
		return nil, err
	}
	if p.to, err = kubo.Start(ctx, program, filepath.Join(s.dir, "kubo-to")); err != nil {
		return nil, errors.Join(err, p.from.Stop())
	}
	addrs, err := p.from.Addresses(ctx)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the daemon of Kubo listens nowhere")
	}
	if err == nil {
		_, err = p.to.Run(ctx, nil, "swarm", "connect", addrs[0])
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *kuboPair) stop() error { return errors.Join(p.from.Stop(), p.to.Stop()) }

// content adds as Kubo does by itself, with its pin.
func (p *kuboPair) content(ctx context.Context) contentSide {
	return contentSide{
		put: func(file string) (string, error) { return p.from.Run(ctx, nil, "add", "-Q", file) },
		get: func(cid, file string) error { _, err := p.to.Run(ctx, nil, "get", "-o", file, cid); return err },
	}
}

// noise writes a file of bytes that do not compress, and returns its hash.
func (s *session) noise(seed byte, size int64) (path, sum string, err error) {
	f, err := os.CreateTemp(s.dir, "noise")
	if err != nil {
		return "", "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(rand.NewChaCha8([32]byte{seed, 7}), size))
	err = errors.Join(err, f.Sync(), f.Close())
	return f.Name(), fmt.Sprintf("%x", h.Sum(nil)), err
}

func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// syncDisk returns when all that was written to the file system of a folder is on disk, by whichever process.
func syncDisk(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
