package tor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shallot-net/shallot/kit/fault"
)

// An authority's certificate is for a year, and its keys are made anew in the last month of it: its network lives on, since clients learn its authorities at each start.
const (
	certMonths = "12"
	certSpare  = 31 * 24 * time.Hour
)

// node is one tor of a private network.
type node struct {
	name, dir       string
	authority       bool
	orPort, dirPort int
	fingerprint     string // of its relay key, 40 hex digits
	v3ident         string // an authority's, likewise
}

func (n *node) data() string      { return filepath.Join(n.dir, "data") }
func (n *node) torrcFile() string { return filepath.Join(n.dir, "torrc") }

// findGencert finds the program that makes the keys of authorities: packages put it beside tor.
func findGencert(p Program) (string, error) {
	return lookUp("tor-gencert", append([]string{filepath.Dir(p.Path)}, outsidePath...))
}

// makeKeys reads every tor's keys and then makes those that are missing. They cost a processor some seconds an authority, so two are made at a time.
func (p *Private) makeKeys(ctx context.Context, gencert string) error {
	var missing []*node
	for _, n := range p.nodes {
		switch err := n.readKeys(); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, n)
		case err != nil:
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, n := range missing {
		group.Go(func() error {
			if err := n.makeKeys(ctx, p.cfg.Program, gencert); err != nil {
				return err
			}
			return n.readKeys()
		})
	}
	return group.Wait()
}

// makeKeys makes the whole directory of a tor under another name first: what is killed in between leaves nothing that looks whole.
func (n *node) makeKeys(ctx context.Context, tor Program, gencert string) error {
	half := *n
	half.dir = n.dir + ".new"
	keys := filepath.Join(half.data(), "keys")
	if err := os.RemoveAll(half.dir); err != nil {
		return fault.FailedPrecondition(ReasonConfig, "cannot remove %s, which is left from before", half.dir).Because(err)
	}
	for _, d := range []string{half.dir, half.data(), keys} {
		if err := privateDir(d); err != nil {
			return err
		}
	}
	if n.authority {
		if err := gencertInto(ctx, gencert, keys); err != nil {
			return err
		}
	}
	if err := listFingerprint(ctx, tor, &half); err != nil {
		return err
	}
	if err := os.RemoveAll(n.dir); err != nil {
		return fault.FailedPrecondition(ReasonConfig, "cannot remove %s, whose keys are of no use any more", n.dir).Because(err)
	}
	if err := os.Rename(half.dir, n.dir); err != nil {
		return fault.FailedPrecondition(ReasonConfig, "cannot put %s in its place", n.dir).Because(err)
	}
	return nil
}

// gencertInto makes an authority's identity, signing key and certificate. The passphrase is forgotten: what expires is made anew.
func gencertInto(ctx context.Context, gencert, keys string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for a passphrase: %w", err)
	}
	defer r.Close()
	_, err = w.WriteString(rand.Text() + "\n") // far less than a pipe holds
	w.Close()
	if err != nil {
		return fmt.Errorf("write a passphrase: %w", err)
	}
	cmd := exec.CommandContext(ctx, gencert, "--create-identity-key", "--passphrase-fd", "3", "-m", certMonths,
		"-i", filepath.Join(keys, "authority_identity_key"), "-s", filepath.Join(keys, "authority_signing_key"), "-c", filepath.Join(keys, "authority_certificate"))
	cmd.ExtraFiles = []*os.File{r} // descriptor 3
	return runTool(ctx, cmd)
}

// listFingerprint has tor make its relay keys and write its fingerprint to a file.
func listFingerprint(ctx context.Context, tor Program, n *node) error {
	// tor makes a relay's keys only for a relay, and never opens the port in this mode.
	text := torrc{}
	text.set("DataDirectory", n.data())
	text.set("Nickname", n.name)
	text.set("ORPort", "127.0.0.1:1")
	text.set("SocksPort", "0")
	text.set("ExitRelay", "0")
	text.set("Log", "notice stdout")
	if err := writeTorrc(n.torrcFile(), []byte(text.String())); err != nil {
		return err
	}
	return runTool(ctx, exec.CommandContext(ctx, tor.Path, append(Args(n.torrcFile()), "--list-fingerprint")...))
}

func runTool(ctx context.Context, cmd *exec.Cmd) error {
	var out capped
	cmd.Env = environ()
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = sysProc()
	cmd.WaitDelay = time.Second
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fault.Unavailable(ReasonStartFailed, "%s did not make its keys: %s", filepath.Base(cmd.Path), clip(lastLine(string(out.b)), maxSummary)).Because(err)
}

// readKeys learns a tor's fingerprints from its files. fs.ErrNotExist: there are none, or none that serve for long.
func (n *node) readKeys() error {
	data, err := os.ReadFile(filepath.Join(n.data(), "fingerprint"))
	if err != nil {
		return fmt.Errorf("the keys of %s: %w", n.name, err)
	}
	words := strings.Fields(string(data)) // the nickname and the fingerprint
	if len(words) != 2 || !isFingerprint(words[1]) {
		return fault.FailedPrecondition(ReasonPrivateBroken, "%s is damaged: remove the directory %s", filepath.Join(n.data(), "fingerprint"), n.dir)
	}
	n.fingerprint = words[1]
	if !n.authority {
		return nil
	}
	data, err = os.ReadFile(filepath.Join(n.data(), "keys", "authority_certificate"))
	if err != nil {
		return fmt.Errorf("the keys of %s: %w", n.name, err)
	}
	id, expires, err := parseCertificate(data)
	if err != nil {
		return fault.FailedPrecondition(ReasonPrivateBroken, "the certificate in %s is damaged: remove that directory", n.dir).Because(err)
	}
	if time.Until(expires) < certSpare {
		return fmt.Errorf("the keys of %s are for %v only: %w", n.name, time.Until(expires).Round(time.Hour), fs.ErrNotExist)
	}
	n.v3ident = id
	return nil
}

// parseCertificate reads the two lines that matter of an authority's key certificate (dir-spec, §3.1).
func parseCertificate(data []byte) (v3ident string, expires time.Time, err error) {
	scan := bufio.NewScanner(bytes.NewReader(data))
	for scan.Scan() {
		switch word, rest, _ := strings.Cut(scan.Text(), " "); word {
		case "fingerprint":
			v3ident = rest
		case "dir-key-expires":
			if expires, err = time.Parse(time.DateTime, rest); err != nil {
				return "", time.Time{}, fmt.Errorf("dir-key-expires: %w", err)
			}
		}
	}
	if !isFingerprint(v3ident) || expires.IsZero() {
		return "", time.Time{}, errors.New("it has no fingerprint or no end")
	}
	return v3ident, expires, scan.Err()
}

func isFingerprint(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == fingerprint
}
